// Package lines is the inside of harness: it reads the lines of JSON that a pod sends.
package lines

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Most is how many bytes a line may have, and MostText is that in words.
const (
	Most     = 16 << 20
	MostText = "16 MiB"
)

// small is how much room for a line is kept for the next one.
const small = 64 << 10

// A Reader reads lines, which end with a newline. One goroutine at a time uses it.
type Reader struct {
	in      *bufio.Reader
	pending []byte // of a line that is longer than the buffer, or unfinished
}

// New returns a reader.
func New(from io.Reader) *Reader { return &Reader{in: bufio.NewReaderSize(from, 16<<10)} }

// Line returns the next line without its line ending, or the error of the reader that it reads
// from, as explain returns it, with what there is of the line. After an error it can be called
// again.
func (r *Reader) Line(explain func(error) error) (string, error) {
	for {
		part, err := r.in.ReadSlice('\n')
		if err == nil && len(r.pending) == 0 {
			return text(part), nil
		}
		r.pending = append(r.pending, part...)
		switch {
		case len(r.pending) > Most+len("\r\n"):
			r.pending = r.pending[:Most+len("\r\n")]
			return "", fmt.Errorf("its line is longer than "+MostText+": %.200q", r.pending)
		case err == nil:
			line := text(r.pending)
			if r.pending = r.pending[:0]; cap(r.pending) > small {
				r.pending = nil
			}
			return line, nil
		case errors.Is(err, bufio.ErrBufferFull):
		case len(r.pending) > 0:
			return "", fmt.Errorf("%w (its line has no newline: %.200q)", explain(err), r.pending)
		default:
			return "", explain(err)
		}
	}
}

func text(line []byte) string { return strings.TrimSuffix(string(line[:len(line)-1]), "\r") }

// Event returns what a line is about that is a JSON object: its own "event", however that is
// spelled; "" = it is none, or has none.
func Event(line string) (event string) {
	var object map[string]json.RawMessage
	if json.Unmarshal([]byte(line), &object) == nil {
		_ = json.Unmarshal(object["event"], &event)
	}
	return event
}
