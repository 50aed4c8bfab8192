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
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"reflect"
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

Starts the pod NAME and waits until it is ready. The pod keeps running afterwards:
podspawn -stop ends it. With -fault, podspawn stays until the pod has ended, shows each
call that is struck, and kills the pod if it is told to end itself (Linux). Without -pod, the program is $` + spawn.RuntimeCommandEnv + `
and the prefix argument is pod.

-list shows each pod directory of the runtime directory: name, state, process, age
and socket. The state is answers, stopped (as by SIGSTOP), silent (the pod runs, but
its socket does not answer) or stale (the pod is dead).

With -json a start prints one line, whether it fails or not. Fields that are not known
are left out: name, verdict, pid, socket, log, error; ready_ms; timeline (start, and
from then on launched_ms, first_line_ms, ready_line_ms, connected_ms, ended_ms); status
(how a process ended that exited early); missing (what the start waited for: ready line
or socket), why (missing, not a socket, refused or deaf), stopped; strikes (the calls
that -fault has struck), unseen (why a call could not be looked at); tail (the last lines
of the log, 8 at most), unfinished (what came after the last newline). -list prints one
line for each pod: name, state, pid, age_s, socket, log.

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
	{1, "failed", nil, "anything else, such as a NAME whose pod already runs"},
	{2, "invalid config", spawn.ErrInvalidConfig, "or wrong usage, which prints no JSON"},
	{3, "runtime directory unavailable", spawn.ErrRuntimeDirUnavailable, ""},
	{4, "launch failed", spawn.ErrLaunch, ""},
	{5, "exited early", spawn.ErrExited, ""},
	{6, "malformed ready line", spawn.ErrMalformedReady, ""},
	{7, "wrong name", spawn.ErrNameMismatch, ""},
	{8, "timed out", spawn.ErrTimeout, ""},
	{9, "socket error", spawn.ErrSocket, ""},
	{10, "already runs", spawn.ErrAlreadyRuns, ""},
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
	"start": (*podspawn).start, "list": (*podspawn).list, "stop": (*podspawn).stop, "follow": (*podspawn).follow,
}

// goesWith has, for each flag that is not just for a start, the actions that take it.
var goesWith = map[string]string{"list": "list", "stop": "stop", "follow": "follow", "grace": "stop", "kill": "stop", "json": "start list"}

// Main runs the command podspawn. args are its arguments without the program's name.
// Main starts one pod, or lists, stops or follows pods, and returns the exit status.
func Main(args []string, stdout, stderr io.Writer) int {
	p := &podspawn{stdout: stdout, stderr: stderr}
	fail := func(status int, err error) int {
		fmt.Fprintf(stderr, "podspawn: %s\n", podlog.PrintableLines(err.Error()))
		return status
	}
	action, err := p.parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
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

// parse reads the flags and returns the action. With -help it prints the usage.
func (p *podspawn) parse(args []string) (action string, err error) {
	flags := flag.NewFlagSet("podspawn", flag.ContinueOnError)
	p.cfg.WorkspaceRoot = "."
	p.cfg.Flags(flags)
	flags.BoolVar(&p.json, "json", false, "print lines of JSON")
	flags.BoolVar(&p.replace, "replace", false, "start the pod even if one of its name answers, which lives on")
	flags.StringVar(&p.record, "record", "", "write a scenario that acts out what the pod did, and what came of it, to `FILE`: podscript runs it")
	flags.Bool("list", false, "show the pods")
	flags.Bool("stop", false, "send SIGINT to the pod, and wait until it has ended")
	flags.DurationVar(&p.grace, "grace", 5*time.Second, "the `DURATION` that -stop waits")
	flags.BoolVar(&p.kill, "kill", false, "with -stop: kill a pod that still runs then")
	flags.Bool("follow", false, "print the pod's log, and what it logs until it ends")
	flags.SetOutput(io.Discard)
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			p.help(flags)
		}
		return "", err
	}
	if action, err = actionOf(flags); err != nil {
		return "", err
	}
	switch {
	case action == "list" && flags.NArg() > 0:
		return "", fmt.Errorf("-list takes no pod name, got %q", flags.Args())
	case action != "list" && flags.NArg() != 1:
		return "", fmt.Errorf("want one pod name, after the flags, got %q", flags.Args())
	case p.grace < 0:
		return "", fmt.Errorf("-grace %v is negative", p.grace)
	}
	p.cfg.PodName = flags.Arg(0)
	if action == "start" {
		err = p.resolveCommand()
	}
	return action, err
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

func (p *podspawn) help(flags *flag.FlagSet) {
	fmt.Fprint(p.stderr, podspawnUsage)
	for _, v := range verdicts {
		fmt.Fprintf(p.stderr, "%5d  %s\n", v.status, strings.TrimSpace(fmt.Sprintf("%-29s  %s", v.name, v.note)))
	}
	fmt.Fprintln(p.stderr)
	flags.SetOutput(p.stderr)
	flags.PrintDefaults()
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
	if p.json {
		err = cmp.Or(err, json.NewEncoder(p.stdout).Encode(report(p.cfg.PodName, pod, err)))
	} else if err == nil {
		err = p.tell(pod)
	}
	if pod != nil && pod.Faults != nil {
		return cmp.Or(err, p.attend(ctx, pod))
	}
	return err
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
	var running error
	o := &spawn.Observer{Planned: func(podDir string) error {
		r := look(podDir, time.Now().Add(lookTime))
		defer r.close()
		if r.answers && !p.replace {
			running = fmt.Errorf("pod %s already runs: %s, socket %s; podspawn -stop %s stops it, -replace starts another one all the same",
				podlog.Printable(r.Name), r.process(), podlog.Printable(r.Socket), podlog.ShellWord(r.Name))
		}
		return running
	}}
	shown := p.newProgress()
	defer shown.end()
	if shown.terminal {
		go shown.tell(ctx)
	}
	p.cfg.Progress, o.Idle, o.Struck, p.cfg.AllowSecond = shown.line, shown.show, shown.struck, p.replace
	start := spawn.StartObserved
	if p.record != "" {
		start = p.startRecorded
	}
	pod, err := start(ctx, p.cfg, o)
	if o.Log != nil {
		o.Log.Close()
	}
	if running != nil {
		return nil, running
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

// report returns a start as -json has it.
func report(name string, pod *spawn.Pod, err error) map[string]any {
	e, message := &spawn.Error{Verdict: verdictFor(err).name}, ""
	if err == nil {
		e = &spawn.Error{Verdict: e.Verdict, PID: pod.PID, SocketPath: pod.SocketPath, LogPath: pod.LogPath, Timeline: pod.Timeline}
	} else {
		message = err.Error()
		errors.As(err, &e)
	}
	milliseconds := func(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
	t := e.Timeline
	return known(map[string]any{
		"name": name, "verdict": e.Verdict, "pid": e.PID, "socket": e.SocketPath, "log": e.LogPath,
		"missing": e.Missing, "why": e.Why, "stopped": e.Stopped, "ready_ms": milliseconds(t.Connected), "status": e.Status, "tail": e.Tail, "unfinished": e.Unfinished, "strikes": e.Strikes, "unseen": e.Unseen, "error": message,
		"timeline": known(map[string]any{
			"start": t.Start, "launched_ms": milliseconds(t.Launched), "first_line_ms": milliseconds(t.FirstLine),
			"ready_line_ms": milliseconds(t.ReadyLine), "connected_ms": milliseconds(t.Connected), "ended_ms": milliseconds(t.Ended),
		}),
	})
}

// known returns fields without those that are zero, or empty.
func known(fields map[string]any) map[string]any {
	maps.DeleteFunc(fields, func(_ string, value any) bool {
		v := reflect.ValueOf(value)
		return v.IsZero() || v.Kind() == reflect.Map && v.Len() == 0
	})
	return fields
}

// progress shows a start: each line of the pod and, on a terminal, a status line below.
type progress struct {
	name     string
	terminal bool
	start    time.Time

	mu      sync.Mutex
	out     *bufio.Writer // a write for each line of a flood would hold up the start
	missing string
	status  string // what is on the terminal
}

func (p *podspawn) newProgress() *progress {
	return &progress{
		name: podlog.Printable(p.cfg.PodName), start: time.Now(), out: bufio.NewWriterSize(p.stderr, 64<<10), terminal: podlog.IsTerminal(p.stderr),
	}
}

func (p *progress) line(line string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.erase()
	fmt.Fprintf(p.out, "%s: %s\n", p.name, podlog.Printable(line))
}

// struck shows a call that a fault has struck, also after the start.
func (p *progress) struck(strike fault.Strike) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.erase()
	fmt.Fprintf(p.out, "podspawn: fault: %s\n", podlog.Printable(strike.String()))
	_ = p.out.Flush()
}

// statusTick is how often the status line changes.
const statusTick = 100 * time.Millisecond

// tell updates the time in the status line.
func (p *progress) tell(ctx context.Context) {
	tick := time.NewTicker(statusTick)
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case <-tick.C:
			p.show(nil)
		case <-ctx.Done():
		}
	}
}

// show flushes the lines and updates the status line. missing, if it is not nil,
// returns what the start waits for now.
func (p *progress) show(missing func() string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.terminal && missing != nil {
		p.missing = podlog.Printable(missing())
	}
	elapsed := time.Since(p.start)
	status := fmt.Sprintf("%s: %.1fs, waiting for %s", p.name, elapsed.Seconds(), p.missing)
	if p.missing != "" && elapsed >= statusTick && status != p.status {
		p.erase()
		// The terminal must not wrap it: of two rows, one would stay.
		fmt.Fprintf(p.out, "\x1b[?7l%s\x1b[?7h", status)
		p.status = status
	}
	_ = p.out.Flush()
}

func (p *progress) erase() {
	if p.status != "" {
		fmt.Fprint(p.out, "\r\x1b[K")
		p.status = ""
	}
}

func (p *progress) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.erase()
	p.missing = ""
	_ = p.out.Flush()
}
