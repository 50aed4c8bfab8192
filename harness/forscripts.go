package harness

import (
	"fmt"
	"os"
	"time"

	"example.com/podharness/spawn"
)

// TempDir makes a directory that the watchdog removes when this process ends,
// in whatever way. It is there for the commands of package scripts.
func TempDir() (string, error) {
	b, err := makeBinary()
	if err != nil {
		return "", fmt.Errorf("make a temporary directory: %w", err)
	}
	return os.MkdirTemp(b.Root, "temp")
}

// Prepare returns what a start of the pod with a config would start, with what that
// finds in place and an environment without a mark. It is there for package scripts,
// in which clients start pods.
func Prepare(tb TB, cfg Config) (spawn.Config, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return spawn.Config{}, err
	}
	box, err := sandboxOf(tb)
	if err != nil {
		return spawn.Config{}, err
	}
	return box.spawnConfig(cfg)
}

// BeforeDeadline cuts a timeout so that it ends before the deadline of the test,
// if it has one, and leaves time to tear down. It is there for package scripts.
func BeforeDeadline(tb TB, timeout time.Duration) time.Duration {
	timeout, _ = beforeDeadline(tb, "", timeout)
	return timeout
}

// Message returns the message of a test that fails with an error: the log that it
// names is the one in the evidence. It is there for package scripts.
func Message(tb TB, err error) string { return messageOf(tb, err) }
