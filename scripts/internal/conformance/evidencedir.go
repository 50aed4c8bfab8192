package conformance

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"example.com/podharness/spawn/safefile"
	"golang.org/x/sys/unix"
)

// writable finds out whether files can be created in a directory, which need not exist.
func writable(dir string) error {
	if _, err := os.Stat(dir); err != nil {
		defer os.Remove(dir)
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	return unix.Access(dir, unix.W_OK)
}

// evidenceMark is a file in the evidence of a case, which a later run may remove then.
const evidenceMark = ".podharness-evidence"

// forget removes the evidence of a case that an earlier run has left.
func (f *Flags) forget(name string) error {
	dir := filepath.Join(f.Evidence, name)
	if _, err := os.Lstat(dir); f.Evidence == "" || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if _, err := os.Lstat(filepath.Join(dir, evidenceMark)); err != nil {
		return Usagef("-o: %s is there, and no run has made it: name another directory", dir)
	}
	return safefile.RemoveAll(dir)
}

// EvidenceDir makes the directory for the evidence of a case, or of a part of it.
func (f *Flags) EvidenceDir(name string, part ...string) string {
	dir := filepath.Join(f.Evidence, name)
	// What cannot be written there is told by who writes.
	_ = os.MkdirAll(filepath.Join(append([]string{dir}, part...)...), 0o700)
	_ = os.WriteFile(filepath.Join(dir, evidenceMark), nil, 0o600)
	return filepath.Join(append([]string{dir}, part...)...)
}
