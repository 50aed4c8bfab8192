package harness

import (
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
)

// report writes the logs of the test's pods where they outlive the test, and
// tells where. It is called once the test has failed and its pods are gone.
func (b *sandbox) report() {
	b.tb.Helper()
	if len(b.logs) == 0 {
		return
	}
	dir, err := artifactDir(b.tb)
	if err != nil {
		b.tb.Logf("harness: the logs of the pods are lost: %v", err)
		return
	}
	seen := map[string]int{}
	for _, log := range b.logs {
		name := log.pod
		if !filepath.IsLocal(name) || filepath.Base(name) != name {
			continue // a name that Start refused: there is no log
		}
		if seen[log.pod]++; seen[log.pod] > 1 {
			name = fmt.Sprintf("%s.%d", name, seen[log.pod])
		}
		path := filepath.Join(dir, name+".log")
		if err := writeFile(path, log.reader()); err != nil {
			b.tb.Logf("harness: the log of pod %s is lost: %v", log.pod, err)
			continue
		}
		tail := log.tail()
		if tail == "" {
			tail = " nothing"
		}
		b.tb.Logf("harness: pod %s\n\twhole log: %s\n\tlast lines:%s", log.pod, path, tail)
	}
}

func writeFile(path string, from io.Reader) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(file, from)
	if closeErr := file.Close(); err == nil {
		err = closeErr
	}
	return err
}

// artifactDir returns a directory that is kept: the test's artifact directory
// if there is one, else a temporary one.
func artifactDir(tb TB) (string, error) {
	if dir := ArtifactDir(tb); dir != "" {
		return dir, nil
	}
	return os.MkdirTemp("", "podharness-failed-")
}

// ArtifactDir returns the artifact directory of a test that has one which
// outlives it, else "". It is for those who adapt a T to TB: testing's own
// ArtifactDir is removed with the test unless go test was given -artifacts.
func ArtifactDir(t any) string {
	artifacts, ok := t.(interface{ ArtifactDir() string })
	if !ok {
		return ""
	}
	if _, ok := t.(testing.TB); ok {
		if kept := flag.Lookup("test.artifacts"); kept == nil || kept.Value.String() != "true" {
			return ""
		}
	}
	return artifacts.ArtifactDir()
}
