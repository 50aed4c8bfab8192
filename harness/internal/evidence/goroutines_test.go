package evidence

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func goroutinesOf(text string) []Goroutine {
	return goroutinesIn(io.NewSectionReader(strings.NewReader(text), 0, int64(len(text))), 0, nil)
}

// dump is what Go 1.26 writes on SIGQUIT, shortened.
const dump = `goroutine 99 [running]:
main.before()
	/src/before.go:1 +0x1
` + "\n" + `SIGQUIT: quit
PC=0x47f3a1 m=0 sigcode=0

goroutine 0 gp=0x5c9f00 m=0 mp=0x5cab60 [idle]:
runtime.futex(0x5cb2a0, 0x80, 0x0)
	/go/src/runtime/sys_linux_amd64.s:557 +0x21 fp=0x7ffc sp=0x7ffd pc=0x47f3a1

goroutine 1 gp=0xc000002380 m=nil [IO wait, 3 minutes]:
runtime.gopark(0x0?, 0x0?, 0x0?)
	/go/src/runtime/proc.go:435 +0xce fp=0xc0 sp=0xc1 pc=0x47
internal/poll.(*FD).Accept(0xc00010c000)
	/go/src/internal/poll/fd_unix.go:613 +0x28c
net.(*UnixListener).Accept(0xc0000b2000)
	/go/src/net/unixsock.go:260 +0x30
main.main()
	/src/agent/main.go:63 +0x2e5

goroutine 2 gp=0xc000002e00 m=nil [force gc (idle)]:
runtime.gopark(0x0?, 0x0?)
	/go/src/runtime/proc.go:435 +0xce
created by runtime.init.7 in goroutine 1
	/go/src/runtime/proc.go:336 +0x1a

goroutine 7 gp=0xc0000036c0 m=nil [sync.Mutex.Lock, 1 minutes]:
sync.runtime_SemacquireMutex(0x1?, 0x0?, 0x0?)
	/go/src/runtime/sema.go:95 +0x25
sync.(*Mutex).Lock(...)
	/go/src/sync/mutex.go:46
example.com/bank/agent.(*account).withdraw(0xc0000140a8, {0x1, 0x2})
	/src/agent/account.go:31 +0x5c
created by main.main in goroutine 1
	/src/agent/main.go:70 +0x2d

goroutine 8 gp=0xc000003880 m=nil [sync.RWMutex.RLock]:
sync.runtime_SemacquireRWMutexR(0x0?)
	/go/src/runtime/sema.go:100 +0x25
main.deposit[...](0xc0000140a8)
	/src/agent/main.go:24 +0x5c

goroutine 9 gp=0xc000003a40 m=3 mp=0xc000073008 [running]:
	goroutine running on other thread; stack unavailable
created by main.main in goroutine 1
	/src/agent/main.go:80 +0x2d

goroutine 10 gp=0xc000003c00 m=nil [syscall, 9 minutes]:
os/signal.signal_recv()
	/go/src/runtime/sigqueue.go:152 +0x29
os/signal.loop()
	/go/src/os/signal/signal_unix.go:23 +0x13

goroutine 11 [sleep, 5 minutes, locked to thread]:
time.Sleep(0x1)
	/go/src/runtime/time.go:300 +0xf2

goroutine 12 [chan receive, 2 minutes]:
main.worker(0x1)
	/src/agent/main.go:90 +0xf2

goroutine 13 [chan receive, 2 minutes]:
main.worker(0x2)
	/src/agent/main.go:90 +0xf2

rax    0xca
`

func TestGoroutines(t *testing.T) {
	t.Parallel()
	log := io.NewSectionReader(strings.NewReader(dump), 0, int64(len(dump)))
	all := goroutinesIn(log, int64(strings.Index(dump, "SIGQUIT")), func(line string) string { return strings.ReplaceAll(line, "withdraw", "SECRET") })
	var lines []string
	for _, g := range all {
		lines = append(lines, g.String())
	}
	assert.Equal(t, []string{
		"goroutine 7, sync.Mutex.Lock for 1m: agent.(*account).SECRET at agent/account.go:31",
		"goroutine 8, sync.RWMutex.RLock: main.deposit[...] at agent/main.go:24",
		"goroutine 9, running, at a place that the program could not tell, begun in main.main at agent/main.go:80",
		"goroutine 11, sleep for 5m: time.Sleep at runtime/time.go:300",
		"goroutine 1, IO wait for 3m: main.main at agent/main.go:63",
		"goroutine 12 and 1 like it, chan receive for 2m: main.worker at agent/main.go:90",
	}, lines)
	require.Len(t, all, 6)
	assert.Equal(t, Goroutine{ID: 7, Wait: "sync.Mutex.Lock", For: time.Minute, Frames: []Frame{{"example.com/bank/agent.(*account).SECRET", "/src/agent/account.go", 31}}, Creator: Frame{"main.main", "/src/agent/main.go", 70}}, all[0])
}

func TestOfManyGoroutinesThoseAreKeptThatWaitLongest(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	for i := range 10_000 {
		fmt.Fprintf(&b, "goroutine %d [chan send, %d minutes]:\nmain.f%d()\n\t/src/main.go:%d +0x1\n\n", i+1, i%5000, i%5000, i)
	}
	all := goroutinesOf(b.String())
	require.Len(t, all, maxGoroutines)
	for i, g := range all {
		assert.Equal(t, time.Duration(4999-i/2)*time.Minute, g.For)
	}
}

func FuzzGoroutines(f *testing.F) {
	f.Add(dump)
	f.Add("goroutine 1 [")
	f.Add("goroutine -1 [x]:\nf()\n\t:1\n")
	f.Add("goroutine 1 [, , 99999999999999 minutes]:\n\n\tx\n(\n\t:-1\ncreated by \n\t\x1b:0\n")
	f.Fuzz(func(t *testing.T, text string) {
		all := goroutinesOf(text)
		assert.LessOrEqual(t, len(all), maxGoroutines)
		for _, g := range all {
			assert.True(t, g.isPlausible())
			assert.GreaterOrEqual(t, g.ID, 0)
			assert.GreaterOrEqual(t, g.For, time.Duration(0))
			assert.NotRegexp(t, "[\x00-\x1f]", g.String())
			assert.Less(t, len(g.String()), 16<<10)
		}
	})
}
