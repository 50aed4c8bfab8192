package evidence

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strings"

	"example.com/podharness/spawn/podlog"
)

// Findings are what the log of a pod has that says that something is wrong, though the pod
// works.
type Findings struct {
	ReadyAgain string   // the second ready line; "" = there is none
	Crash      []string // the first lines of the first report of a data race, or of a panic in Go
}

var crashes = [][]byte{[]byte("WARNING: DATA RACE"), []byte("panic: "), []byte("fatal error: ")}

// Findings reads the log once: of a long one the first 16 MiB and the last.
func (l *Log) Findings() (f Findings) {
	const most, crashLines, longest = 16 << 20, 12, 200
	log := l.Reader()
	ready, after := false, crashLines
	look := func(line []byte, whole bool) {
		switch {
		case !whole || !podlog.IsReady(line):
		case !ready:
			ready = true
		case f.ReadyAgain == "":
			f.ReadyAgain = cutLine(l.Redact(podlog.LineText(line, false)), 5*longest)
		}
		for _, crash := range crashes {
			if f.Crash == nil && bytes.HasPrefix(line, crash) {
				after = 0
			}
		}
		if after < crashLines && len(line) > 0 {
			f.Crash = append(f.Crash, cutLine(l.Redact(podlog.LineText(line, false)), longest))
			after++
		}
	}
	eachLine(io.NewSectionReader(log, 0, min(log.Size(), most)), look)
	if from := max(most, log.Size()-most); from < log.Size() {
		eachLine(io.NewSectionReader(log, from, log.Size()-from), look)
	}
	return f
}

// eachLine calls f with the beginning of each line, without its newline, and whether it has one.
func eachLine(log *io.SectionReader, f func(line []byte, whole bool)) {
	for r := bufio.NewReaderSize(log, int(min(64<<10, log.Size()+1))); ; {
		line, err := r.ReadSlice('\n')
		f(bytes.TrimRight(line, "\r\n"), err == nil || errors.Is(err, bufio.ErrBufferFull))
		for errors.Is(err, bufio.ErrBufferFull) {
			_, err = r.ReadSlice('\n')
		}
		if err != nil {
			return
		}
	}
}

func cutLine(line string, most int) string {
	return strings.ToValidUTF8(line[:min(len(line), most)], "")
}
