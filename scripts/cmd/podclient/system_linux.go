//go:build !portable

package main

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// block has this thread, and what it executes, block the signals and no others.
func block(signals []syscall.Signal) error {
	var set unix.Sigset_t
	for _, sig := range signals {
		set.Val[0] |= 1 << (sig - 1) // the first word has those below 32
	}
	return unix.PthreadSigmask(unix.SIG_SETMASK, &set, nil)
}
