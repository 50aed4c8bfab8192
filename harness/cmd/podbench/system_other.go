//go:build !linux

package main

import "runtime"

func system() string { return runtime.GOOS }
