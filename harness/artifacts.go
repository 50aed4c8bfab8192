package harness

import (
	"flag"
	"os"
	"path/filepath"
	"testing"
)

// artifacts is where the user wants evidence to go; "" = they do not say. A test may
// change its directory later.
var artifacts = func() string {
	dir := os.Getenv("PODHARNESS_ARTIFACTS")
	if abs, err := filepath.Abs(dir); dir != "" && err == nil {
		return abs
	}
	return dir
}()

// artifactDir returns the artifact directory of a test; "" = it does not outlive the
// test, as testing's own does only with go test -artifacts. Asking makes that one: it is
// done only with mayMake.
func artifactDir(tb any, mayMake bool) string {
	t, ok := optional[interface{ ArtifactDir() string }](tb)
	if !ok {
		return ""
	}
	if _, ok := t.(testing.TB); ok && !(mayMake && keepsArtifacts()) {
		return ""
	}
	return t.ArtifactDir()
}

func keepsArtifacts() bool {
	kept := flag.Lookup("test.artifacts")
	return kept != nil && kept.Value.String() == "true"
}

// artifactsBase returns where to make a directory for the evidence of a test that has
// none, and whether only a few may be there.
func artifactsBase() (dir string, few bool) {
	if !keepsArtifacts() {
		return tempDir, true
	}
	dir, err := filepath.Abs(filepath.Join(flag.Lookup("test.outputdir").Value.String(), "_artifacts"))
	return dir, err != nil
}
