//go:build unix && !linux

package spawn

// awaitExit tells that there is no way to wait without reaping here.
func awaitExit(int) bool { return false }

// hasEnded cannot tell without reaping here: done tells soon.
func hasEnded(int) bool { return false }
