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
	"fmt"
	"os"
	"slices"

	"example.com/podharness/fakepod"
	"example.com/podharness/fakepod/oracle"
)

func main() {
	if len(os.Args) == 2 && slices.Contains([]string{"-list", "--list"}, os.Args[1]) {
		if _, err := fmt.Print(oracle.List()); err != nil {
			fmt.Fprintf(os.Stderr, "fakepod: %v\n", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(fakepod.Main(os.Args[1:]))
}
