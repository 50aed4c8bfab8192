// Package lines is the inside of harness: it reads the lines of JSON that a pod sends.
package lines

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// Most is how many bytes a line may have where nobody says another number.
const Most = 16 << 20

// ErrTooLong is why an Inbox reads no more: a line has more bytes than it may.
var ErrTooLong = errors.New("its line is too long")

// MostKept is how many bytes of lines an Inbox keeps, or a line more.
const MostKept = 64 << 20

// overhead is what a line takes beside its bytes.
const overhead = 16

// small is how much room for a line is kept for the next one.
const small = 64 << 10

// Conn is what is needed of a connection.
type Conn interface {
	io.ReadCloser
	SetReadDeadline(time.Time) error
}

// idle is how long nobody reads after a call of Next has. Calls that follow each other read for
// themselves: to be woken by a goroutine that reads takes most of the time that a pod needs to answer.
const idle = time.Millisecond

// An Inbox reads the lines of a connection, which end with a newline, as they come, and keeps
// them. Once it has more than MostKept it drops the oldest of those that were seen; where there
// are none it reads no more until some are. Its methods are safe for concurrent use.
type Inbox struct {
	from   Conn
	most   int // bytes of a line
	came   func(line string)
	over   func(why error)
	stop   chan struct{} // closed by Close
	done   chan struct{} // closed when all was read
	closed sync.Once
	buf    [16 << 10]byte // of whoever reads

	mu      sync.Mutex  // guards all below
	reading bool        // somebody is: a call of Next, or readOn
	idle    *time.Timer // calls readOn; it runs while nobody reads
	lines   []string
	first   int           // the number of lines[0]
	seen    int           // the lines before were
	bytes   int           // of lines
	pending []byte        // of the line that is unfinished
	end     error         // why no more come; nil = some may
	grown   chan struct{} // closed when a line comes, or the end; nil = nobody waits
	room    chan struct{} // closed when some were seen; nil = the reader does not wait
}

// NewInbox returns an Inbox that reads from a connection until Close, lines of at most so many
// bytes. Whoever reads calls came with each line, and over when no more will come.
func NewInbox(from Conn, most int, came func(line string), over func(why error)) *Inbox {
	in := &Inbox{from: from, most: most, came: came, over: over, stop: make(chan struct{}), done: make(chan struct{})}
	in.mu.Lock()
	defer in.mu.Unlock()
	in.idle = time.AfterFunc(idle, in.readOn)
	return in
}

// Close closes the connection, and ends the reading. The lines stay.
func (in *Inbox) Close() {
	in.closed.Do(func() {
		close(in.stop)
		_ = in.from.Close()
	})
	in.readOn() // where nobody reads
	<-in.done
}

// readOn reads while nobody waits for what comes, unless somebody reads.
func (in *Inbox) readOn() {
	in.mu.Lock()
	mine := in.begin()
	in.mu.Unlock()
	for ; mine; mine = in.read(time.Time{}, false) {
		if full := in.full(); full != nil {
			select {
			case <-full:
			case <-in.stop: // the next read says so
			}
		}
	}
}

// begin reports whether the caller is the one that reads from here on. The lock is held.
func (in *Inbox) begin() bool {
	if in.reading || in.end != nil {
		return false
	}
	in.reading = true
	return true
}

// full returns what to wait for before more is read; nil = nothing.
func (in *Inbox) full() chan struct{} {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.bytes > MostKept && in.room == nil {
		in.room = make(chan struct{})
	}
	return in.room
}

// read reads, until a time, zero = for ever, and reports whether the caller goes on with that: it
// does not if it reads once, if another one waits for what comes, and if no more will.
func (in *Inbox) read(until time.Time, once bool) bool {
	_ = in.from.SetReadDeadline(until)
	n, err := in.from.Read(in.buf[:])
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = nil
	}
	in.mu.Lock()
	in.reading = !once && in.grown == nil
	in.take(in.buf[:n], err)
	goesOn, end := in.reading && in.end == nil, in.end
	if !goesOn && end == nil {
		in.idle.Reset(idle)
	}
	in.mu.Unlock()
	if end != nil {
		in.over(end)
		close(in.done)
	}
	return goesOn
}

// take takes what was read. The lock is held.
func (in *Inbox) take(p []byte, err error) {
	for in.end == nil {
		line, rest, whole := bytes.Cut(p, []byte{'\n'})
		if len(in.pending)+len(line) > in.most+len("\r") {
			in.pending = append(in.pending, line...)[:in.most]
			in.end = ErrTooLong
			break
		}
		if !whole {
			in.pending = append(in.pending, line...)
			break
		}
		in.add(line)
		p = rest
	}
	if in.end == nil {
		in.end = err
	}
	in.wake(&in.grown)
	in.drop()
}

// add adds a line, of which this is the last part.
func (in *Inbox) add(part []byte) {
	if len(in.pending) > 0 {
		in.pending = append(in.pending, part...)
		part = in.pending
	}
	line := strings.TrimSuffix(string(part), "\r")
	if in.pending = in.pending[:0]; cap(in.pending) > small {
		in.pending = nil
	}
	in.lines = append(in.lines, line)
	in.bytes += len(line) + overhead
	in.came(line)
}

// drop drops the oldest lines that were seen, if there are too many.
func (in *Inbox) drop() {
	for in.bytes > MostKept && in.first < in.seen {
		in.bytes -= len(in.lines[0]) + overhead
		in.lines[0] = ""
		in.lines = in.lines[1:]
		in.first++
	}
	if in.bytes <= MostKept {
		in.wake(&in.room)
	}
}

func (in *Inbox) wake(c *chan struct{}) {
	if *c != nil {
		close(*c)
		*c = nil
	}
}

// Next returns the first line that is kept of those from a number on, and the number of the one
// after it. It waits for that until a time, which it asks for once it has to wait; nil = it looks
// at what has come. Where no line comes, ok is false, and err is why no more will; nil = it was late.
func (in *Inbox) Next(from int, until func() time.Time) (line string, next int, ok bool, err error) {
	looks := until == nil
	if looks { // nobody may have read for so long
		until = func() time.Time { return time.Now().Add(idle) }
	}
	for deadline := (time.Time{}); ; {
		in.mu.Lock()
		in.seen = max(in.seen, from)
		in.drop()
		if i := max(from-in.first, 0); i < len(in.lines) {
			defer in.mu.Unlock()
			return in.lines[i], in.first + i + 1, true, nil
		}
		if in.end != nil || looks && in.reading || !deadline.IsZero() && !time.Now().Before(deadline) {
			defer in.mu.Unlock()
			return "", from, false, in.end
		}
		mine := in.begin()
		if !mine && in.grown == nil {
			in.grown = make(chan struct{})
		}
		grown := in.grown
		in.mu.Unlock()
		if deadline.IsZero() {
			deadline = until()
		}
		if mine {
			in.read(deadline, true)
			continue
		}
		late := time.NewTimer(time.Until(deadline))
		select {
		case <-grown:
		case <-late.C:
		}
		late.Stop()
	}
}

// End returns the number of the line that comes next.
func (in *Inbox) End() int {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.first + len(in.lines)
}

// Lines returns the lines that are kept, of those from a number on.
func (in *Inbox) Lines(from int) []string {
	in.mu.Lock()
	defer in.mu.Unlock()
	return slices.Clone(in.lines[min(max(from-in.first, 0), len(in.lines)):])
}

// Unfinished returns the beginning of the line that has no newline yet.
func (in *Inbox) Unfinished() string {
	in.mu.Lock()
	defer in.mu.Unlock()
	return string(in.pending[:min(len(in.pending), 4<<10)])
}

// Event returns what a line is about that is a JSON object: its own "event", however that is
// spelled; "" = it is none, or has none.
func Event(line string) (event string) {
	var object map[string]json.RawMessage
	if json.Unmarshal([]byte(line), &object) == nil {
		_ = json.Unmarshal(object["event"], &event)
	}
	return event
}
