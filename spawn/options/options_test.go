package options_test

import (
	"flag"
	"reflect"
	"testing"

	"example.com/podharness/harness"
	"example.com/podharness/spawn"
	"example.com/podharness/spawn/fault"
	"example.com/podharness/spawn/options"
	"github.com/google/uuid"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func example() options.Options {
	id := uuid.New()
	return options.Options{Profile: "p", TicketRole: "r", NameFlag: "--worker", ExtraArgs: []string{"a", "b"}, Dir: "/d", ResumeFrom: &id, Faults: []fault.Fault{{Calls: "open", When: 1}}}
}

func TestEveryConfigHasEveryOption(t *testing.T) {
	t.Parallel()
	o := example()
	for i := range reflect.TypeOf(o).NumField() {
		assert.False(t, reflect.ValueOf(o).Field(i).IsZero(), "this test has forgotten %s", reflect.TypeOf(o).Field(i).Name)
	}
	var s spawn.Config
	o.To(&s)
	assert.Equal(t, o, options.Of(s))
	var h harness.Config
	options.Of(s).To(&h)
	assert.Equal(t, o, options.Of(h))
}

func TestFlagsAreParsedIntoAConfig(t *testing.T) {
	t.Parallel()
	want, cfg := example(), spawn.Config{Profile: "default", ExtraArgs: make([]string, 1, 10)}
	first := cfg.ExtraArgs
	flags := flag.NewFlagSet("test", flag.ContinueOnError)
	options.Flags(&cfg, flags)
	assert.Equal(t, "default", flags.Lookup("profile").DefValue)
	require.NoError(t, flags.Parse([]string{
		"-profile", "p", "-ticket-role", "r", "-name-flag", "--worker", "-extra-arg", "a", "-extra-arg", "b", "-dir", "/d", "-session", want.ResumeFrom.String(), "-fault", "open:when=1",
	}))
	want.ExtraArgs = []string{"", "a", "b"}
	assert.Equal(t, want, options.Of(cfg))
	assert.Equal(t, []string{"", "", ""}, first[:3], "what others share is left alone")
}
