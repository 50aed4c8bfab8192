package spawn_test

import (
	"strings"
	"testing"

	"example.com/podharness/spawn"
	"github.com/stretchr/testify/assert"
)

func TestErrorShowsTheLastLinesAsABlock(t *testing.T) {
	t.Parallel()
	e := &spawn.Error{Err: spawn.ErrExited, Pod: "alpha", PID: 7, LogPath: "/run/alpha/stderr.log", Tail: []string{"one\x1b", "two"}, Reason: "panic: no store", Unfinished: "half", LogTrouble: "the disk is full"}
	assert.True(t, strings.HasPrefix(e.Error(), `pod exited before becoming ready: panic: no store | … | one\x1b | two; unfinished line: "half"`+"\n"), e.Error())
	e.Block = true
	assert.Equal(t, `pod exited before becoming ready: panic: no store; unfinished line: "half"
	pod: alpha (process 7)
	log: /run/alpha/stderr.log
	last lines:
		one\x1b
		two
	note: the disk is full`, e.Error())
	e.Reason, e.Unfinished, e.Tail = "", "", []string{"one"}
	assert.True(t, strings.HasPrefix(e.Error(), "pod exited before becoming ready: one\n\tpod:"), "a single line needs no block: %s", e.Error())
}
