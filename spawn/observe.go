package spawn

import (
	"context"
	"strconv"
	"strings"
	"unicode"

	"golang.org/x/sys/unix"
)

// What package harness and the commands of this module need of a start and those
// who start pods do not is in this file. It may change with them.

// An Observer follows one start closely. It is for package harness.
type Observer struct {
	// Launched, if not nil, is called by Start's goroutine with the number of the
	// pod's process as soon as that runs.
	Launched func(pid int)
	// Grown, if not nil, is called by whoever reads the log, with its size in
	// bytes, when the log was found to have changed.
	Grown func(size int64)
	// Line, if not nil, is called by Start's goroutine with every line that the
	// start reads, the ready line too. [Log.Follow] has those that come later.
	Line func(line string)
	// Log is set by the start, also by one that failed, once the log was made:
	// whoever observes the start closes it. An older log of that name was replaced,
	// not truncated, so that whoever reads it keeps it.
	Log *Log

	fresh bool // an older log is replaced
}

// StartObserved is [Start] for package harness.
func StartObserved(ctx context.Context, cfg Config, o *Observer) (*Pod, error) {
	o.fresh = true
	s := &start{observer: o}
	return s.run(ctx, cfg)
}

// CloseInherited closes every descriptor above 2 that is not close-on-exec: at
// the beginning of a process, those that it has inherited. It is for helper
// processes that must not hold what their parents have open.
func CloseInherited() {
	for _, fd := range inheritable() {
		_ = unix.Close(fd)
	}
}

// Printable returns s with everything escaped that could move a terminal's
// cursor or hide text, such as control characters. What a pod wrote should not
// reach a terminal in any other form.
func Printable(s string) string {
	hidden := func(r rune) bool { return !unicode.IsPrint(r) }
	if strings.IndexFunc(s, hidden) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if hidden(r) {
			q := strconv.QuoteRune(r)
			b.WriteString(q[1 : len(q)-1])
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}
