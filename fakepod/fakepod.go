// Package fakepod is a pod that misbehaves on command, to reproduce every
// failure of a pod's start exactly.
//
// [Command] makes any binary that imports this package the fake pod, in a test
// without TestMain; the command fakepod is the same for other programs. How it
// behaves is a one-line program of steps, acted out in order, or the name of a
// mode, which is a program that has a name ([Modes], fakepod -list):
//
//	bind; ready; serve                                  a healthy pod
//	log loading; sleep 500ms; bind; ready; serve        a slow one
//	log 'cannot open session store'; exit 7             one that dies
//
// # Steps
//
// A program is steps with semicolons between them; a step is a verb and its
// arguments with spaces between them. An argument is a bare word, a text in
// 'single quotes' (with a doubled one for a quote), or one in "double quotes"
// with the escapes of Go. A lone word that names a mode is that mode; the
// one-step program ready is written "ready;". In a TEXT, {name}, {socket}, {dir}
// and {pid} stand for the pod's own, and {{ for a brace.
//
//	log TEXT               write a line to stderr
//	out TEXT               write a line to stdout
//	raw TEXT               write to stderr, with no newline added
//	clock                  log the line "monotonic N", CLOCK_MONOTONIC in ns
//	sleep DURATION         wait
//	hang                   wait for ever
//	socket                 make the socket and bind it, without listening
//	listen [BACKLOG]       listen on it (128); again to change the backlog
//	bind                   socket and listen: what a healthy pod does
//	fill                   connect to the own socket until its backlog is full
//	ready [NAME [PATH]]    write the ready line
//	serve                  accept connections and answer, for ever
//	stop                   stop gracefully, as on SIGINT
//	exit STATUS            exit at once and leave everything
//	kill SIGNAL            send a signal to itself; what follows a deadly one is
//	                       never reached
//	ignore SIGNAL...       ignore signals from now on
//	child [PROGRAM]        start a process of the same process group (hang)
//	escape [PROGRAM]       start a process in a session of its own (hang)
//	daemonize              fork twice: the next steps are those of a process in
//	                       its own session, and this one exits with status 0
//	flood SIZE [LINE]      write SIZE bytes to stderr, in lines of LINE bytes
//	                       with their newline (80; 0 = no newline at all)
//	unlink WHAT            remove the sock, the log or the whole pod dir
//	truncate               truncate the log
//
// The signal of kill does what it does to a C program: on Linux it kills even
// where Go would write a stack trace or do nothing. One that stops the process
// only stops it: the next step follows SIGCONT.
//
// A bad program is refused, with the column in bytes, before anything happens.
//
// # Habits
//
// Apart from its program the fake pod does as real pods do. It refuses wrong
// handshake arguments with exit status 2, finds the runtime directory by the
// same four variables, keeps pid and status.json in the pod directory, removes a
// stale socket before it binds. SIGINT stops it gracefully at any step: it
// removes the whole pod directory and exits with status 0. SIGTERM kills it.
//
// # Socket
//
// serve speaks JSON lines. The first one is {"event":"snapshot","data":{…}} with
// the pod's name, pid, workspace, dir, state, and session, profile and
// ticket_role where it has them. Each line {"method":…,"params":…} then gets one
// answer:
//
//	ping      {"event":"pong","data":<params>}
//	echo      {"event":"echo","data":<params>}
//	status    {"event":"status","data":<as in the snapshot>}
//	env       {"event":"env","data":{"NAME":"value",…}}: its environment
//	fds       {"event":"fds","data":{"0":"/dev/null",…}}: what it inherited (Linux)
//	run       {"event":"done"} once params {"program":"…"} was acted out
//	shutdown  {"event":"shutdown"}, then a graceful stop
//
// Anything else is answered with {"event":"error","data":{"message":"…"}}.
package fakepod

import "os"

// marker is the first argument that makes a host binary the fake pod.
const marker = "podharness-fakepod"

// init takes over the process before the host's main, or its tests, begin: the
// host needs no cooperation, not even a TestMain.
func init() {
	verbs = verbTable()
	if len(os.Args) > 1 && os.Args[1] == marker {
		exit(Main(os.Args[2:]))
	}
}

// Command returns the program and the prefix arguments that start a fake pod,
// which behaves as program says: a program of steps or the name of a mode. The
// handshake arguments follow them. The program is the running executable, so
// that this works wherever the executable does, a compiled test binary too.
//
// A bad program is refused by the fake pod itself.
func Command(program string) (name string, args []string) {
	return self(), []string{marker, "-program", program}
}

// Check returns the error with which the fake pod refuses a program; nil for one
// that it takes.
func Check(program string) error {
	_, err := parse(program)
	return err
}

func self() string {
	if exe, err := os.Executable(); err == nil {
		return exe
	}
	return os.Args[0]
}

// A Mode is a program with a name.
type Mode struct {
	Name    string
	Program string // in the step language
	Doc     string // one line
}

// Modes returns all modes, in the order in which they are best read.
func Modes() []Mode { return append([]Mode(nil), modes...) }

var modes = []Mode{
	{"ready", `bind; ready; serve`, "a healthy pod"},
	{"delayed-ready", `log loading; sleep 500ms; bind; ready; serve`, "takes its time"},
	{"slow-bind", `ready; sleep 200ms; bind; serve`, "announces its socket before it binds it"},
	{"late-listen", `socket; ready; sleep 200ms; listen; serve`, "binds its socket but listens later"},
	{"never-ready", `log loading; hang`, "never announces anything"},
	{"never-binds", `ready; hang`, "announces a socket that it never binds"},
	{"malformed-no-fields", `bind; raw "YOI-READY\t\n"; hang`, "a ready line without name and socket"},
	{"malformed-no-socket", `bind; raw "YOI-READY\t{name}\n"; hang`, "a ready line without a socket"},
	{"malformed-empty-socket", `bind; raw "YOI-READY\t{name}\t\n"; hang`, "a ready line with an empty socket"},
	{"malformed-empty-name", `bind; raw "YOI-READY\t\t{socket}\n"; hang`, "a ready line with an empty name"},
	{"early-exit", `log 'cannot open session store'; exit 7`, "dies with its last words in the log"},
	{"early-exit-zero", `log 'nothing to do'; exit 0`, "ends with status 0 before it is ready"},
	{"early-exit-signal", `log 'about to crash'; kill KILL`, "is killed by a signal"},
	{"early-exit-silent", `exit 1`, "dies without a word"},
	{"exit-after-ready", `log 'migrating'; ready; log 'migration failed'; exit 3`, "announces a socket and dies without binding it"},
	{"torn-ready", `bind; raw "YOI-READY\t{name}"; sleep 200ms; raw "\t{socket}\n"; serve`, "a ready line in two halves"},
	{"unterminated-ready", `bind; raw "YOI-READY\t{name}\t{socket}"; hang`, "a ready line without its newline"},
	{"crlf", `bind; raw "loading\r\nYOI-READY\t{name}\t{socket}\r\n"; serve`, "lines that end with CR LF"},
	{"invalid-utf8", `raw "caf\xe9 \xff\n"; bind; ready; serve`, "bytes that are not UTF-8 before the ready line"},
	{"invalid-utf8-exit", `raw "caf\xe9 is closed\n"; exit 7`, "last words that are not UTF-8"},
	{"control-characters", `raw "\x1b[2J\x1b]0;owned\x07\x1b[31mred\n"; exit 7`, "last words that would rule a terminal"},
	{"wrong-name", `bind; ready '{name}-other'; serve`, "announces itself under another name"},
	{"duplicate-ready", `bind; ready; ready other /nowhere; serve`, "a second ready line after the first"},
	{"stdout-ready", `bind; out "YOI-READY\t{name}\t{socket}"; hang`, "the ready line on stdout, where nobody reads"},
	{"dead-socket", `socket; ready; hang`, "a socket that it bound but never listens on"},
	{"file-socket", `ready '{name}' '{dir}/pid'; hang`, "announces a path that is a regular file"},
	{"deaf", `bind; listen 0; fill; ready; hang`, "never accepts, and its backlog is full"},
	{"flood", `flood 16MiB; bind; ready; serve`, "a flood of lines before the ready line"},
	{"long-line", `flood 1MiB 0; raw "\n"; bind; ready; serve`, "a megabyte without a newline"},
	{"stubborn", `ignore INT TERM; bind; ready; serve`, "ignores SIGINT and SIGTERM"},
	{"stopped", `log loading; kill STOP; bind; ready; serve`, "stops itself before it is ready"},
	{"child", `child 'ignore INT TERM; hang'; bind; ready; serve`, "leaves a child of its process group behind"},
	{"escape", `escape 'ignore INT TERM; hang'; bind; ready; serve`, "leaves a child in a session of its own behind"},
	{"daemon", `daemonize; bind; ready; serve`, "forks twice and goes on in the background"},
	{"truncate-log", `flood 4KiB; sleep 50ms; truncate; bind; ready; serve`, "truncates its log before the ready line"},
	{"remove-log", `unlink log; bind; ready; serve`, "removes its log before the ready line"},
}
