//go:build unix && !linux

package spawn

// isStopped cannot tell here.
func isStopped(int) bool { return false }
