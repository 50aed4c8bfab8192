package handshake_test

import (
	"flag"
	"reflect"
	"testing"

	"example.com/podharness/harness"
	"example.com/podharness/spawn"
	"example.com/podharness/spawn/fault"
	"example.com/podharness/spawn/handshake"
	"github.com/google/uuid"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func options() handshake.Options {
	id := uuid.New()
	return handshake.Options{Profile: "p", TicketRole: "r", NameFlag: "--worker", ExtraArgs: []string{"a", "b"}, Dir: "/d", ResumeFrom: &id, Faults: []fault.Fault{{Calls: "open", When: 1}}}
}

func TestEveryConfigHasEveryOption(t *testing.T) {
	t.Parallel()
	o := options()
	for i := range reflect.TypeOf(o).NumField() {
		assert.False(t, reflect.ValueOf(o).Field(i).IsZero(), "this test has forgotten %s", reflect.TypeOf(o).Field(i).Name)
	}
	var s spawn.Config
	o.To(&s)
	assert.Equal(t, o, handshake.Of(s))
	var h harness.Config
	handshake.Of(s).To(&h)
	assert.Equal(t, o, handshake.Of(h))
}

func TestFlagsAreParsedIntoAConfig(t *testing.T) {
	t.Parallel()
	want, cfg := options(), spawn.Config{Profile: "default", ExtraArgs: make([]string, 1, 10)}
	first := cfg.ExtraArgs
	flags := flag.NewFlagSet("test", flag.ContinueOnError)
	handshake.Flags(&cfg, flags)
	assert.Equal(t, "default", flags.Lookup("profile").DefValue)
	require.NoError(t, flags.Parse([]string{
		"-profile", "p", "-ticket-role", "r", "-name-flag", "--worker", "-extra-arg", "a", "-extra-arg", "b", "-dir", "/d", "-session", want.ResumeFrom.String(), "-fault", "open:when=1",
	}))
	want.ExtraArgs = []string{"", "a", "b"}
	assert.Equal(t, want, handshake.Of(cfg))
	assert.Equal(t, []string{"", "", ""}, first[:3], "what others share is left alone")
}
