package oracle

import (
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// A Program is the steps of a program, one string each.
type Program []string

// String returns the program in the step language.
func (p Program) String() string { return strings.Join(p, "; ") + ";" }

// Random returns n random programs that have a single outcome for a client with a
// ready timeout. The same seed gives the same programs.
func Random(seed uint64, n int, timeout time.Duration) (programs []Program) {
	r := rand.New(rand.NewPCG(seed, 0))
	pick := func(words ...string) string { return words[r.IntN(len(words))] }
	for len(programs) < n {
		var p Program
		for range r.IntN(6) {
			p = append(p, pick(
				"log loading", `log "caf\xe9"`, `raw "half a line"`, `raw "\n"`, `raw "YOI-READY\t"`, `raw "{name}\t{socket}\n"`, "flood 100KiB", "flood 200KiB 0",
				"bind", "bind", "bind", "socket", "listen", "unlink log", "unlink sock", "ready", "ready", "ready", "ready '{name}-other'", "ready '{name}' '{dir}/pid'",
				"sleep 1ms", "sleep 400ms", "child", "ignore INT TERM", "out hello"))
		}
		p = append(p, pick("serve", "serve", "hang", "exit 0", "exit 7", "kill KILL", "kill TERM", "stop"))
		if _, err := Expect(p.String(), timeout); err == nil {
			programs = append(programs, p)
		}
	}
	return programs
}

// Smaller returns the programs with one step less that have a single outcome.
func (p Program) Smaller(timeout time.Duration) (all []Program) {
	for i := range p {
		q := slices.Delete(slices.Clone(p), i, i+1)
		if _, err := Expect(q.String(), timeout); err == nil && len(q) > 0 {
			all = append(all, q)
		}
	}
	return all
}
