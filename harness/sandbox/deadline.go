package sandbox

import (
	"fmt"
	"time"
)

// BeforeDeadline cuts a timeout so that it ends before the test's own deadline
// and leaves time to tear down and report: go test panics at that deadline, and
// the evidence would be lost. The note is for the message of one that was cut.
func BeforeDeadline(tb any, what string, timeout time.Duration) (cut time.Duration, note string) {
	t, hasDeadline := Optional[interface{ Deadline() (time.Time, bool) }](tb)
	if !hasDeadline {
		return timeout, ""
	}
	deadline, ok := t.Deadline()
	left := time.Until(deadline)
	left = max((left - min(left/4, 5*time.Second)).Truncate(time.Millisecond), time.Millisecond)
	if !ok || left >= timeout {
		return timeout, ""
	}
	return left, fmt.Sprintf("\n\tnote: the %s of %v was cut to %v, to end before the test's deadline", what, timeout, left)
}

// Optional returns what has a method that not every TB has: tb, or what it
// stands for.
func Optional[M any](tb any) (m M, ok bool) {
	for range 10 { // one may stand for itself
		if m, ok = tb.(M); ok {
			return m, true
		}
		t, wraps := tb.(interface{ Unwrap() any })
		if !wraps {
			break
		}
		tb = t.Unwrap()
	}
	return m, false
}
