package evidence

import (
	"bufio"
	"bytes"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestRedactedCopyKeepsTheTimesOfLines(t *testing.T) {
	t.Parallel()
	const log = "one\nsesame\nthree sesame and more\nlast sesame"
	at := func(size int) Stamp { return Stamp{At: time.Unix(int64(size), 0), Size: int64(size)} }
	var out bytes.Buffer
	c := &redactedCopy{out: bufio.NewWriter(&out), redact: func(line string) string { return strings.ReplaceAll(line, "sesame", "-") }}
	c.stamps = []Stamp{at(2), at(4), at(11), at(14), at(33), at(len(log))}
	c.copy(io.NewSectionReader(strings.NewReader(log), 0, int64(len(log))))
	require.NoError(t, c.err)
	require.NoError(t, c.out.Flush())
	assert.Equal(t, "one\n-\nthree - and more\nlast -", out.String())
	var sizes []int64
	for i, s := range c.moved {
		assert.Equal(t, c.moved[i].At, s.At)
		sizes = append(sizes, s.Size)
	}
	assert.Equal(t, []int64{2, 4, 6, 9, 23, int64(out.Len())}, sizes)
	assert.Equal(t, "-\n\n-", string(redactText([]byte("sesame\n\nsesame"), c.redact)))
}
