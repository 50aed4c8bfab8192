package harness

import (
	"fmt"
	"os"
	"sync"

	"example.com/podharness/harness/internal/evidence"
	"example.com/podharness/harness/internal/watchdog"
	"github.com/google/uuid"
)

// binary is what the tests of this test binary have in common: made when the first sandbox
// is.
type binary struct {
	*watchdog.Parent
	base         string   // how the path of a directory for evidence begins
	few          bool     // of those of earlier runs only the newest are kept
	mostEvidence int64    // bytes for each failed test
	kept         []string // what the marks of pods begin with that live on; under thisBinaryMu
}

var (
	thisBinaryMu sync.Mutex // guards thisBinary
	thisBinary   *binary    // nil until the first sandbox is made
)

// stderr is that of the test binary: a test may put another one in its place.
var stderr = os.Stderr

func makeBinary() (*binary, error) {
	thisBinaryMu.Lock()
	defer thisBinaryMu.Unlock()
	if thisBinary != nil {
		return thisBinary, nil
	}
	most, err := evidence.MaxBytes()
	if err != nil {
		return nil, err
	}
	root, err := mkdirTemp(shortTempDir(), "pod")
	if err != nil {
		return nil, err
	}
	b := &binary{base: artifacts, mostEvidence: most}
	if b.base == "" {
		b.base, b.few = artifactsBase()
	}
	b.base = evidence.Prefix(b.base, b.few)
	if b.Parent, err = watchdog.Start(uuid.NewString(), root, b.base, stderr); err != nil {
		_ = os.RemoveAll(root)
		return nil, fmt.Errorf("start the watchdog that ends pods when this process dies: %w", evidence.PrintableError(err))
	}
	thisBinary = b
	return b, nil
}
