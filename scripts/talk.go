package scripts

import (
	"cmp"
	"errors"
	"regexp"
	"slices"
	"time"

	"example.com/podharness/harness"
)

// talk is a connection that stays open until the script ends.
type talk struct {
	*harness.Talk
	greeted bool // the snapshot was read
	printed int  // how many of its Lines were, or were passed over
}

func (c *call) send() error {
	open, leave, next := *c.given["open"], *c.given["leave"], *c.given["next"]
	switch {
	case open && leave, (open || leave) && (next || c.until != ""):
		return c.usagef("-open, -leave, and -next or -until exclude each other")
	case next || c.until != "":
		return c.sendUntil(next)
	case len(c.args) == 2 && !open && !leave:
		answer, err := c.pod.TrySend(c.args[1], c.timeout)
		return c.answer(answer, err)
	}
	conn, err := c.pod.TryTalk(c.timeout)
	switch {
	case err != nil:
		return err
	case open:
		c.talks[c.pod] = &talk{Talk: conn}
		return nil
	}
	defer conn.Close()
	if leave {
		return nil
	}
	return c.answer(conn.TrySnapshot())
}

// sendUntil prints the lines of the pod up to one that matches: of a connection of its own, or
// of the next ones of that which stays open.
func (c *call) sendUntil(next bool) error {
	until, err := regexp.Compile(c.until)
	if err != nil {
		return c.usagef("-until: %v", err)
	}
	t := c.talks[c.pod]
	if t == nil || !next {
		conn, err := c.pod.TryTalk(c.timeout)
		if err != nil {
			return err
		}
		if t = (&talk{Talk: conn}); next {
			c.talks[c.pod] = t
		} else {
			defer t.Close()
		}
	}
	if !t.greeted {
		snapshot, err := t.TrySnapshot()
		if err != nil {
			return err
		}
		t.greeted, t.printed = true, slices.Index(t.Lines(), snapshot)+1
	}
	if len(c.args) == 2 {
		if err := t.TryWrite(c.args[1]); err != nil {
			return err
		}
	}
	_, err = t.TryWaitLine(c.until, c.timeout)
	lines := t.Lines()
	for _, line := range lines[min(t.printed, len(lines)):] {
		c.printOut(line + "\n")
		if err != nil { // the next one begins here again
			continue
		}
		if t.printed++; until.MatchString(line) {
			break
		}
	}
	return err
}

func (c *call) quiet() error {
	talk, err := c.pod.TryTalk(10 * time.Second)
	if err != nil {
		return fatalError{error: err} // what could not be heard is neither quiet nor a line
	}
	defer talk.Close()
	if _, err := talk.TrySnapshot(); err != nil {
		return fatalError{error: err}
	}
	err = talk.TryQuiet(cmp.Or(c.timeout, 100*time.Millisecond))
	var e *harness.Error
	if errors.Is(err, harness.ErrEnded) || errors.As(err, &e) && e.Cut {
		return fatalError{error: err}
	}
	return err
}
