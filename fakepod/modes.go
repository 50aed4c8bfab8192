package fakepod

import "slices"

// A Mode is a program with a name.
type Mode struct {
	Name    string
	Program string // in the step language
	Doc     string // one line
}

// Modes returns all modes, in the order in which a person should read them.
func Modes() []Mode { return slices.Clone(modes) }

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
	{"socket-below-file", `ready '{name}' '{dir}/pid/sock'; hang`, "announces a path through a regular file"},
	{"deaf", `bind; listen 0; fill; ready; hang`, "never accepts, and its backlog is full"},
	{"flood", `flood 16MiB; bind; ready; serve`, "a flood of lines before the ready line"},
	{"long-line", `flood 1MiB 0; raw "\n"; bind; ready; serve`, "a megabyte without a newline"},
	{"stubborn", `ignore INT TERM; bind; ready; serve`, "ignores SIGINT and SIGTERM"},
	{"stopped", `log loading; kill STOP; bind; ready; serve`, "stops itself before it is ready"},
	{"child", `child 'ignore INT TERM; hang'; bind; ready; serve`, "leaves a child of its process group behind"},
	{"escape", `escape 'ignore INT TERM; hang'; bind; ready; serve`, "leaves a child in a session of its own behind"},
	{"failed-child", `child 'ignore INT TERM; hang'; log 'no memory'; exit 1`, "fails, and leaves a child of its process group behind"},
	{"failed-escape", `escape 'ignore INT TERM; hang'; log 'no memory'; exit 1`, "fails, and leaves a child in a session of its own behind"},
	{"daemon", `daemonize; sleep 100ms; bind; ready; serve`, "forks twice and goes on in the background"},
	{"daemon-late-end", `daemonize 500ms; bind; ready; serve`, "a daemon whose parent ends after it is ready"},
	{"truncate-log", `flood 4KiB; sleep 50ms; truncate; bind; ready; serve`, "truncates its log before the ready line"},
	{"remove-log", `unlink log; bind; ready; serve`, "removes its log before the ready line"},
	{"stops", `bind; ready; serve; sleep 5s; stop`, "stops gracefully while it is connected to"},
	{"pieces", `bind; ready; stall 50ms; serve`, "answers in pieces"},
	{"reset", `bind; ready; reset; serve`, "resets a connection that asks for something"},
}
