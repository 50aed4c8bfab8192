// Package podspawn is the command podspawn: a client that starts pods, lists them, stops
// them and follows their logs.
package podspawn

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"example.com/podharness/fakepod/replay"
	"example.com/podharness/spawn"
	"example.com/podharness/spawn/fault"
	"example.com/podharness/spawn/podlog"
)

const podspawnUsage = `usage: podspawn [flags] NAME
       podspawn -list [-json]
       podspawn -stop [-grace DURATION] [-kill] NAME
       podspawn -follow NAME
       podspawn -prune [-json]

Starts the pod NAME and waits until it is ready. The pod keeps running afterwards:
podspawn -stop ends it. With -fault, podspawn stays until the pod has ended, shows each
call that is struck, and kills the pod if it is told to end itself (Linux). Without -pod, the program is $` + spawn.RuntimeCommandEnv + `
and the prefix argument is pod.

-list shows each pod directory of the runtime directory: name, state, process, age
and socket. The state is answers, stopped (as by SIGSTOP), silent (the pod runs, but
its socket does not answer), stale (the pod is dead) or hidden (the directory cannot be
looked into).

-prune removes the pod directories of which the pod is dead: nobody listens, no process
is known to be the pod or may be it, and no start is under way. It says what it has
removed, and why it has left the others. It leaves whatever is no pod directory.

With -json a start prints one line, whether it fails or not. Fields that are not known
are left out: name, verdict, pid, socket, log, error; ready_ms; timeline (start, and
from then on launched_ms, first_line_ms, ready_line_ms, connected_ms, ended_ms); status
(how a process ended that exited early); missing (what the start waited for: ready line
or socket), why (missing, not a socket, refused or deaf), stopped, stop_signal; strikes (the calls
that -fault has struck), unseen (why a call could not be looked at); tail (the
last lines of the log, 8 at most), reason (what began the last report of a crash),
near_miss (what a line lacks to be a ready line), unfinished (what came after the last
newline), log_trouble (why lines of the log may be missing). -list and -prune print one
line for each pod: name, state, pid, age_s, socket, log; and name, removed, why.

Exit status, and verdict:
`

// verdict is how podspawn ends, in the words of HANDSHAKE.md.
type verdict struct {
	status int
	name   string
	err    error
	note   string
}

// verdicts are podspawn's exit statuses. The first is for no error, the second for any
// error that is not listed below it.
var verdicts = []verdict{
	{0, "ready", nil, "or what else was asked for is done"},
	{1, "failed", nil, "anything else"},
	{2, "invalid config", spawn.ErrInvalidConfig, "or wrong usage, which prints no JSON"},
	{3, "runtime directory unavailable", spawn.ErrRuntimeDirUnavailable, ""},
	{4, "launch failed", spawn.ErrLaunch, ""},
	{5, "exited early", spawn.ErrExited, ""},
	{6, "malformed ready line", spawn.ErrMalformedReady, ""},
	{7, "wrong name", spawn.ErrNameMismatch, ""},
	{8, "timed out", spawn.ErrTimeout, ""},
	{9, "socket error", spawn.ErrSocket, ""},
	{10, "already runs", spawn.ErrAlreadyRuns, "or another start of it is under way"},
	{130, "cancelled", context.Canceled, "by a signal"},
}

func verdictFor(err error) verdict {
	if err == nil {
		return verdicts[0]
	}
	i := slices.IndexFunc(verdicts, func(v verdict) bool { return v.err != nil && errors.Is(err, v.err) })
	return verdicts[max(1, i)]
}

// podspawn is one command line.
type podspawn struct {
	stdout, stderr io.Writer

	cfg                 spawn.Config
	json, replace, kill bool
	record              string
	grace               time.Duration
}

// podspawnActions are the actions of podspawn: a start, and those with a flag of the same
// name.
var podspawnActions = map[string]func(*podspawn, context.Context) error{
	"start": (*podspawn).start, "list": (*podspawn).list, "stop": (*podspawn).stop, "follow": (*podspawn).follow, "prune": (*podspawn).prune,
}

// goesWith has, for each flag that is not just for a start, the actions that take it.
var goesWith = map[string]string{"list": "list", "stop": "stop", "follow": "follow", "prune": "prune", "grace": "stop", "kill": "stop", "json": "start list prune"}

// Main runs the command podspawn. args are its arguments without the program's name.
// Main starts one pod, or lists, stops or follows pods, and returns the exit status.
func Main(args []string, stdout, stderr io.Writer) int {
	p := &podspawn{stdout: stdout, stderr: stderr}
	fail := func(status int, err error) int {
		fmt.Fprintf(stderr, "podspawn: %s\n", podlog.PrintableLines(err.Error()))
		return status
	}
	action, told, err := p.parse(args)
	switch {
	case told != "":
		if _, err := io.WriteString(stdout, told); err != nil {
			return fail(1, err)
		}
		return 0
	case err != nil:
		return fail(2, fmt.Errorf("%w (podspawn -help tells the usage)", err))
	}
	// SIGPIPE: whoever read what is printed has gone.
	signals := []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGPIPE}
	if !signal.Ignored(syscall.SIGHUP) { // as by nohup
		signals = append(signals, syscall.SIGHUP)
	}
	ctx, stop := signal.NotifyContext(context.Background(), signals...)
	defer stop()
	if err := podspawnActions[action](p, ctx); err != nil {
		return fail(verdictFor(err).status, err)
	}
	return 0
}

// parse reads the flags and returns the action, or the text that was asked for.
func (p *podspawn) parse(args []string) (action, told string, err error) {
	flags := flag.NewFlagSet("podspawn", flag.ContinueOnError)
	p.cfg.WorkspaceRoot = "."
	p.cfg.Flags(flags)
	flags.BoolVar(&p.json, "json", false, "print lines of JSON")
	flags.BoolVar(&p.replace, "replace", false, "start the pod even if one of its name answers, or is being started; that lives on")
	flags.StringVar(&p.record, "record", "", "write a scenario that acts out what the pod did, and what came of it, to `FILE`: podscript runs it")
	flags.Bool("list", false, "show the pods")
	flags.Bool("stop", false, "send SIGINT to the pod, and wait until it has ended")
	flags.DurationVar(&p.grace, "grace", 5*time.Second, "the `DURATION` that -stop waits")
	flags.BoolVar(&p.kill, "kill", false, "with -stop: kill a pod that still runs then")
	flags.Bool("follow", false, "print the pod's log, and what it logs until it ends")
	flags.Bool("prune", false, "remove the directories of dead pods")
	version := flags.Bool("version", false, "print the version and the commit of podspawn")
	flags.SetOutput(io.Discard)
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return "", help(flags), nil
	case err != nil:
		return "", "", err
	case *version:
		info, _ := debug.ReadBuildInfo() // every program of a module has it
		return "", versionOf(info), nil
	}
	if action, err = actionOf(flags); err != nil {
		return "", "", err
	}
	all := action == "list" || action == "prune"
	switch {
	case all && flags.NArg() > 0:
		return "", "", fmt.Errorf("-%s takes no pod name, got %q", action, flags.Args())
	case !all && flags.NArg() != 1:
		return "", "", fmt.Errorf("want one pod name, after the flags, got %q", flags.Args())
	case p.grace < 0:
		return "", "", fmt.Errorf("-grace %v is negative", p.grace)
	}
	p.cfg.PodName, p.cfg.AllowSecond = flags.Arg(0), p.replace
	if action == "start" {
		err = p.resolveCommand()
	}
	return action, "", err
}

// versionOf tells the version of a program, and the commit if the go command has noted it.
func versionOf(info *debug.BuildInfo) string {
	settings := map[string]string{}
	for _, s := range info.Settings {
		settings[s.Key] = s.Value
	}
	commit, modified := "of unknown commit", ""
	if settings["vcs.revision"] != "" {
		commit = "of commit " + settings["vcs.revision"]
	}
	if settings["vcs.modified"] == "true" {
		modified = " (modified)"
	}
	return fmt.Sprintf("podspawn %s %s%s, %s\n", cmp.Or(info.Main.Version, "(devel)"), commit, modified, info.GoVersion)
}

// actionOf returns the action that the flags choose, or an error if flags exclude each
// other.
func actionOf(flags *flag.FlagSet) (action string, err error) {
	action = "start"
	flags.Visit(func(f *flag.Flag) {
		if podspawnActions[f.Name] != nil && f.Value.String() == "true" {
			action = f.Name
		}
	})
	flags.Visit(func(f *flag.Flag) {
		if !slices.Contains(strings.Fields(cmp.Or(goesWith[f.Name], "start")), action) {
			err = fmt.Errorf("-%s does not go with %s", f.Name, strings.Replace("-"+action, "-start", "a start", 1))
		}
	})
	return action, err
}

func help(flags *flag.FlagSet) string {
	var text strings.Builder
	text.WriteString(podspawnUsage)
	for _, v := range verdicts {
		fmt.Fprintf(&text, "%5d  %s\n", v.status, strings.TrimSpace(fmt.Sprintf("%-29s  %s", v.name, v.note)))
	}
	text.WriteString("\n")
	flags.SetOutput(&text)
	flags.PrintDefaults()
	return text.String()
}

// resolveCommand sets the program if there is no -pod.
func (p *podspawn) resolveCommand() error {
	if p.cfg.Command.Program != "" {
		return nil
	}
	if os.Getenv(spawn.RuntimeCommandEnv) == "" {
		return fmt.Errorf("which pod? Give -pod PROGRAM or set %s", spawn.RuntimeCommandEnv)
	}
	command, err := spawn.ResolveCommand()
	command.PrefixArgs = slices.Concat(command.PrefixArgs, p.cfg.Command.PrefixArgs)
	p.cfg.Command = command
	return err
}

func (p *podspawn) start(ctx context.Context) error {
	pod, err := p.startPod(ctx)
	var lost error // of the report
	if p.json {
		lost = json.NewEncoder(p.stdout).Encode(reportOf(p.cfg.PodName, pod, err))
	} else if err == nil {
		lost = p.tell(pod)
	}
	if err != nil || lost != nil {
		if pod != nil { // nobody knows of it
			if pod.Signal(syscall.SIGKILL) == nil {
				<-pod.Done()
			}
			return fmt.Errorf("pod %s was ready, and was killed, since that could not be reported: %w", podlog.Printable(pod.Name), lost)
		}
		return cmp.Or(err, lost)
	}
	if pod.Faults != nil {
		return p.attend(ctx, pod)
	}
	return nil
}

// attend waits until a pod with faults has ended, and whatever it has left that meets them.
func (p *podspawn) attend(ctx context.Context, pod *spawn.Pod) error {
	select {
	case <-pod.Faults.Done():
	case <-ctx.Done():
		if err := pod.Signal(syscall.SIGKILL); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return err
		}
		<-pod.Done()
		return fmt.Errorf("pod %s was killed, since this process answers for its faults: %w", podlog.Printable(pod.Name), ctx.Err())
	}
	<-pod.Done()
	if err := pod.Faults.Err(); err != nil {
		return err
	}
	fmt.Fprintf(p.stderr, "podspawn: pod %s has ended: %v\n", podlog.Printable(pod.Name), pod.State())
	return nil
}

// tell shows a pod that is ready.
func (p *podspawn) tell(pod *spawn.Pod) error {
	_, err := fmt.Fprintf(p.stdout, "pod %s is ready after %v\nprocess %d\nsocket  %s\nlog     %s\n", podlog.Printable(pod.Name),
		pod.Timeline.Connected.Round(time.Microsecond), pod.PID, podlog.Printable(pod.SocketPath), podlog.Printable(pod.LogPath))
	return err
}

func (p *podspawn) startPod(ctx context.Context) (*spawn.Pod, error) {
	var r resident
	o := &spawn.Observer{Planned: func(podDir string) error {
		r = look(podDir, time.Now().Add(lookTime))
		defer r.close()
		if r.answers && !p.replace { // also on another socket than Start tries
			return fmt.Errorf("%w: %s listens on its socket %s", spawn.ErrAlreadyRuns, r.process(), podlog.PathText(r.Socket))
		}
		return nil
	}}
	shown := &progress{name: podlog.Printable(p.cfg.PodName), out: bufio.NewWriterSize(p.stderr, 64<<10)}
	defer shown.flush()
	p.cfg.Progress, o.Idle, o.Struck = shown.line, func(func() string) { shown.flush() }, shown.struck
	start := spawn.StartObserved
	if p.record != "" {
		start = p.startRecorded
	}
	pod, err := start(ctx, p.cfg, o)
	if o.Log != nil {
		o.Log.Close()
	}
	var e *spawn.Error
	if errors.As(err, &e) && errors.Is(err, spawn.ErrAlreadyRuns) {
		if r.answers {
			e.PID, e.SocketPath = r.PID, r.Socket
		}
		word := podlog.ShellWord(p.cfg.PodName)
		err = fmt.Errorf("%w\n\tto stop it: podspawn -stop %s; -replace starts another one all the same", err, word)
	}
	return pod, err
}

// startRecorded is spawn.StartObserved with a recording.
func (p *podspawn) startRecorded(ctx context.Context, cfg spawn.Config, o *spawn.Observer) (*spawn.Pod, error) {
	// First: a pod must not be started if its recording cannot be written.
	file, err := os.OpenFile(p.record, os.O_WRONLY|os.O_CREATE, 0o666)
	if err != nil {
		return nil, fmt.Errorf("-record: %w", err)
	}
	defer file.Close()
	r := &replay.Recording{Pod: cfg.PodName, Timeout: cmp.Or(cfg.ReadyTimeout, spawn.DefaultReadyTimeout)}
	o.Grown = func(size int64) { r.Growth = append(r.Growth, replay.Growth{At: time.Now(), Size: size}) }
	o.Socket = func(what string) { r.Socket = append(r.Socket, replay.Moment{At: time.Now(), What: what}) }
	pod, err := spawn.StartObserved(ctx, cfg, o)
	var e *spawn.Error
	switch {
	case pod != nil:
		r.Timeline = pod.Timeline
	case errors.As(err, &e):
		r.Timeline, r.Failed, r.Error = e.Timeline, e, err.Error()
	}
	if o.Log != nil {
		log := o.Log.File()
		r.Log, r.Dir = log, filepath.Dir(log.Name())
		if info, err := log.Stat(); err == nil {
			r.Size = info.Size()
		}
	}
	scenario, lost := r.Scenario()
	if lost == nil {
		_, lost = file.WriteString(scenario)
		lost = errors.Join(lost, file.Truncate(int64(len(scenario))))
	} else if info, err := file.Stat(); err == nil && info.Size() == 0 {
		_ = os.Remove(p.record)
	}
	if lost != nil {
		fmt.Fprintf(p.stderr, "podspawn: %s: %s\n", podlog.Printable(p.record), podlog.Printable(lost.Error()))
	}
	return pod, err
}

// report is a start as -json has it.
type report struct {
	*spawn.Error
	ReadyMS  float64  `json:"ready_ms,omitempty"`
	Message  string   `json:"error,omitempty"`
	Timeline timeline `json:"timeline,omitzero"`
}

type timeline struct {
	Start     time.Time `json:"start,omitzero"`
	Launched  float64   `json:"launched_ms,omitempty"`
	FirstLine float64   `json:"first_line_ms,omitempty"`
	ReadyLine float64   `json:"ready_line_ms,omitempty"`
	Connected float64   `json:"connected_ms,omitempty"`
	Ended     float64   `json:"ended_ms,omitempty"`
}

func reportOf(name string, pod *spawn.Pod, err error) report {
	e := &spawn.Error{Verdict: verdictFor(err).name, Pod: name}
	r := report{Error: e}
	if err == nil {
		e.PID, e.SocketPath, e.LogPath, e.Timeline = pod.PID, pod.SocketPath, pod.LogPath, pod.Timeline
	} else {
		r.Message = err.Error()
		errors.As(err, &r.Error)
	}
	milliseconds := func(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
	t := r.Error.Timeline
	r.ReadyMS = milliseconds(t.Connected)
	r.Timeline = timeline{t.Start, milliseconds(t.Launched), milliseconds(t.FirstLine), milliseconds(t.ReadyLine), milliseconds(t.Connected), milliseconds(t.Ended)}
	return r
}

// progress shows what a pod logs while it starts, and the calls that faults have struck.
type progress struct {
	name string

	mu  sync.Mutex    // guards out
	out *bufio.Writer // a write for each line of a flood would hold up the start
}

func (p *progress) line(line string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprintf(p.out, "%s: %s\n", p.name, podlog.Printable(line))
}

// struck may be called after the start, too.
func (p *progress) struck(strike fault.Strike) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprintf(p.out, "podspawn: fault: %s\n", podlog.Printable(strike.String()))
	_ = p.out.Flush()
}

func (p *progress) flush() {
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = p.out.Flush()
}
