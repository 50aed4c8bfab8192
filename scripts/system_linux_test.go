//go:build !portable

package scripts_test

// findsProcesses tells that package harness finds here what pods leave.
const findsProcesses = true
