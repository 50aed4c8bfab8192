package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"

	"example.com/podharness/harness/internal/evidence"
	"example.com/podharness/spawn/podlog"
	"example.com/podharness/spawn/proc"
)

// WatchPods calls look with each name in the runtime directory, at first and whenever
// something may have appeared at it or below it, until ctx ends.
func (b *Box) WatchPods(ctx context.Context, look func(name string)) {
	run := b.Dir("run")
	watched := map[uint64]bool{}
	var dirs sync.WaitGroup
	defer dirs.Wait()
	podlog.WatchDir(ctx, run, func() {
		for _, name := range b.PodNames() {
			look(name)
			// A log that is not there yet is noticed in its own directory.
			info, err := os.Lstat(filepath.Join(run, name))
			if err != nil || !info.IsDir() || watched[info.Sys().(*syscall.Stat_t).Ino] {
				continue
			}
			watched[info.Sys().(*syscall.Stat_t).Ino] = true
			dirs.Add(1)
			go func() {
				defer dirs.Done()
				podlog.WatchDir(ctx, filepath.Join(run, name), func() { look(name) })
			}()
		}
	})
}

// PodNames returns the names in the runtime directory.
func (b *Box) PodNames() (names []string) {
	entries, _ := os.ReadDir(b.Dir("run"))
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}

// OpenLog opens the log of a pod that a client has started.
func (b *Box) OpenLog(name string) (*os.File, error) {
	run, err := b.Open("run")
	if err != nil {
		return nil, err
	}
	defer run.Close()
	return run.Open(filepath.Join(name, podlog.LogName))
}

// IsRenamed reports whether the open log of a pod is in its directory still, under another
// name, as after a rotation.
func (b *Box) IsRenamed(name string, log *os.File) bool {
	run, err := b.Open("run")
	if err != nil {
		return false
	}
	defer run.Close()
	dir, err := run.Dir(name)
	if err != nil {
		return false
	}
	defer dir.Close()
	made, err := log.Stat()
	entries, _ := dir.ReadDir(1000)
	return err == nil && slices.ContainsFunc(entries, func(entry fs.DirEntry) bool {
		info, err := entry.Info()
		return err == nil && entry.Name() != podlog.LogName && os.SameFile(info, made)
	})
}

// CheckPodDir returns an error if a pod has put a link in the place of the runtime directory,
// or of one that it is in: the log would be made, and an older one removed, elsewhere.
func (b *Box) CheckPodDir(podDir string) error {
	if filepath.Dir(podDir) != b.Dir("run") {
		return nil // the test has chosen another one
	}
	run, err := b.Open("run")
	if errors.Is(err, fs.ErrNotExist) {
		return nil // it is made again
	}
	if err != nil {
		return evidence.PrintableError(err)
	}
	return run.Close()
}

// Socket makes the relative path absolute that a client's pod has announced. What has the log
// as its stderr is the pod, or a script around it; where the system does not tell that, it is
// where clients are.
func (b *Box) Socket(name, socket string) string {
	if filepath.IsAbs(socket) {
		return socket
	}
	for _, p := range proc.Find(proc.Match{Logs: filepath.Join(b.Dir("run"), name)}) {
		dir := proc.WorkingDir(p.PID, "")
		path := filepath.Join(dir, socket)
		if _, err := os.Lstat(path); err == nil && dir != "" {
			return path
		}
	}
	return filepath.Join(b.Dir("workspace"), socket)
}

// Owner returns the process of a pod that a client has started, which may have the mark.
func (b *Box) Owner(name, socket, mark string) (*proc.Handle, error) {
	run, err := b.Open("run")
	if err != nil {
		return nil, err
	}
	defer run.Close()
	dir, err := run.Dir(name)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	owner := proc.OwnerOf(dir, socket, b.Made, mark)
	switch {
	case owner.Err != nil:
		return nil, fmt.Errorf("its socket %s: %w", podlog.Printable(socket), owner.Err)
	case owner.Handle == nil && !proc.Proves:
		return proc.Hold(proc.Of(owner.Named))
	case owner.Handle == nil:
		return nil, fmt.Errorf("whoever listens on its socket is not known to be the pod, and %w", owner.Unknown)
	}
	return owner.Handle, nil
}
