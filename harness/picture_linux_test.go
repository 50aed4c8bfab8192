//go:build !portable

package harness_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"example.com/podharness/harness"
	"example.com/podharness/spawn"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// picture is what the README shows: report.html of a test that fails.
const picture = "testdata/report.png"

func TestPictureIsSmall(t *testing.T) {
	t.Parallel()
	info, err := os.Stat(picture)
	require.NoError(t, err)
	assert.Less(t, info.Size(), int64(200<<10))
}

// TestPicture makes the picture anew:
//
//	PODHARNESS_PICTURE=1 go test ./harness -run '^TestPicture$'
func TestPicture(t *testing.T) {
	if os.Getenv("PODHARNESS_PICTURE") == "" {
		t.Skip("PODHARNESS_PICTURE=1 makes " + picture)
	}
	var browser string
	for _, name := range []string{"chromium", "chromium-browser", "chromium-headless-shell", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			browser = path
		}
	}
	require.NotEmpty(t, browser, "it needs Chromium")
	tb := harness.NewTB(t)
	tb.TestName = "TestTransfersMeet"
	leaks := fake("log 'opens its session store'; bind; ready; serve; hang")
	leaks.Name = "tools"
	tools := harness.StartPod(tb, leaks)
	bank := harness.StartPod(tb, harness.Config{Name: "bank", Command: spawn.Command{Program: harness.Build(t, "./testdata/deadlock")}, StopGrace: time.Second})
	for range 60 { // what rises is seen after a few seconds
		conn, err := net.Dial("unix", tools.SocketPath)
		require.NoError(t, err)
		defer conn.Close()
		<-time.After(100 * time.Millisecond)
	}
	tb.Run(func() {
		first, second := bank.Talk(patience), bank.Talk(patience)
		first.Write("deposit")
		second.Write("withdraw")
		second.WaitLine("done", 2*time.Second)
	})
	tb.End()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	to, err := filepath.Abs(picture)
	require.NoError(t, err)
	out, err := exec.CommandContext(ctx, browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1280,990", "--user-data-dir="+t.TempDir(),
		"--screenshot="+to, fmt.Sprintf("file://%s/report.html", tb.Artifacts)).CombinedOutput()
	require.NoError(t, err, "%s", out)
}
