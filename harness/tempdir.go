package harness

import (
	"fmt"
	"os"
	"path/filepath"
)

// TempDir makes a directory. The watchdog removes it when this process has ended, in
// whatever way. TempDir is for the commands of package scripts.
func TempDir() (string, error) {
	b, err := makeBinary()
	if err != nil {
		return "", fmt.Errorf("make a temporary directory: %w", err)
	}
	return mkdirTemp(b.Root, "temp")
}

// mkdirTemp is os.MkdirTemp whatever the umask is.
func mkdirTemp(dir, pattern string) (path string, err error) {
	if path, err = os.MkdirTemp(dir, pattern); err != nil {
		return "", err
	}
	if err = os.Chmod(path, 0o700); err != nil {
		_ = os.Remove(path)
	}
	return path, err
}

// tempDir is the temporary directory as it was when the test binary began: a
// test may set TMPDIR to one of its own, which ends with it.
var tempDir, _ = filepath.Abs(os.TempDir())

// shortTempDir returns a temporary directory below which a socket's path fits
// into a socket address: the usual one, unless TMPDIR is long (as on macOS).
func shortTempDir() string {
	if tempDir == "" || len(tempDir) > 40 {
		return "/tmp"
	}
	return tempDir
}
