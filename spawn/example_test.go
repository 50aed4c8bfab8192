package spawn_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"example.com/podharness/fakepod"
	"example.com/podharness/spawn"
)

// A pod that dies before it is ready: the error has its last words.
func ExampleStart() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	program, args := fakepod.Command("early-exit")
	_, err = spawn.Start(context.Background(), spawn.Config{
		Command:       spawn.Command{Program: program, PrefixArgs: args},
		PodName:       "alpha",
		WorkspaceRoot: dir,
		Env:           []string{"YOI_RUNTIME_DIR=" + dir},
		ReadyTimeout:  10 * time.Second,
	})
	var failure *spawn.Error
	if errors.As(err, &failure) && errors.Is(err, spawn.ErrExited) {
		fmt.Println(failure.Err)
		fmt.Println(failure.State.ExitCode(), failure.Tail)
	}
	// Output:
	// pod exited before becoming ready (exit status 7)
	// 7 [cannot open session store]
}

func ExampleConfig_Args() {
	cfg := spawn.Config{PodName: "alpha", WorkspaceRoot: "/srv/project", Profile: "project:companion"}
	fmt.Println(cfg.Args())
	// Output: [--workspace /srv/project --pod alpha --profile project:companion]
}
