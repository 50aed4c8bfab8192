package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
	"unicode/utf8"
)

const (
	maxLine  = 4 << 20 // bytes of a client's line
	maxQueue = 1000    // lines that a client has not read yet, and jobs that wait
)

type agent struct {
	workspace string
	signals   chan<- os.Signal
	all       sync.WaitGroup // clients and jobs

	mu       sync.Mutex // guards all below
	config   config
	state    state
	jobs     map[string]*job // that wait or run
	queue    []*job
	running  int
	counts   map[string]int // of jobs, by kind
	clients  map[*client]bool
	stopping bool
	archive  [][]byte // of the bug memory
}

// job is what an event "job" says, and what else is known of it.
type job struct {
	ID     string `json:"id"`
	Kind   string `json:"kind"`
	State  string `json:"state"`
	Result string `json:"result,omitempty"`
	Error  string `json:"error,omitempty"`

	text   string
	ctx    context.Context
	cancel context.CancelFunc
}

// request is the params of every method.
type request struct{ ID, Kind, Text, Key, Value string }

func newAgent(o options, signals chan<- os.Signal) (a *agent, err error) {
	a = &agent{workspace: o.workspace, signals: signals, jobs: map[string]*job{}, clients: map[*client]bool{}}
	if bug != "panic" {
		a.counts = map[string]int{}
	}
	if a.config, err = readConfig(o.workspace); err != nil {
		return nil, err
	}
	a.state, err = openState(o.name, o.session)
	return a, err
}

// reload keeps the config as it is if the new one is bad.
func (a *agent) reload() {
	c, err := readConfig(a.workspace)
	if err != nil {
		log.Printf("could not reload: %v", err)
		return
	}
	a.mu.Lock()
	a.config = c
	a.schedule()
	a.mu.Unlock()
	log.Printf("reloaded: %d workers", c.Workers)
	a.broadcast("config", c)
}

// stop ends what runs, and keeps the state.
func (a *agent) stop() {
	a.mu.Lock()
	a.stopping, a.queue = true, nil
	for _, j := range a.jobs {
		if bug != "leak" {
			j.cancel()
		}
	}
	for c := range a.clients {
		if bug != "slow-stop" {
			c.conn.Close()
		}
	}
	err := a.state.save()
	a.mu.Unlock()
	if err != nil {
		log.Printf("could not save the session: %v", err)
	}
	if bug != "leak" {
		a.all.Wait()
	}
}

func (a *agent) submit(r request) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case r.ID == "" || a.jobs[r.ID] != nil:
		return fmt.Errorf("job %q: an id is needed that no other job has that waits or runs", r.ID)
	case !slices.Contains([]string{"echo", "sum", "sleep", "sh"}, r.Kind):
		return fmt.Errorf("job %s: no kind %q", r.ID, r.Kind)
	case len(a.queue) >= maxQueue:
		return errors.New("the queue is full")
	}
	j := &job{ID: r.ID, Kind: r.Kind, State: "queued", text: r.Text}
	j.ctx, j.cancel = context.WithCancel(context.Background())
	a.jobs[j.ID] = j
	a.queue = append(a.queue, j)
	a.schedule()
	return nil
}

// schedule begins jobs as there are workers. The lock is held.
func (a *agent) schedule() {
	for len(a.queue) > 0 && a.running < a.config.Workers && !a.stopping {
		j := a.queue[0]
		a.queue = a.queue[1:]
		a.running++
		a.counts[j.Kind]++
		a.all.Add(1)
		go a.work(j)
	}
}

func (a *agent) work(j *job) {
	defer a.all.Done()
	a.tell(j, "running", "", nil)
	result, err := a.run(j)
	state := "done"
	switch {
	case j.ctx.Err() != nil:
		state, err = "cancelled", nil
	case err != nil:
		state = "failed"
	}
	if bug == "race" {
		a.state.Done++
	}
	a.mu.Lock()
	a.running--
	if bug != "race" {
		a.state.Done++
	}
	if bug == "memory" {
		a.archive = append(a.archive, bytes.Repeat([]byte(j.text), 16))
	}
	delete(a.jobs, j.ID)
	j.cancel()
	a.schedule()
	a.mu.Unlock()
	a.tell(j, state, result, err)
}

// tell tells all clients how a job fares.
func (a *agent) tell(j *job, state, result string, err error) {
	a.mu.Lock()
	j.State, j.Result = state, result
	if err != nil {
		j.Error = err.Error()
	}
	now := *j
	a.mu.Unlock()
	a.broadcast("job", &now)
}

func (a *agent) run(j *job) (string, error) {
	switch j.Kind {
	case "echo":
		return j.text, nil
	case "sum":
		return fmt.Sprintf("%x", sha256.Sum256([]byte(j.text))), nil
	case "sleep":
		d, err := time.ParseDuration(j.text)
		if err != nil {
			return "", err
		}
		select {
		case <-time.After(d):
		case <-j.ctx.Done():
		}
		return "", nil
	}
	cmd := exec.CommandContext(j.ctx, "sh", "-c", j.text)
	cmd.Dir = a.workspace
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// cancel ends a job that runs, and forgets one that waits.
func (a *agent) cancel(r request) error {
	a.mu.Lock()
	j := a.jobs[r.ID]
	at := slices.Index(a.queue, j)
	if at >= 0 {
		a.queue = slices.Delete(a.queue, at, at+1)
		delete(a.jobs, j.ID)
	}
	if bug == "deadlock" {
		defer a.mu.Unlock()
	} else {
		a.mu.Unlock()
	}
	switch {
	case j == nil:
		return fmt.Errorf("no job %q", r.ID)
	case at >= 0:
		a.tell(j, "cancelled", "", nil)
	default:
		j.cancel()
	}
	return nil
}

func (a *agent) note(r request) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if r.Key == "" {
		return errors.New("a note needs a key")
	}
	a.state.Notes[r.Key] = r.Value
	return a.state.save()
}

// status is the data of the events "snapshot" and "status".
type status struct {
	PID     int               `json:"pid"`
	Session string            `json:"session"`
	Notes   map[string]string `json:"notes"`
	Motto   string            `json:"motto"`
	Workers int               `json:"workers"`
	Queued  int               `json:"queued"`
	Running int               `json:"running"`
	Done    int               `json:"done"`
	Counts  map[string]int    `json:"counts"`
}

// status returns it as JSON. The lock is held.
func (a *agent) status() []byte {
	data, _ := json.Marshal(status{
		os.Getpid(), a.state.Session, a.state.Notes, a.config.Motto, a.config.Workers, len(a.queue), a.running, a.state.Done, a.counts,
	})
	return data
}

// client is a connection. Lines for it wait in out; one that does not read them loses its connection.
type client struct {
	conn  net.Conn
	out   chan []byte
	muted bool // the agent's lock guards it
}

func (c *client) send(event string, data any) {
	text, ok := data.([]byte)
	if !ok {
		text, _ = json.Marshal(data)
	}
	select {
	case c.out <- fmt.Appendf(nil, "{\"event\":%q,\"data\":%s}\n", event, text):
	default:
		c.conn.Close()
	}
}

// broadcast sends an event to all clients but those that want none.
func (a *agent) broadcast(event string, data any) {
	text, _ := json.Marshal(data)
	a.mu.Lock()
	defer a.mu.Unlock()
	for c := range a.clients {
		if !c.muted {
			c.send(event, text)
		}
	}
}

func (a *agent) serveAll(listener net.Listener) {
	for {
		conn, err := listener.Accept()
		switch {
		case errors.Is(err, net.ErrClosed) && bug != "status":
			return
		case errors.Is(err, net.ErrClosed):
			log.Fatal(err)
		case err != nil: // too many descriptors
			log.Print(err)
			time.Sleep(100 * time.Millisecond)
			continue
		}
		c := &client{conn: conn, out: make(chan []byte, maxQueue)}
		a.mu.Lock()
		c.send("snapshot", a.status())
		if a.stopping {
			conn.Close()
		} else {
			a.clients[c] = true
			a.all.Add(1)
			go a.serve(c)
		}
		a.mu.Unlock()
	}
}

func (a *agent) serve(c *client) {
	defer a.all.Done()
	written := make(chan struct{})
	go func() {
		defer close(written)
		for line := range c.out {
			_, _ = c.conn.Write(line)
		}
	}()
	lines := bufio.NewScanner(c.conn)
	lines.Buffer(nil, maxLine)
	lines.Split(wholeLine)
	for lines.Scan() {
		if line := lines.Bytes(); len(line) > 0 {
			a.answer(c, line)
		}
	}
	if errors.Is(lines.Err(), bufio.ErrTooLong) {
		c.send("error", fmt.Sprintf("a line has at most %d bytes", maxLine))
	}
	a.mu.Lock()
	delete(a.clients, c)
	close(c.out)
	a.mu.Unlock()
	<-written
	c.conn.Close()
}

// wholeLine is a bufio.SplitFunc that drops what stands behind the last newline.
func wholeLine(data []byte, _ bool) (advance int, line []byte, err error) {
	if n := bytes.IndexByte(data, '\n'); n >= 0 {
		return n + 1, data[:n], nil
	}
	return 0, nil, nil
}

func (a *agent) answer(c *client, line []byte) {
	var object map[string]json.RawMessage
	var method string
	var r request
	if !utf8.Valid(line) || json.Unmarshal(line, &object) != nil || object == nil {
		c.send("error", "no object of JSON")
		return
	}
	_ = json.Unmarshal(object["method"], &method)
	if params := object["params"]; params != nil {
		if err := json.Unmarshal(params, &r); err != nil {
			c.send("error", err.Error())
			return
		}
	}
	var err error
	switch method {
	case "ping":
		c.send("pong", struct{}{})
	case "status":
		a.mu.Lock()
		c.send("status", a.status())
		a.mu.Unlock()
	case "submit":
		if err = a.submit(r); err == nil {
			c.send("accepted", r.ID)
		}
	case "cancel":
		if err = a.cancel(r); err == nil {
			c.send("cancelling", r.ID)
		}
	case "note":
		if err = a.note(r); err == nil {
			c.send("noted", r.Key)
		}
	case "mute":
		a.mu.Lock()
		c.muted = true
		a.mu.Unlock()
		c.send("muted", struct{}{})
	case "shutdown":
		select {
		case a.signals <- os.Interrupt:
		default: // it was told often enough
		}
	default:
		err = fmt.Errorf("unknown method %q", method)
	}
	if err != nil {
		c.send("error", err.Error())
	}
}
