package lines

import (
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

func same(err error) error { return err }

func TestLines(t *testing.T) {
	t.Parallel()
	long, longer := strings.Repeat("x", 40<<10), strings.Repeat("y", Most)
	r := New(strings.NewReader("one\ntwo\r\n\n" + long + "\n" + longer + "\r\nhalf"))
	for _, want := range []string{"one", "two", "", long, longer} {
		line, err := r.Line(same)
		assert.NoError(t, err)
		assert.True(t, line == want, "%.20q, want %.20q", line, want)
	}
	assert.LessOrEqual(t, cap(r.pending), small, "the room of a long line is not kept")
	for range 2 {
		_, err := r.Line(same)
		assert.ErrorIs(t, err, io.EOF)
		assert.EqualError(t, err, `EOF (its line has no newline: "half")`)
	}
}

func TestLineThatIsTooLong(t *testing.T) {
	t.Parallel()
	r := New(strings.NewReader(strings.Repeat("z", 4*Most)))
	for range 3 {
		_, err := r.Line(same)
		assert.EqualError(t, err, `its line is longer than 16 MiB: "`+strings.Repeat("z", 200)+`"`)
		assert.Less(t, cap(r.pending), 2*Most)
	}
}

func TestEvent(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		`{"event":"snapshot","data":{}}`:                "snapshot",
		` { "event" : "snapshot" } `:                    "snapshot",
		`{"data":{"event":"hello"},"event":"alert"}`:    "alert",
		`{"\u0065vent":"\u0073napshot"}`:                "snapshot",
		`{"event":"hello","data":{"event":"snapshot"}}`: "hello",
		`{"EVENT":"snapshot"}`:                          "",
		`{"event":["snapshot"]}`:                        "",
		`{"event":null}`:                                "",
		`["event","snapshot"]`:                          "",
		`"event":"snapshot"`:                            "",
		`{"event":"snapshot"`:                           "",
		`{"event":"snapshot"} {}`:                       "",
		`null`:                                          "",
		``:                                              "",
		"{\"event\":\"snapshot\",\"data\":\"\xff not UTF-8\"}": "snapshot",
	} {
		assert.Equal(t, want, Event(line), line)
	}
}
