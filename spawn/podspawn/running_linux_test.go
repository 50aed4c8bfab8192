//go:build !portable

package podspawn_test

import (
	"fmt"
	"os"
	"regexp"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestListShowsWhatOnlyLinuxTells has a pod without a pid file, with a socket that it
// names by another way, and one that is stopped.
func TestListShowsWhatOnlyLinuxTells(t *testing.T) {
	dir, link := runtimeDir(t), t.TempDir()+"/link"
	require.NoError(t, os.Symlink(dir+"/alpha", link))
	alpha := started(t, "bind; ready '{name}' "+link+"/sock; serve", "alpha")
	require.NoError(t, os.Remove(dir+"/alpha/pid"))
	beta := started(t, "ready", "beta")
	require.NoError(t, syscall.Kill(beta, syscall.SIGSTOP))
	want := regexp.MustCompile(fmt.Sprintf(`^alpha +answers +process %d +\ds +%s/sock\nbeta +stopped +process %d `, alpha, link, beta))
	assert.Eventually(t, func() bool { // a process stops when all its threads have
		stdout, _, _ := run("-list")
		return want.MatchString(stdout)
	}, 10*time.Second, time.Millisecond)
	_, stderr, status := run("-stop", "alpha")
	assert.Zero(t, status, stderr)
}
