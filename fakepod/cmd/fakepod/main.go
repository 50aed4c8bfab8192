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
	"runtime"
	"runtime/debug"
	"strings"

	"example.com/podharness/fakepod"
	"example.com/podharness/fakepod/oracle"
)

func main() {
	told := ""
	if len(os.Args) == 2 {
		switch strings.Replace(os.Args[1], "--", "-", 1) {
		case "-list":
			told = oracle.List()
		case "-version":
			info, _ := debug.ReadBuildInfo() // every program of a module has it
			told = version(info.Settings)
		}
	}
	if told == "" {
		os.Exit(fakepod.Main(os.Args[1:]))
	}
	if _, err := fmt.Print(told); err != nil {
		fmt.Fprintf(os.Stderr, "fakepod: %v\n", err)
		os.Exit(1)
	}
}

// version tells the commit, if the go command has noted it.
func version(settings []debug.BuildSetting) string {
	commit, modified := "of an unknown commit", ""
	for _, s := range settings {
		switch {
		case s.Key == "vcs.revision":
			commit = s.Value
		case s.Key == "vcs.modified" && s.Value == "true":
			modified = " (modified)"
		}
	}
	return fmt.Sprintf("fakepod %s%s %s %s/%s\n", commit, modified, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}
