package scripts

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"example.com/podharness/harness"
	"example.com/podharness/harness/sandbox"
	"example.com/podharness/spawn"
	"example.com/podharness/spawn/podlog"
)

// A probe tries one rule of the contract on a pod. Its error says what was sent and what
// came.
type probe struct {
	name string
	run  func(*prober) error
}

// prober is one use of the verb podprobe.
type prober struct {
	*call
	end   time.Time
	read  int // bytes of lines
	conns []*connection
}

func (c *call) probe() error {
	var names []string
	for _, p := range probes {
		if p.name == c.args[1] {
			timeout, _ := sandbox.BeforeDeadline(c.tb, "", c.timeout)
			x := &prober{call: c, end: time.Now().Add(timeout)}
			defer x.leave()
			return p.run(x)
		}
		names = append(names, p.name)
	}
	return c.usagef("unknown probe %q: there are %s", c.args[1], strings.Join(names, ", "))
}

// idle tells who runs the script that it only waits from here on.
func (c *call) idle() {
	if t, ok := c.tb.t.(interface{ Idle() }); ok {
		t.Idle()
	}
}

// skipf skips the script: the system, or the pod, does not show what is asked for.
func (c *call) skipf(format string, args ...any) { c.tb.t.Skip(fmt.Sprintf(format, args...)) }

// leave closes all connections.
func (x *prober) leave() {
	for _, conn := range x.conns {
		_ = conn.Close()
	}
	x.conns = nil
}

// A connection to the pod's socket.
type connection struct {
	net.Conn
	x   *prober
	in  *bufio.Reader
	end time.Time
}

// connect connects to the pod under test, or to another one.
func (x *prober) connect() (*connection, error) { return x.connectTo(x.pod) }

func (x *prober) connectTo(pod *harness.Pod) (*connection, error) {
	// Each has its own time: a snapshot may be long, and connections many.
	end := time.Now().Add(10 * time.Second)
	if end.After(x.end) {
		end = x.end
	}
	ctx, cancel := context.WithDeadline(context.Background(), end)
	defer cancel()
	conn, err := spawn.Dial(ctx, pod.SocketPath)
	if err != nil {
		return nil, fmt.Errorf("could not connect to pod %s: %w%s", podlog.Printable(pod.Name), err, x.fate(pod))
	}
	c := &connection{conn, x, bufio.NewReaderSize(conn, 16<<10), end}
	x.conns = append(x.conns, c)
	return c, conn.SetDeadline(end)
}

// fate tells how the pod has ended; "" = it has not. A connection is closed a moment before
// the process ends.
func (x *prober) fate(pod *harness.Pod) string {
	select {
	case <-pod.Done():
		return "; the pod has ended: " + end(pod)
	case <-time.After(time.Until(x.end)):
	case <-time.After(500 * time.Millisecond):
	}
	return ""
}

// mostOfALine is how long a line of a pod may be.
const mostOfALine = 64 << 20

// line returns the next line of the pod, without its newline.
func (c *connection) line() ([]byte, error) {
	var line []byte
	for {
		part, err := c.in.ReadSlice('\n')
		line = append(line, part...)
		c.x.read += len(part)
		switch {
		case err == nil:
			return bytes.TrimSuffix(line, []byte("\n")), nil
		case len(line) > mostOfALine:
			return nil, fmt.Errorf("a line of the pod is longer than %d MiB", mostOfALine>>20)
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil, errors.Join(errNoLine, err)
		default:
			if errors.Is(err, io.EOF) {
				err = errors.New("the pod closed the connection")
			}
			return nil, fmt.Errorf("%w%s%s", err, unfinished(line), c.x.fate(c.x.pod))
		}
	}
}

// errNoLine: no line came in time.
var errNoLine = errors.New("no line came")

func unfinished(line []byte) string {
	if len(line) == 0 {
		return ""
	}
	return "; unfinished line: " + shown(line)
}

// lineWithin is line, for at most d.
func (c *connection) lineWithin(d time.Duration) ([]byte, error) {
	end := time.Now().Add(d)
	if end.After(c.end) {
		end = c.end
	}
	_ = c.SetReadDeadline(end)
	defer c.SetReadDeadline(c.end)
	return c.line()
}

// message is a line of the pod.
type message struct {
	Event string          `json:"event"`
	Data  json.RawMessage `json:"data"`
}

// parse parses a line of the pod, which must be a JSON object with an event.
func parseMessage(line []byte) (m message, err error) {
	fields := map[string]json.RawMessage{}
	if err := json.Unmarshal(line, &fields); err != nil {
		return m, fmt.Errorf("it is no JSON object: %w", err)
	}
	// By these very keys: Go's own match is blind to case.
	if err := json.Unmarshal(fields["event"], &m.Event); err != nil || m.Event == "" {
		return m, errors.New(`it has no "event" at its top level`)
	}
	m.Data = fields["data"]
	return m, nil
}

// snapshot reads the first line of the pod that is no alert, which must be a snapshot.
func (c *connection) snapshot() error {
	for {
		line, err := c.line()
		if errors.Is(err, errNoLine) {
			return errors.New("no snapshot came in time")
		} else if err != nil {
			return fmt.Errorf("no snapshot came: %w", err)
		}
		m, err := parseMessage(line)
		switch {
		case err != nil:
			return fmt.Errorf("the first line is %s, which is no snapshot: %w", shown(line), err)
		case m.Event == "alert":
			continue
		case m.Event != "snapshot":
			return fmt.Errorf(`the first line is %s, which is no snapshot: its "event" is %q`, shown(line), m.Event)
		case m.Data == nil:
			return fmt.Errorf(`the snapshot is %s, which has no "data" at its top level`, shown(line))
		}
		return nil
	}
}

// greeted connects and reads the snapshot.
func (x *prober) greeted() (*connection, error) {
	c, err := x.connect()
	if err == nil {
		err = c.snapshot()
	}
	return c, err
}

// visit is one of many clients that leave once they have their snapshot; of long ones, the
// later clients read the beginning only.
func (x *prober) visit() error {
	c, err := x.connect()
	if err != nil {
		return err
	}
	defer c.Close()
	if x.read < 32<<20 {
		return c.snapshot()
	}
	if _, err := c.in.Peek(1); err != nil {
		return fmt.Errorf("no snapshot came: %w", err)
	}
	return nil
}

// serves returns an error unless a new client is served. The error says after what.
func (x *prober) serves(format string, args ...any) error {
	c, err := x.greeted()
	if err != nil {
		return fmt.Errorf(format+", a new client is not served: %w", append(args, err)...)
	}
	return c.Close()
}

// ping is a request that any pod may answer: one that does not know it, with an error.
const ping = `{"method":"ping"}`

// answers reports whether the pod answers a ping: it need not.
func (x *prober) answers() (bool, error) {
	c, err := x.greeted()
	if err != nil {
		return false, err
	}
	defer c.Close()
	if err := c.send(ping + "\n"); err != nil {
		return false, err
	}
	_, err = c.lineWithin(time.Second)
	return err == nil, nil
}

// send writes the parts of a text, each by itself, with a moment between them.
func (c *connection) send(parts ...string) error {
	for i, part := range parts {
		if i > 0 {
			time.Sleep(20 * time.Millisecond) // so that the pod reads them one by one
		}
		if _, err := io.WriteString(c, part); err != nil {
			return fmt.Errorf("could not send %s: %w%s", shown([]byte(part)), err, c.x.fate(c.x.pod))
		}
	}
	return nil
}

// shown quotes what was sent or came, cut in its middle.
func shown(text []byte) string {
	const most = 160
	if len(text) <= 2*most {
		return fmt.Sprintf("%q", text)
	}
	return fmt.Sprintf("%q… (%d bytes) …%q", text[:most], len(text), text[len(text)-most:])
}

// start starts another pod for the script, which podstart would start so, too.
func (x *prober) start(name string, change func(*harness.Config)) (*harness.Pod, error) {
	other := *x.call
	other.args, other.pod, other.starting = []string{name}, x.pods[name], x.options.defaults()
	cfg, err := other.config()
	if err != nil {
		return nil, err
	}
	cfg.AllowLeaks = true // the requirement that is about them tells
	change(&cfg)
	pod, err := harness.TryStartPod(x.tb, cfg)
	if err != nil {
		var start *spawn.Error
		if !errors.As(err, &start) {
			return nil, fatalError{error: err, kit: true}
		}
		return nil, err
	}
	x.pods[name] = pod
	return pod, nil
}

func asItIs(*harness.Config) {}

// probes are those of the verb podprobe.
var probes = []probe{
	{"snapshot", (*prober).snapshots},
	{"silent-clients", (*prober).silentClients},
	{"many-connections", (*prober).manyConnections},
	{"merged-lines", (*prober).mergedLines},
	{"split-lines", (*prober).splitLines},
	{"unfinished-line", (*prober).unfinishedLine},
	{"bad-lines", (*prober).badLines},
	{"bad-lines-answered", (*prober).badLinesAnswered},
	{"slow-reader", (*prober).slowReader},
	{"long-line", (*prober).longLine},
	{"pid", (*prober).pidFile},
	{"status", (*prober).statusFile},
	{"private", (*prober).private},
	{"log", (*prober).logInPlace},
	{"descriptors", (*prober).descriptors},
	{"listener", (*prober).listener},
	{"idle", (*prober).idleCost},
	{"growth", (*prober).growth},
	{"beside", (*prober).beside},
	{"tidies-in-time", (*prober).tidiesInTime},
	{"litter", (*prober).litter},
	{"long-name", (*prober).longName},
	{"workspaces", (*prober).workspaces},
	{"profile", (*prober).profile},
	{"one-ready-line", (*prober).oneReadyLine},
	{"busy", (*prober).busy},
	{"stop-merged", stops(false, ping+"\n"+`{"method":"shutdown"}`+"\n")},
	{"stop-split", stops(false, `{"me`, `thod":"shut`, `down"}`, "\n")},
	{"stop-left", stops(true, `{"method":"shutdown"}`+"\n")},
	{"stop-blanks", stops(false, ` { "method" : "shutdown" } `+"\n")},
	{"stop-params", stops(false, `{"method":"shutdown","params":{}}`+"\n")},
	{"stop-order", stops(false, `{"params":null,"id":7,"method":"shutdown"}`+"\n")},
	{"stop-escapes", stops(false, `{"\u006dethod":"shutdow\u006e"}`+"\n")},
}
