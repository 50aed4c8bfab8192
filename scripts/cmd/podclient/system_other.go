//go:build unix && (!linux || portable)

package main

import "syscall"

// block does nothing where Go has no call for it.
func block([]syscall.Signal) error { return nil }
