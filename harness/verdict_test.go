package harness_test

import (
	"strings"
	"syscall"
	"testing"

	"example.com/podharness/harness"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestStatusOfAPodThatIsStopped has pods end with status 66, as those do in which the race
// detector has found something.
func TestStatusOfAPodThatIsStopped(t *testing.T) {
	t.Parallel()
	const what = "pod alpha was stopped by the shutdown request and ended with exit status 66, not 0\n"
	for name, tc := range map[string]struct {
		status []int
		act    func(t *testing.T, tb *harness.FakeTB, pod *harness.Pod)
		fails  bool
	}{
		"at the end of the test": {fails: true},
		"by the test":            {act: func(t *testing.T, _ *harness.FakeTB, p *harness.Pod) { assert.ErrorContains(t, p.Stop(), what) }, fails: true},
		"by a restart": {act: func(t *testing.T, _ *harness.FakeTB, p *harness.Pod) {
			_, err := p.TryRestart()
			assert.ErrorContains(t, err, what)
		}, fails: true},
		"another is allowed": {status: []int{1, 65}, fails: true},
		"it is allowed":      {status: []int{1, 66}},
		"all are allowed":    {status: []int{-1}},
		"after a signal of the test's": {act: func(t *testing.T, _ *harness.FakeTB, p *harness.Pod) {
			assert.NoError(t, p.Signal(syscall.SIGHUP))
		}},
		"after a pause": {act: func(_ *testing.T, _ *harness.FakeTB, p *harness.Pod) { p.Suspend(); p.Resume() }, fails: true},
		"killed":        {act: func(t *testing.T, _ *harness.FakeTB, p *harness.Pod) { assert.NoError(t, p.Kill()) }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tb := harness.NewTB(t)
			cfg := fake("ignore HUP; bind; ready; serve")
			cfg.Name, cfg.StopStatus, cfg.MustStopGracefully = "alpha", tc.status, true
			cfg.Shutdown = []byte(`{"method":"run","params":{"program":"log 'a race'; exit 66"}}` + "\n")
			pod := harness.StartPod(tb, cfg)
			if tc.act != nil {
				tc.act(t, tb, pod)
			}
			log := tb.End()
			assert.Equal(t, tc.fails, tb.Failed(), log)
			if tc.fails {
				assert.Equal(t, 1, strings.Count(log, what), log)
				assert.Regexp(t, `\tnote: Config\.StopStatus.*\n\tlog: \S+/alpha.log\n\tlast lines:\n(\t\t.*\n)+\t\ta race\n`, log)
			} else {
				assert.NotContains(t, log, "66")
			}
		})
	}
	t.Run("of a test that has failed", func(t *testing.T) {
		t.Parallel()
		tb := harness.NewTB(t)
		pod := harness.StartPod(tb, harness.Config{Name: "alpha", Shutdown: []byte(`{"method":"run","params":{"program":"exit 66"}}` + "\n")})
		tb.Errorf("its own reason")
		assert.NotContains(t, tb.End(), what, "nothing is added")
		require.NotNil(t, pod.State())
		assert.Equal(t, 66, pod.State().ExitCode())
	})
}

func TestSecondReadyLineFailsTheTest(t *testing.T) {
	t.Parallel()
	const what = `harness: pod alpha wrote a second ready line: "YOI-READY\t`
	for name, tc := range map[string]struct {
		program string
		allow   bool
		act     func(tb *harness.FakeTB, p *harness.Pod)
		fails   bool
	}{
		"at once": {program: "duplicate-ready", fails: true},
		"later": {program: "bind; ready; serve; ready; log after; serve", fails: true,
			act: func(_ *harness.FakeTB, p *harness.Pod) { p.WaitLog("^after$", patience) }},
		"and killed":                {program: "duplicate-ready", act: func(_ *harness.FakeTB, p *harness.Pod) { _ = p.Kill() }, fails: true},
		"is allowed":                {program: "duplicate-ready", allow: true},
		"only one":                  {program: "log 'YOI-READY x'; bind; ready; log ' YOI-READY x'; serve"},
		"of a test that has failed": {program: "duplicate-ready", act: func(tb *harness.FakeTB, _ *harness.Pod) { tb.Fail() }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tb := harness.NewTB(t)
			cfg := fake(tc.program)
			cfg.Name, cfg.AllowReadyAgain = "alpha", tc.allow
			pod := harness.StartPod(tb, cfg)
			pod.Send(ping, patience)
			if tc.act != nil {
				tc.act(tb, pod)
			}
			log := tb.End()
			if !tc.fails {
				assert.NotContains(t, log, what)
				return
			}
			assert.True(t, tb.Failed())
			assert.Equal(t, 1, strings.Count(log, what), log)
			assert.Regexp(t, `\tnote: Config\.AllowReadyAgain.*\n\tlog: \S+/alpha.log\n`, log)
		})
	}
}

func TestReportInTheLogOfATestThatPassesIsTold(t *testing.T) {
	t.Parallel()
	for _, line := range []string{"WARNING: DATA RACE", "panic: no store", "fatal error: concurrent map writes"} {
		program := "bind; ready; log '" + line + "'; log '  main.f()'; serve"
		tb := harness.NewTB(t)
		pod := harness.StartPod(tb, harness.Config{Name: "alpha", Command: harness.FakePod(program)})
		pod.WaitLog("main.f", patience)
		assert.Equal(t, "harness: the log of pod alpha has a report, though the test passes:\n\t\t"+line+"\n\t\t  main.f()\n\tlog: "+pod.LogPath+" (a test that fails keeps it)\n", tb.End())
		assert.False(t, tb.Failed())

		tb = harness.NewTB(t)
		harness.StartPod(tb, harness.Config{Command: harness.FakePod(program)})
		tb.Fail()
		assert.NotContains(t, tb.End(), "though the test passes")
	}
}
