//go:build !linux || portable

package main

// findsProcesses tells that package harness finds here what pods leave.
const findsProcesses = false
