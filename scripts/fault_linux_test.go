//go:build !portable && (amd64 || arm64)

package scripts_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestPodstartUnderFaults(t *testing.T) {
	t.Parallel()
	needHold(t)
	log, failed := runScript(t, `
! podstart -fault 'bind:path={runtime}/{name}/sock:error=EADDRINUSE' alpha
stderr 'address already in use'
stderr 'fault: call 1 of bind .*/alpha/sock by thread .*: EADDRINUSE'
! podstart -fault 'write:path=**/stderr.log:signal=KILL:when=1' alpha
stderr 'signal: killed'
podstart -fault 'bind:error=EADDRINUSE:when=2' -hold look alpha
podlog alpha '^podharness: its socket is listened on'
podstop alpha
`)
	assert.False(t, failed, log)
	f := failureOf(t, "podstart -fault nonsense:error=EIO alpha", patience)
	require.NotNil(t, f)
	assert.ErrorContains(t, f.Err, `unknown system call "nonsense"`)
}

func TestPodspawnUnderFaults(t *testing.T) {
	t.Parallel()
	needHold(t)
	log, failed := runScript(t, `
! podspawn -json -fault 'bind:path={runtime}/{name}/sock:error=EADDRINUSE' alpha
stdout '"verdict":"exited early"'
stderr 'address already in use'
podspawn -json -fault 'accept:path=**/sock:delay=1ms' beta
stdout '"verdict":"ready"'
podadopt beta
podsend beta
podstop beta
`)
	assert.False(t, failed, log)
}
