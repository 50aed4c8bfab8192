//go:build linux && !portable

package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"example.com/podharness/harness"
	"example.com/podharness/scripts/internal/conformance"
	"example.com/podharness/scripts/internal/sweep"
	"example.com/podharness/spawn/fault"
	"example.com/podharness/spawn/safefile"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// action is what podspawn does with a pod that runs.
type action struct {
	flag string
	// done returns what is wrong about a success; "" = nothing.
	done func(pod *harness.Pod, stdout string) string
}

var alphaRuns = regexp.MustCompile(`(?m)^alpha +(answers|silent|hidden) `)

var actions = []action{
	{"-list", func(_ *harness.Pod, stdout string) string {
		return map[bool]string{false: fmt.Sprintf("it does not list the pod that runs: %q", stdout)}[alphaRuns.MatchString(stdout)]
	}},
	{"-stop", func(pod *harness.Pod, _ string) string {
		_, ended := pod.Ended()
		return map[bool]string{false: "the pod still runs"}[ended]
	}},
	{"-follow", func(_ *harness.Pod, stdout string) string {
		return map[bool]string{false: fmt.Sprintf("it has not shown the log: %q", stdout)}[strings.Contains(stdout, "YOI-READY")]
	}},
}

// actionSweep has podspawn meet faults in an action.
type actionSweep struct {
	action
	*sweep.Sweep
	flags *conformance.Flags
}

// run has podspawn do its action on a fresh pod, and hands both over.
func (a *actionSweep) run(faults []fault.Fault, judge func(tb *caseTB, pod *harness.Pod, client *harness.Client, late bool) error) error {
	tb := &caseTB{name: "action", flags: a.flags}
	defer tb.finish()
	dir, err := harness.TempDir()
	if err != nil {
		return err
	}
	defer safefile.RemoveAll(dir)
	tb.scrap = dir
	pod, err := harness.TryStartPod(tb, harness.Config{Name: "alpha", Command: harness.FakePod("ready"), StopStatus: []int{-1}})
	if err != nil {
		return err
	}
	args := []string{asPodspawn, a.flag}
	if a.flag != "-list" {
		args = append(args, "alpha")
	}
	for i, f := range faults {
		faults[i] = f.Expand(map[string]string{"name": "alpha"})
	}
	client, err := harness.TryStartClient(tb, harness.ClientConfig{Program: os.Args[0], Args: args, Faults: faults})
	if err != nil {
		return err
	}
	if a.flag == "-follow" {
		_, _ = client.TryWaitOutput("YOI-READY", patience/3)
		_ = pod.Stop()
	}
	_, err = client.TryWait(patience / 3)
	late := err != nil
	_ = client.Kill()
	if err := client.Faults.Err(); err != nil {
		return err
	}
	return judge(tb, pod, client, late)
}

func (a *actionSweep) observe() (points []sweep.Point, err error) {
	w := sweep.World{Root: "/", Name: "alpha", More: func(path string) string {
		if m := outputs.FindStringSubmatch(path); m != nil {
			return "**/client-*" + m[1]
		}
		return ""
	}}
	err = a.run(a.Noted(w), func(tb *caseTB, pod *harness.Pod, client *harness.Client, late bool) error {
		if late || !client.State().Success() {
			return fmt.Errorf("late: %v, %v: %s", late, client.State(), client.Stderr())
		}
		runtime := harness.RuntimeDir(tb)
		w.Root, w.Bases = filepath.Dir(runtime), [][2]string{{"{runtime}", runtime}}
		calls := client.Faults.Strikes()
		var begun time.Time
		points = a.Points(w, calls, func(c fault.Strike) string {
			if len(c.Paths) > 0 && strings.HasPrefix(c.Paths[0], w.Root+"/") && begun.IsZero() {
				begun = c.Time
			}
			isStat := strings.Contains(c.Call, "stat") && len(c.Paths) > 0 && outputs.MatchString(c.Paths[0])
			return map[bool]string{true: "action"}[!begun.IsZero() && !isStat]
		})
		return nil
	})
	return points, err
}

func (a *actionSweep) try(r *sweep.Run) (struck bool, err error) {
	err = a.run([]fault.Fault{r.Fault}, func(_ *caseTB, pod *harness.Pod, client *harness.Client, late bool) error {
		strikes := client.Faults.Strikes()
		if struck = len(strikes) > 0; !struck || r.Fault.Signal != 0 {
			return nil
		}
		said, found, mute := client.Stderr(), "", strings.HasPrefix(r.Path, "**/client-")
		switch state := client.State(); {
		case late:
			r.SayLate("client-fault-answered", "it does not end")
			r.Settle(nil)
			return nil
		case state.Success():
			if r.Fault.Error != unix.ENOENT { // then there is no pod
				found = a.done(pod, client.Stdout())
			}
		case r.Family == "thread" && goDies.MatchString(said):
		case strings.TrimSpace(said) == "" && !mute:
			found = fmt.Sprintf("%v without a word", state)
		case r.Fault.Error != 0 && r.Fault.Error != unix.ENOENT && !mute && !r.Tells(said, "alpha", strikes, purposes[r.Family]...):
			r.Say("client-fault-told", fmt.Sprintf("%v: %s", state, said))
		}
		r.Say("client-fault-answered", "")
		r.Say("client-fault-honest", found)
		r.Settle([]string{strikes[0].String(), said})
		return nil
	})
	return struck, err
}

// TestPodspawnsActionsPassWithFaults has all points in the long tests.
func TestPodspawnsActionsPassWithFaults(t *testing.T) {
	t.Parallel()
	needFaults(t)
	for _, action := range actions {
		t.Run(action.flag, func(t *testing.T) {
			t.Parallel()
			budget, some := "3s", regexp.MustCompile(`^call [145] of (stat|open) \{runtime\}/\{name\} .*with (EACCES|EMFILE)$`)
			if os.Getenv("PODHARNESS_LONG") != "" {
				budget, some = "20m", regexp.MustCompile("")
			}
			s, err := parse([]string{"-faults", "-strict", "-budget", budget, "true", "{name}"}, io.Discard, io.Discard)
			require.NoError(t, err)
			a := &actionSweep{action: action, flags: &s.Flags}
			a.Sweep = &sweep.Sweep{Flags: &s.Flags, Runs: s.Runs, Faults: s.faults, Of: "client", Requirements: faultRequirements, Errors: clientErrors,
				Observe: a.observe, Try: a.try, Repeat: func(_ string, t sweep.Trial) string { return t.String() }, Choose: func(t sweep.Trial) bool { return some.MatchString(t.String()) }}
			var out bytes.Buffer
			status, err := a.Main("podclient", &out, io.Discard)
			require.NoError(t, err)
			assert.Zero(t, status)
			t.Log(out.String())
		})
	}
}
