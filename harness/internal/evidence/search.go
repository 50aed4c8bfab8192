package evidence

import (
	"context"
	"errors"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"slices"
	"time"
	"unicode/utf8"

	"example.com/podharness/spawn/podlog"
)

const (
	// maxMatch is how many bytes a match of WaitOutput may have at least.
	maxMatch = 1 << 20
	// scanStep is how many bytes are searched at once, beside the last ones of before.
	scanStep = 2 << 20
)

// WaitMatch waits until a pattern matches in one of the outputs, and returns the match; "" =
// there was none within timeout, or before done was closed.
func WaitMatch(outputs []*Attempt, pattern string, timeout time.Duration, done <-chan struct{}) (string, error) {
	var scans []*Scan
	for _, a := range outputs {
		s, err := NewScan(a.Captured, pattern)
		if err != nil {
			return "", fmt.Errorf("bad pattern: %w", err)
		}
		scans = append(scans, s)
	}
	late := time.NewTimer(timeout)
	defer late.Stop()
	for over := false; ; {
		events := []reflect.SelectCase{{Dir: reflect.SelectRecv, Chan: reflect.ValueOf(done)}, {Dir: reflect.SelectRecv, Chan: reflect.ValueOf(late.C)}}
		for _, a := range outputs {
			events = append(events, reflect.SelectCase{Dir: reflect.SelectRecv, Chan: reflect.ValueOf(a.Captured.Next())})
		}
		for _, s := range scans {
			if match, err := s.Find(); match != "" || err != nil {
				return match, err
			}
		}
		if over {
			return "", nil
		}
		event, _, _ := reflect.Select(events)
		over = event < 2
	}
}

// A Scan looks for a pattern in an output that grows. It reads each byte once. Of what it
// has read it keeps the last bytes, with which a match may begin.
type Scan struct {
	log    *Log
	first  *regexp.Regexp // finds the first match
	behind *regexp.Regexp // finds the first one behind the first character, as its group 1
	window []byte         // what was read last
	cut    bool           // the output does not begin with the window
	end    int64          // of the window, in the output
}

// NewScan returns a scan of a log from its start. The error is that of a bad pattern.
func NewScan(log *Log, pattern string) (*Scan, error) {
	first, err := regexp.Compile("(?m)" + pattern)
	if err != nil {
		return nil, err
	}
	behind, err := regexp.Compile(`\A(?s:..*?)((?m)` + pattern + ")")
	return &Scan{log: log, first: first, behind: behind}, err
}

// Find returns the first match in what is there now; "" = there is none.
func (s *Scan) Find() (string, error) {
	log := s.log.Reader()
	if log.Size() < s.end { // it was truncated
		s.window, s.cut, s.end = s.window[:0], false, 0
	}
	for s.end < log.Size() {
		n, kept := int(min(scanStep, log.Size()-s.end)), len(s.window)
		s.window = slices.Grow(s.window, n)[:kept+n]
		if _, err := log.ReadAt(s.window[kept:], s.end); err != nil {
			s.window = s.window[:kept]
			if errors.Is(err, io.EOF) { // it was truncated just now: the next look begins again
				return "", nil
			}
			return "", fmt.Errorf("read the output: %w", err)
		}
		s.end += int64(n)
		from, to := s.match()
		// A match that begins near the end of the window may go on behind that, or be one
		// only because $ matches there.
		if to > from && (s.end == log.Size() || len(s.window)-from >= maxMatch) {
			return string(s.window[from:to]), nil
		}
		if to == from {
			from = len(s.window) - maxMatch
		}
		s.forget(from)
	}
	return "", nil
}

// match returns where the first match in the window is; an empty one is none.
func (s *Scan) match() (from, to int) {
	loc := s.first.FindIndex(s.window)
	if loc != nil && loc[0] == 0 && s.cut {
		// The first character is there for what ^ and \b mean behind it: no match begins
		// with it, or that would have been found before.
		if loc = s.behind.FindSubmatchIndex(s.window); loc != nil {
			loc = loc[2:4]
		}
	}
	if loc == nil {
		return 0, 0
	}
	return loc[0], loc[1]
}

// forget drops what is before an offset of the window, but for one character.
func (s *Scan) forget(before int) {
	for back := 0; back < utf8.UTFMax-1 && before > 0 && !utf8.RuneStart(s.window[before]); back++ {
		before--
	}
	if before <= 0 {
		return
	}
	_, size := utf8.DecodeLastRune(s.window[:before])
	if before -= size; before > 0 {
		s.window = append(s.window[:0], s.window[before:]...)
		s.cut = true
	}
}

// A Match is a line of a log, and where it ends.
type Match struct {
	Line string
	End  int64
}

// Search reads the log from an offset until a line matches or the time is up, and to its
// end once done is closed. It returns nil if none does.
func (l *Log) Search(from int64, is func(line string) bool, timeout time.Duration, done <-chan struct{}) (found *Match, err error) {
	file, err := l.Open()
	if err != nil {
		return nil, err
	}
	log := podlog.NewAt(file, from)
	defer log.Close()
	ctx, toEnd := context.WithCancel(context.Background())
	if timeout > 0 {
		log.Rest = timeout // the end of a large log may be far
		ctx, toEnd = context.WithTimeout(ctx, timeout)
		go func() {
			select {
			case <-done:
				toEnd()
			case <-ctx.Done():
			}
		}()
	} else { // one look at all that is there
		toEnd()
	}
	defer toEnd()
	err = log.Follow(ctx, func(line string) bool {
		if is(line) {
			found = &Match{line, log.LineEnd()}
		}
		return found == nil
	})
	if ctx.Err() != nil {
		err = nil
	}
	return found, err
}
