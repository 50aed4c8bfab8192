package evidence

import (
	"io"
	"strings"
	"testing"

	"example.com/podharness/fakepod/replay"
	"github.com/stretchr/testify/assert"
)

func TestAnswersInConversations(t *testing.T) {
	t.Parallel()
	const ask, pong, ask2, tick = `{"method":"ping"}`, `{"event":"pong"}`, `{"method":"list","params":[1]}`, `{"event":"tick"}`
	for name, tc := range map[string]struct {
		lines []string
		want  []replay.Answer
	}{
		"nothing":               {nil, nil},
		"an answer":             {[]string{"1 = connected by TestA", "1 < {}", "1 > " + ask, "1 < " + pong, "1 = it has closed the connection"}, []replay.Answer{{Method: "ping", Line: pong}}},
		"without an end":        {[]string{"1 > " + ask, "1 < " + pong}, []replay.Answer{{Method: "ping", Line: pong}}},
		"the same again":        {[]string{"1 > " + ask, "2 > " + ask, "2 < " + pong, "1 < " + pong}, []replay.Answer{{Method: "ping", Line: pong}}},
		"another one":           {[]string{"1 > " + ask, "1 < " + pong, "1 > " + ask, "1 < " + tick, "1 > " + ask, "1 < " + pong}, nil},
		"an event between":      {[]string{"1 > " + ask, "1 < " + tick, "1 < " + pong, "2 > " + ask, "2 < " + pong}, nil},
		"two methods":           {[]string{"1 > " + ask2, "1 < []", "1 > " + ask, "1 < " + pong}, []replay.Answer{{Method: "list", Line: "[]"}, {Method: "ping", Line: pong}}},
		"no answer":             {[]string{"1 > " + ask, "1 = x", "2 > " + ask, "2 < " + pong}, []replay.Answer{{Method: "ping", Line: pong}}},
		"requests in a row":     {[]string{"1 > " + ask, "1 > " + ask2, "1 < " + pong, "1 < []"}, nil},
		"a stop":                {[]string{`1 > {"method":"shutdown"}`, `1 < {"event":"bye"}`}, nil},
		"an answer that is cut": {[]string{"1 > " + ask, `1 < {"event":"pong","x":"yyy… (9 bytes more)`}, nil},
		"a request that is cut": {[]string{`1 > {"method":"ping","params":"xxx… (9 bytes more)`, "1 < " + pong}, nil},
		"no JSON":               {[]string{"1 > ping", "1 < pong", "1 > " + ask, "1 < pong"}, nil},
		"garbage":               {[]string{"", "x", "1", "1 ?", "1 > ", "1 < "}, nil},
	} {
		text := ""
		for _, line := range tc.lines {
			text += "#" + line + "\n"
		}
		assert.Equal(t, tc.want, answersIn(io.NewSectionReader(strings.NewReader(text), 0, int64(len(text)))), name)
	}
}
