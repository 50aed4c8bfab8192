// Fakepod is a pod that misbehaves on command: see package fakepod.
//
//	fakepod -list
//	fakepod -program 'log loading; sleep 1s; bind; ready; serve' --workspace . --pod alpha
//
// A client that can only be told which pod to start says what it should do by
// the environment:
//
//	FAKEPOD_PROGRAM=early-exit YOI_POD_RUNTIME_COMMAND=fakepod client
package main

import (
	"os"

	"example.com/podharness/fakepod"
)

func main() { os.Exit(fakepod.Main(os.Args[1:])) }
