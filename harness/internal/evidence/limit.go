package evidence

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
)

// MaxBytes is how many bytes the evidence of a test may have.
func MaxBytes() (int64, error) {
	const name, usual, most = "PODHARNESS_ARTIFACTS_MAX", 64, 1 << 20
	text := os.Getenv(name)
	if text == "" {
		return usual << 20, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > most {
		return usual << 20, fmt.Errorf("%s=%q is not a number of MiB between 1 and %d", name, text, most)
	}
	return int64(n) << 20, nil
}

// An excerpt is a log, or of one that is too long the beginning and the end, in
// whole lines.
type excerpt struct {
	head, tail *io.SectionReader
	left       int64 // bytes between them
}

// excerpts returns an excerpt of each log, so that all together cost at most so much:
// their bytes, and something for each line. What the small ones do not need, the
// large ones have.
func (r *Record) excerpts(most, perLine int64) []excerpt {
	all := make([]excerpt, len(r.Lives))
	costs := make([]int64, len(r.Lives))
	for i, a := range r.Lives {
		all[i] = excerptOf(SectionOf(a.file), most)
		costs[i] = all[i].cost(perLine)
	}
	slices.Sort(costs)
	share := most
	for i, cost := range costs {
		share = most / int64(len(costs)-i)
		most -= min(cost, share)
	}
	for i, a := range r.Lives {
		for cost := all[i].cost(perLine); cost > share; cost = all[i].cost(perLine) {
			part := float64(share) / float64(cost)
			all[i] = excerptOf(SectionOf(a.file), int64(part*float64(all[i].cost(0))))
		}
	}
	return all
}

func excerptOf(log *io.SectionReader, most int64) excerpt {
	if log.Size() <= most {
		return excerpt{log, io.NewSectionReader(log, log.Size(), 0), 0}
	}
	head, tail := most/2, log.Size()-most/2
	part := make([]byte, min(64<<10, most/2))
	n, _ := log.ReadAt(part, head-int64(len(part)))
	if end := bytes.LastIndexByte(part[:n], '\n'); end >= 0 {
		head -= int64(len(part) - end - 1)
	}
	n, _ = log.ReadAt(part, tail)
	tail += int64(bytes.IndexByte(part[:n], '\n') + 1)
	return excerpt{io.NewSectionReader(log, 0, head), io.NewSectionReader(log, tail, log.Size()-tail), tail - head}
}

func (e excerpt) cost(perLine int64) int64 {
	cost := e.head.Size() + e.tail.Size()
	if perLine == 0 {
		return cost
	}
	part := make([]byte, 64<<10)
	for _, section := range []*io.SectionReader{e.head, e.tail} {
		for at := int64(0); at < section.Size(); at += int64(len(part)) {
			n, _ := section.ReadAt(part, at)
			cost += perLine * int64(bytes.Count(part[:n], []byte{'\n'}))
		}
	}
	return cost
}

func (e excerpt) note() string {
	return fmt.Sprintf("[podharness: %d bytes are left out here]", e.left)
}

func (e excerpt) copy(w io.Writer, a *Attempt) error {
	if a.isSecret() {
		return second(io.WriteString(w, "[podharness: the log is not shown: the test binary, which has Config.Redact, has ended]\n"))
	}
	if a.Log != "" && a.file == nil {
		return second(io.WriteString(w, "[podharness: the log is lost]\n"))
	}
	_, err := io.Copy(w, e.head)
	if e.left > 0 && err == nil {
		_, err = fmt.Fprintf(w, "%s\n", e.note())
	}
	err = cmp.Or(err, second(io.Copy(w, e.tail)))
	if a.NewLog != "" && err == nil {
		_, err = fmt.Fprintf(w, "[podharness: the log is another file from here on: %s]\n", a.NewLog)
	}
	return err
}
