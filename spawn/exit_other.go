//go:build unix && !linux

package spawn

// watchExit tells that there is no way to wait without reaping here.
func watchExit(int) func() { return nil }

// hasEnded cannot tell without reaping here: done tells soon.
func hasEnded(int) bool { return false }
