package evidence

import (
	"os"
	"strconv"
	"sync"
	"time"
)

// talkFile ends the names of the logs of conversations.
const talkFile = ".talk.log"

// maxTalk is how many bytes of the conversations with one pod are kept, and longestTalk how many
// of a line.
const (
	maxTalk     = 32 << 20
	longestTalk = 2000
)

// conversation is the log of what a pod and its tests have sent to each other.
type conversation struct {
	mu          sync.Mutex // guards all below; it is taken before the collector's
	log         *Attempt   // nil until the first connection
	out         *os.File   // nil = it cannot be written
	size        int64
	pending     []byte // what was not written yet
	written     time.Time
	connections int
}

// Connection notes a connection to the pod that a test has made, and returns what notes the lines
// on it: those that begin with > the test has sent, those with < the pod.
func (a *Attempt) Connection(test string) (note func(direction, line string)) {
	c := a.talk
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.log == nil {
		a.beginTalk()
	}
	c.connections++
	n := c.connections
	c.write(n, "=", "connected by "+test)
	return func(direction, line string) {
		line = a.Captured.Redact(line)
		c.mu.Lock()
		defer c.mu.Unlock()
		c.write(n, direction, line)
	}
}

// beginTalk makes the log. The conversation's lock is held.
func (a *Attempt) beginTalk() {
	c := a.talk
	own, err := a.e.Own()
	if err != nil || !a.e.isOpen() {
		return
	}
	c.log = a.e.add(a.Name+talkFile, &Attempt{Shown: true})
	out, err := create(own, c.log.Name)
	if err != nil {
		return
	}
	in, err := own.Open(c.log.Name)
	if err != nil {
		out.Close()
		return
	}
	c.out = out
	c.log.Captured.takeOwn(in)
	c.log.Change(func() {})
}

func (c *conversation) write(connection int, direction, line string) {
	if c.out == nil {
		return
	}
	if c.size > maxTalk {
		c.flush()
		if c.out.Truncate(0) == nil {
			c.size = 0
			c.put("[podharness: what was sent before is left out: it is too long]\n")
		}
	}
	c.put("#", strconv.Itoa(connection), " ", direction, " ", Shorten(line, longestTalk), "\n")
}

// talkRest is how long lines that come fast wait to be written together. Those before which
// nothing came for so long are written at once: they may be the last ones of this process.
const talkRest = time.Millisecond

func (c *conversation) put(words ...string) {
	before := len(c.pending)
	for _, word := range words {
		c.pending = append(c.pending, word...)
	}
	c.size += int64(len(c.pending) - before)
	c.log.Captured.Grown(c.size)
	switch {
	case time.Since(c.written) > talkRest || len(c.pending) > 64<<10:
		c.flush()
	case before == 0:
		time.AfterFunc(talkRest, c.writeOut)
	}
}

// writeOut writes what was not written yet.
func (c *conversation) writeOut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.flush()
}

func (c *conversation) flush() {
	if c.out != nil && len(c.pending) > 0 {
		_, _ = c.out.Write(c.pending)
		c.pending, c.written = c.pending[:0], time.Now()
	}
}

// end closes the log.
func (c *conversation) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.out != nil {
		c.flush()
		c.out.Close()
		c.out = nil
	}
}
