package evidence

import (
	"fmt"
	"reflect"
	"time"
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
