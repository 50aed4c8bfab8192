package podspawn

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"
	"text/tabwriter"
	"time"

	"example.com/podharness/spawn"
	"example.com/podharness/spawn/options"
	"example.com/podharness/spawn/podlog"
	"example.com/podharness/spawn/proc"
	"example.com/podharness/spawn/safefile"
)

// lookTime is how long podspawn looks for ready lines in logs, however long they are.
const lookTime = time.Second

// resident is a pod directory and who lives there.
type resident struct {
	Name   string  `json:"name"`
	State  string  `json:"state"`
	PID    int     `json:"pid,omitempty"` // 0 = not known for certain
	AgeS   float64 `json:"age_s"`         // of the socket, else since the directory has changed
	Socket string  `json:"socket"`
	Log    string  `json:"log"`

	answers bool
	err     error        // of a connection to Socket; nil = something listens there
	named   int          // the number that the file pid names; 0 = none
	owner   *proc.Handle // of the process PID; nil = it is not known for certain
	pod     *spawn.Pod   // that owns owner; nil = nobody waits for the process
	unknown error        // why
}

// look returns who lives in a pod directory. It never waits for the pod. The caller
// closes it.
func look(podDir string, late time.Time) resident {
	r := lookOnce(podDir, late)
	if r.State == "stale" && r.err == nil { // somebody listens: it may be the pod, and a call that tells has failed
		r.close()
		r = lookOnce(podDir, late)
	}
	return r
}

func lookOnce(podDir string, late time.Time) resident {
	r := resident{Name: filepath.Base(podDir), Socket: podDir + "/sock", Log: podDir + "/" + podlog.LogName, State: "stale"}
	dir, err := safefile.OpenDir(podDir)
	if err != nil {
		r.State, r.unknown = "hidden", err
		return r
	}
	defer dir.Close()
	told := announcedSocket(dir, r.Name, late)
	if filepath.IsAbs(told) {
		r.Socket = told
	} else if told != "" {
		pod := proc.OwnerOf(dir, r.Socket, time.Time{}, "")
		if pod.Handle != nil {
			if in := proc.WorkingDir(pod.Handle.PID, ""); in != "" {
				r.Socket = options.Below(in, told)
			}
			pod.Handle.Close()
		}
	}
	pod := proc.OwnerOf(dir, r.Socket, time.Time{}, "")
	r.owner, r.unknown, r.answers, r.err, r.named = pod.Handle, pod.Unknown, pod.Listens, pod.Err, pod.Named
	if r.owner != nil {
		r.PID = r.owner.PID
	}
	switch {
	case r.PID != 0 && proc.Stopped(r.PID):
		r.State = "stopped"
	case r.answers:
		r.State = "answers"
	case r.PID != 0 || pod.Within && errors.Is(pod.Err, syscall.EAGAIN):
		r.State = "silent"
	}
	for _, path := range []string{podDir, r.Socket} {
		if info, err := os.Stat(path); err == nil {
			r.AgeS = time.Since(info.ModTime()).Seconds()
		}
	}
	return r
}

// adopt returns the pod of a process that is known. The handle is the pod's from then on.
func (r *resident) adopt() *spawn.Pod {
	r.pod = spawn.Adopt(r.owner)
	return r.pod
}

func (r *resident) close() {
	if r.owner != nil && r.pod == nil {
		r.owner.Close()
	}
	runtime.KeepAlive(r.pod) // with it, its handle is closed
}

// announcedSocket returns the path in the ready line of a pod's log; "" if that has none,
// or another pod's.
func announcedSocket(dir *safefile.Dir, name string, late time.Time) (socket string) {
	file, err := dir.Open(podlog.LogName)
	if err != nil {
		return ""
	}
	log := podlog.Watch(file, nil)
	defer log.Close()
	if told, err := log.Ready(late); err == nil && told.Name == name {
		return told.Socket
	}
	return ""
}

func (r resident) process() string {
	switch {
	case r.PID != 0:
		return fmt.Sprint("process ", r.PID)
	case r.State == "stale":
		return "no process"
	}
	return "process unknown"
}

// runtimeDir returns the absolute path of the runtime directory.
func runtimeDir() (string, error) {
	dir, err := spawn.RuntimeDir(os.Environ())
	if err == nil {
		dir, err = options.Absolute(dir)
	}
	return dir, err
}

func (p *podspawn) list(context.Context) error {
	dir, err := runtimeDir()
	if err != nil {
		return err
	}
	entries, err := os.ReadDir(dir) // sorted by name
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	late := time.Now().Add(lookTime)
	lines, table := json.NewEncoder(p.stdout), tabwriter.NewWriter(p.stdout, 0, 0, 2, ' ', 0)
	for _, entry := range entries {
		if !entry.IsDir() {
			continue
		}
		r := look(dir+"/"+entry.Name(), late)
		r.close()
		if p.json {
			err = lines.Encode(r)
		} else {
			age := time.Duration(r.AgeS * float64(time.Second)).Round(time.Second)
			_, err = fmt.Fprintf(table, "%s\t%s\t%s\t%v\t%s\n", podlog.Printable(r.Name), r.State, r.process(), age, podlog.Printable(r.Socket))
		}
		if err != nil {
			return err
		}
	}
	return table.Flush()
}

// resident returns who lives under the name on the command line. The caller closes it.
func (p *podspawn) resident() (resident, error) {
	if err := options.CheckName(p.cfg.PodName); err != nil {
		return resident{}, fmt.Errorf("%w: %w", spawn.ErrInvalidConfig, err)
	}
	dir, err := runtimeDir()
	if err != nil {
		return resident{}, err
	}
	podDir := dir + "/" + p.cfg.PodName
	info, err := os.Lstat(podDir)
	switch {
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return resident{}, err
	case err != nil || !info.IsDir():
		return resident{}, fmt.Errorf("there is no pod %s in %s (podspawn -list shows those that are there)", podlog.Printable(p.cfg.PodName), podlog.Printable(dir))
	}
	return look(podDir, time.Now().Add(lookTime)), nil
}

func (p *podspawn) stop(ctx context.Context) error {
	r, err := p.resident()
	if err != nil {
		return err
	}
	defer r.close()
	began, name := time.Now(), podlog.Printable(r.Name)
	end, err := r.interrupt()
	if err != nil {
		err = fmt.Errorf("pod %s (%s) was not stopped: %w", name, r.State, err)
		if r.State == "stale" {
			err = fmt.Errorf("%w; rm -r %s removes what it has left", err, podlog.ShellWord(filepath.Dir(r.Log)))
		}
		return err
	}
	how, waiting := "ended", time.NewTimer(p.grace)
	defer waiting.Stop()
	select {
	case <-end:
	case <-ctx.Done():
		return fmt.Errorf("interrupted before pod %s had ended: %w", name, ctx.Err())
	case <-waiting.C:
		switch {
		case r.PID == 0:
			return fmt.Errorf("pod %s still answers %v after it was asked to stop, and cannot be killed: %w", name, p.grace, r.unknown)
		case !p.kill:
			return fmt.Errorf("pod %s still runs %v after SIGINT: process %d; podspawn -stop -kill %s kills it", name, p.grace, r.PID, podlog.ShellWord(r.Name))
		}
		if err := r.killPod(); err != nil {
			return fmt.Errorf("pod %s: %w", name, err)
		}
		how = "was killed"
	}
	left := ""
	if _, err := os.Stat(r.Log); err == nil {
		left = "\nlog     " + podlog.Printable(r.Log)
	}
	_, err = fmt.Fprintf(p.stdout, "pod %s %s after %v%s\n", name, how, time.Since(began).Round(time.Millisecond), left)
	return err
}

// killGrace is how long a killed pod may take to be gone.
const killGrace = 5 * time.Second

func (r *resident) killPod() error {
	if err := r.pod.Signal(syscall.SIGKILL); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-r.pod.Done():
		return nil
	case <-time.After(killGrace):
		return fmt.Errorf("process %d is still there %v after SIGKILL", r.PID, killGrace)
	}
}

// interrupt has the pod stop, and returns a channel that is closed when it has ended.
func (r *resident) interrupt() (end <-chan struct{}, err error) {
	switch {
	case r.PID == 0 && r.answers:
		return r.request()
	case r.State == "hidden":
		return nil, r.unknown
	case r.PID == 0:
		return nil, fmt.Errorf("its socket does not answer, and %w", r.unknown)
	}
	end = r.adopt().Done()
	if err := r.owner.Signal(syscall.SIGINT); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return nil, fmt.Errorf("send SIGINT to process %d: %w", r.PID, err)
	}
	_ = r.owner.Signal(syscall.SIGCONT) // else a stopped one would not see it
	return end, nil
}

// request asks a pod to stop over its socket: where the system does not tell whose
// that is, a signal could hit somebody else. The pod has ended when nobody answers.
func (r resident) request() (end <-chan struct{}, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), lookTime)
	defer cancel()
	conn, err := spawn.Dial(ctx, r.Socket)
	if err != nil {
		return nil, err
	}
	_, err = io.WriteString(conn, `{"method":"shutdown"}`+"\n")
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(io.Discard, conn)
		conn.Close()
		pace := podlog.NewPace(time.Time{})
		for _, err := proc.Listener(r.Socket); err == nil; _, err = proc.Listener(r.Socket) {
			<-pace.Next(false)
		}
	}()
	return done, err
}

func (p *podspawn) follow(ctx context.Context) error {
	r, err := p.resident()
	if err != nil {
		return err
	}
	defer r.close()
	if r.State == "hidden" { // its end would not be seen
		return fmt.Errorf("pod %s cannot be followed: %w", podlog.Printable(r.Name), r.unknown)
	}
	log, err := podlog.Open(r.Log, nil)
	if err != nil {
		return fmt.Errorf("pod %s has no log %s that can be read: %w", podlog.Printable(r.Name), podlog.Printable(r.Log), errors.Unwrap(err))
	}
	defer log.Close()
	end, cancel := context.WithCancel(ctx)
	defer cancel()
	switch {
	case r.PID != 0:
		ended := r.adopt().Done()
		go func() {
			select {
			case <-ended:
				cancel()
			case <-end.Done():
			}
		}()
	case r.State == "stale":
		cancel()
	}
	print := func(line string) bool {
		_, err = fmt.Fprintln(p.stdout, podlog.Printable(line))
		return err == nil
	}
	if over := log.Follow(end, print); over != nil && !errors.Is(over, context.Canceled) {
		return over
	}
	if line, cut := log.Unfinished(); err == nil && len(line) > 0 {
		print(podlog.LineText(line, cut))
	}
	switch {
	case errors.Is(err, syscall.EPIPE): // whoever read it has enough
		return nil
	case err == nil && ctx.Err() != nil:
		return fmt.Errorf("interrupted: pod %s goes on: %w", podlog.Printable(r.Name), ctx.Err())
	}
	return err
}

// pruned is what became of a pod directory.
type pruned struct {
	Name    string `json:"name"`
	Removed bool   `json:"removed"`
	Why     string `json:"why,omitempty"` // it was left
}

func (p *podspawn) prune(context.Context) error {
	path, err := runtimeDir()
	if err != nil {
		return err
	}
	path, err = filepath.EvalSymlinks(path) // as /proc has it
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	dir, err := safefile.OpenDir(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	entries, err := dir.ReadDir(-1)
	if err != nil {
		return err
	}
	lines, failed := json.NewEncoder(p.stdout), 0
	for _, entry := range entries {
		if !entry.IsDir() {
			continue
		}
		result := pruned{Name: entry.Name()}
		if err := pruneDir(dir, entry.Name()); err != nil {
			result.Why = err.Error()
			if !errors.Is(err, errLeft) {
				failed++
			}
		} else {
			result.Removed = true
		}
		switch {
		case p.json:
			err = lines.Encode(result)
		case result.Removed:
			_, err = fmt.Fprintf(p.stdout, "removed  %s\n", podlog.Printable(result.Name))
		default:
			_, err = fmt.Fprintf(p.stdout, "left     %s: %s\n", podlog.Printable(result.Name), podlog.Printable(result.Why))
		}
		if err != nil {
			return err
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d directories could not be removed", failed)
	}
	return nil
}

// errLeft: there is a reason to leave a directory.
var errLeft = errors.New("")

func left(format string, args ...any) error { return fmt.Errorf(format+"%w", append(args, errLeft)...) }

// pruneDir removes the directory of a dead pod, while no start can begin in it.
func pruneDir(dir *safefile.Dir, name string) error {
	path := dir.Name() + "/" + name
	if err := isPodDir(dir, name); err != nil {
		return err
	}
	claim, err := podlog.NewClaim(path, true)
	if errors.Is(err, podlog.ErrClaimed) {
		return left("a start of it is under way")
	}
	if err != nil {
		return left("%v", err)
	}
	defer claim.Release()
	r := look(path, time.Now().Add(lookTime))
	defer r.close()
	_, isDefault := proc.Listener(path + "/sock")
	switch {
	case r.State == "hidden":
		return left("%v", r.unknown)
	case r.State != "stale":
		return left("%s, %s", r.State, r.process())
	case !isSilent(r.err) || !isSilent(isDefault):
		return left("something listens on its socket")
	}
	if id := proc.Of(r.named); id.PID != 0 {
		words := proc.CommandLine(id.PID)
		info, err := os.Lstat(path + "/pid")
		if (len(words) == 0 || slices.Contains(words, name)) && (err != nil || !proc.StartedSince(id, info.ModTime().Add(time.Second))) {
			return left("process %d, which its file pid names, may be the pod", r.named)
		}
	}
	if found := proc.Find(proc.Match{Logs: path}); len(found) > 0 {
		return left("process %d writes to its log", found[0].PID)
	}
	return dir.RemoveAll(name)
}

// isSilent reports whether nothing can listen, by the error of a connection.
func isSilent(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ENOTDIR)
}

// isPodDir returns an error if a directory holds something, but nothing that pods have.
func isPodDir(dir *safefile.Dir, name string) error {
	pod, err := dir.Dir(name)
	if err != nil {
		return left("%v", err)
	}
	defer pod.Close()
	for _, has := range []string{podlog.LogName, "sock", "pid", "status.json"} {
		if pod.Has(has) {
			return nil
		}
	}
	if entries, err := pod.ReadDir(1); err != nil || len(entries) > 0 {
		return left("it holds nothing of a pod")
	}
	return nil
}
