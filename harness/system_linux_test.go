//go:build !portable

package harness

// findsProcesses tells that package harness finds here what pods leave.
const findsProcesses = true
