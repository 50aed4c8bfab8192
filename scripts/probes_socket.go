package scripts

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"example.com/podharness/spawn/proc"
)

// snapshots reads it on several connections.
func (x *prober) snapshots() error {
	for i := range 10 {
		c, err := x.greeted()
		if err != nil {
			return fmt.Errorf("on connection %d %w", i+1, err)
		}
		if i%2 == 0 {
			_ = c.Close()
		}
	}
	return nil
}

// room skips the script if the pod may not open so many files.
func (x *prober) room(need int) {
	if n := proc.OpenFiles(x.pod.PID); n > 0 && n < need {
		x.skipf("the pod may open only %d files here (ulimit -n)", n)
	}
}

func (x *prober) silentClients() error {
	const clients = 64
	x.room(clients + 32)
	for i := range clients {
		if _, err := x.connect(); err != nil {
			return fmt.Errorf("with %d silent clients %w", i, err)
		}
	}
	return x.serves("with %d silent clients", clients)
}

func (x *prober) manyConnections() error {
	for i := range 1000 {
		if err := x.visit(); err != nil {
			return fmt.Errorf("on connection %d, each of which left after its snapshot, %w", i+1, err)
		}
	}
	return nil
}

// expect reads so many answers to what was sent.
func (c *connection) expect(answers int, sent string) error {
	for i := range answers {
		if _, err := c.line(); err != nil {
			return fmt.Errorf("%s was sent, and %d of %d answers came: %w", sent, i, answers, err)
		}
	}
	return nil
}

// withAnswers runs a try if the pod answers at all: what else it makes of a line is not
// seen.
func (x *prober) withAnswers(try func(*connection) error) error {
	switch ok, err := x.answers(); {
	case err != nil:
		return err
	case !ok:
		x.skipf("the pod answers no %s", ping)
	}
	c, err := x.greeted()
	if err == nil {
		err = try(c)
	}
	return err
}

func (x *prober) mergedLines() error {
	return x.withAnswers(func(c *connection) error {
		for _, lines := range []int{2, 3, 20} {
			all := strings.Repeat(ping+"\n", lines)
			if err := c.send(all); err != nil {
				return err
			}
			if err := c.expect(lines, "in one write "+shown([]byte(all))); err != nil {
				return err
			}
		}
		return nil
	})
}

func (x *prober) splitLines() error {
	return x.withAnswers(func(c *connection) error {
		const accented = `{"method":"ping","params":{"text":"é"}}` + "\n"
		cut := strings.Index(accented, "é") + 1 // within the letter
		for _, parts := range [][]string{
			{`{"me`, `thod":`, `"ping"}`, "\n"},
			{`{"method":"ping"}`, "\n" + `{"method":`, `"ping"}` + "\n"},
			{accented[:cut], accented[cut:]},
		} {
			if err := c.send(parts...); err != nil {
				return err
			}
			if err := c.expect(strings.Count(strings.Join(parts, ""), "\n"), fmt.Sprintf("in %d writes %q", len(parts), parts)); err != nil {
				return err
			}
		}
		return nil
	})
}

func (x *prober) unfinishedLine() error {
	const line = `{"method":"shutdown"}` // without its newline
	x.idle()
	for _, text := range []string{line, `{"meth`} {
		c, err := x.greeted()
		if err != nil {
			return err
		}
		if err := c.send(text); err != nil {
			return err
		}
		_ = c.Close()
		if how := x.fate(x.pod); how != "" {
			return fmt.Errorf("a client sent %s without a newline, and left%s", shown([]byte(text)), how)
		}
		if err := x.serves("after a client that sent %s without a newline, and left", shown([]byte(text))); err != nil {
			return err
		}
	}
	return nil
}

// notRequests are lines that are no request of a known method. An empty one is the first.
var notRequests = []string{
	"", "not JSON", "{", `{"method":"ping"`, `"ping"`, "[1,2]", "17", "null", "true", "{}", `{"method":17}`, `{"method":null}`,
	`{"method":"no-such-method"}`, `{"method":"no-such-method","params":[1]}`, "\xff\xfe", `{"method":"\xff"}`, `{"method":"p` + "\x00" + `"}`,
	"\x00", "\t", " ", "\r", "GET / HTTP/1.1\r",
}

// deepLines are no requests either, and deeper than most parsers go.
var deepLines = []string{strings.Repeat("[", 3000), strings.Repeat(`{"a":`, 3000), strings.Repeat("[", 100000)}

func (x *prober) badLines() error {
	witness, err := x.greeted()
	if err != nil {
		return err
	}
	for _, line := range slices.Concat(notRequests, deepLines) {
		c, err := x.greeted()
		if err != nil {
			return err
		}
		if err := c.send(line + "\n"); err != nil {
			return err
		}
		if err := x.serves("after the line %s", shown([]byte(line))); err != nil {
			return err
		}
		_ = c.Close()
		if _, err := witness.lineWithin(time.Millisecond); err != nil && !errors.Is(err, errNoLine) {
			return fmt.Errorf("after the line %s of another client: %w", shown([]byte(line)), err)
		}
	}
	return nil
}

func (x *prober) badLinesAnswered() error {
	for _, line := range notRequests {
		if strings.TrimSpace(line) == "" {
			continue
		}
		c, err := x.greeted()
		if err != nil {
			return err
		}
		if err := c.send(line + "\n"); err != nil {
			return err
		}
		answer, err := c.lineWithin(2 * time.Second)
		if err != nil {
			return fmt.Errorf("the line %s was not answered: %w", shown([]byte(line)), err)
		}
		if m, err := parseMessage(answer); err != nil {
			return fmt.Errorf("the line %s was answered by %s: %w", shown([]byte(line)), shown(answer), err)
		} else if !strings.Contains(strings.ToLower(m.Event), "error") {
			return fmt.Errorf("the line %s was answered by %s, which is no error", shown([]byte(line)), shown(answer))
		}
		_ = c.Close()
	}
	return nil
}

// slowReader has a client write until nobody takes more of it, and read nothing.
func (x *prober) slowReader() error {
	other, err := x.greeted()
	if err != nil {
		return err
	}
	c, err := x.connect()
	if err != nil {
		return err
	}
	lines := []byte(strings.Repeat(ping+"\n", 1000))
	sent := 0
	for range 20 {
		_ = c.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
		n, err := c.Write(lines)
		sent += n
		if err != nil {
			break
		}
	}
	const after = "while a client that has sent %d bytes of requests reads nothing"
	if err := x.serves(after, sent); err != nil {
		return err
	}
	if ok, err := x.answers(); err != nil {
		return fmt.Errorf(after+": %w", sent, err)
	} else if ok {
		if err := other.send(ping + "\n"); err != nil {
			return err
		}
		if err := other.expect(1, fmt.Sprintf(after+", "+ping, sent)); err != nil {
			return err
		}
	}
	_ = c.Close()
	return x.serves("after a client has left that had sent %d bytes of requests and read nothing", sent)
}

func (x *prober) longLine() error {
	c, err := x.greeted()
	if err != nil {
		return err
	}
	line := `{"method":"ping","params":{"text":"` + strings.Repeat("x", 1<<20) + "\"}}\n"
	for _, half := range []string{line[:len(line)/2], line[len(line)/2:]} {
		_ = c.SetWriteDeadline(time.Now().Add(time.Second))
		_, _ = io.WriteString(c, half) // the pod may have had enough of it
		if err := x.serves("in the middle of a line of 1 MiB, or at its end"); err != nil {
			return err
		}
	}
	_ = c.Close()
	return x.serves("after a line of 1 MiB")
}
