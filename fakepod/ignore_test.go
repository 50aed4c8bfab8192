package fakepod_test

import (
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestDaemonIgnoresWhatThePodIgnored(t *testing.T) {
	t.Parallel()
	r := launch(t, `ignore INT TERM; ignore HUP; on USR1 'log "got it"'; daemonize; log "{pid}"; bind; ready; serve`)
	pid := r.pid()
	assert.Equal(t, r.ready(), r.line())
	c := r.client()
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		require.NoError(t, syscall.Kill(pid, sig))
	}
	assert.Equal(t, `{"event":"pong"}`, c.ask(`{"method":"ping"}`))
	assert.Equal(t, `{"event":"done"}`, c.ask(`{"method":"run","params":{"program":"kill INT; kill TERM; kill HUP"}}`))
	require.NoError(t, syscall.Kill(pid, syscall.SIGUSR1))
	assert.Equal(t, "got it\n", r.line())
	assert.Equal(t, `{"event":"shutdown"}`, c.ask(`{"method":"shutdown"}`))
	assert.Empty(t, r.rest())
}
