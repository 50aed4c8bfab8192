package scripts

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"example.com/podharness/harness"
	"example.com/podharness/harness/sandbox"
	"example.com/podharness/spawn"
	"example.com/podharness/spawn/proc"
)

// longName tries the longest name with which the socket's path fits, and one that is longer.
func (x *prober) longName() error {
	if !proc.Proves {
		x.skipf("this system connects to no path that is longer than a socket address")
	}
	fits := len(syscall.RawSockaddrUnix{}.Path) - 1 - len("/sock") - len(filepath.Dir(x.dir())+"/")
	if fits < 1 {
		x.skipf("the runtime directory %s is too long to try this", filepath.Dir(x.dir()))
	}
	for name, mayRefuse := range map[string]bool{strings.Repeat("n", fits): false, strings.Repeat("n", fits+1): true, strings.Repeat("n", 200): true} {
		pod, err := x.start(name, asItIs)
		var start *spawn.Error
		switch {
		case err == nil:
			c, err := x.connectTo(pod)
			if err == nil {
				err = c.snapshot()
			}
			if err != nil {
				return fmt.Errorf("with a name of %d bytes: %w", len(name), err)
			}
		case !errors.As(err, &start) || !mayRefuse:
			return fmt.Errorf("with a name of %d bytes, with which the path of its socket has %d: %w", len(name), len(filepath.Dir(x.dir()))+len(name)+len("//sock")-1, err)
		case !errors.Is(err, spawn.ErrExited) || start.Status == "exit status 0" || len(start.Tail) == 0 && start.Unfinished == "":
			return fmt.Errorf("with a name of %d bytes, which is too long for its socket, it must end with a status other than 0 and a word of why: %w", len(name), err)
		}
	}
	return nil
}

// workspaces have names that are odd, and right.
func (x *prober) workspaces() error {
	for i, name := range []string{"two  blanks", " at its ends ", "new\nline", "-dash", "Capitals", "caf\u00e9", "cafe\u0301", `quote'"$HOME`} {
		dir := filepath.Join(x.ts.MkAbs("."), name)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fatalError{error: err, kit: true}
		}
		pod, err := x.start(fmt.Sprint("w", i), func(cfg *harness.Config) {
			if cfg.WorkspaceFrom != nil {
				if err := os.CopyFS(dir, cfg.WorkspaceFrom); err != nil {
					x.skipf("the workspace cannot be copied: %v", err)
				}
			}
			cfg.Workspace, cfg.WorkspaceFrom = dir, nil
		})
		if err != nil {
			return fmt.Errorf("with the workspace %q: %w", name, err)
		}
		_ = pod.Kill()
	}
	return nil
}

// profile tells a profile that the pod does not have from a flag that it does not know.
func (x *prober) profile() error {
	said := map[string]string{}
	for i, flag := range []string{"--profile", "--no-such-flag"} {
		pod, err := x.start(fmt.Sprint("p", i), func(cfg *harness.Config) {
			cfg.Profile, cfg.ExtraArgs = "", append(slices.Clone(cfg.ExtraArgs), flag, "default")
		})
		if err == nil {
			_ = pod.Kill()
			return nil // it takes both, which another requirement is about, or knows the first
		}
		var start *spawn.Error
		if !errors.As(err, &start) {
			return err
		}
		said[flag] = strings.ReplaceAll(start.Status+strings.Join(start.Tail, "\n")+start.Unfinished, strings.TrimLeft(flag, "-"), "FLAG")
	}
	if said["--profile"] == said["--no-such-flag"] {
		return fmt.Errorf("it says the same of --profile as of a flag that it does not know: %s", shown([]byte(said["--profile"])))
	}
	return nil
}

// oneReadyLine visits the pod, has it reload, and counts its ready lines.
func (x *prober) oneReadyLine() error {
	for range 12 {
		c, err := x.greeted()
		if err != nil {
			return err
		}
		_ = c.send(ping + "\n")
		_, _ = c.lineWithin(100 * time.Millisecond)
		_ = c.Close()
	}
	if err := syscall.Kill(x.pod.PID, syscall.SIGHUP); err == nil {
		if _, err := x.pod.TryWait(200 * time.Millisecond); err != nil {
			_ = x.pod.Kill() // it may end of the signal, and later than that
		}
	}
	log := []byte("\n" + x.pod.Log())
	if n := bytes.Count(log, []byte("\nYOI-READY\t")); n > 1 {
		second := log[bytes.LastIndex(log, []byte("\nYOI-READY\t"))+1:]
		second, _, _ = bytes.Cut(second, []byte("\n"))
		return fmt.Errorf("it wrote %d ready lines; the last one is %s", n, shown(second))
	}
	return nil
}

// busy sends the request that takes a while.
func (x *prober) busy() error {
	c, err := x.greeted()
	if err != nil {
		return err
	}
	x.conns = nil // it stays
	x.tb.Cleanup(func() { _ = c.Close() })
	if err := c.send(x.options.Busy + "\n"); err != nil {
		return err
	}
	if line, err := c.lineWithin(200 * time.Millisecond); err == nil {
		x.skipf("-busy %s was answered at once: %s", x.options.Busy, shown(line))
	}
	return nil
}

// stops returns a probe that stops the pod by a text in parts.
func stops(leaves bool, parts ...string) func(*prober) error {
	return func(x *prober) error {
		c, err := x.greeted()
		if err != nil {
			return err
		}
		if err := c.send(parts...); err != nil {
			return err
		}
		sent := fmt.Sprintf("in one write %q", parts[0])
		if len(parts) > 1 {
			sent = fmt.Sprintf("in %d writes %q", len(parts), parts)
		}
		if leaves {
			_ = c.Conn.(*net.UnixConn).CloseWrite()
			sent += ", by a client that sends nothing more"
		}
		grace := cmp.Or(x.options.Pod.StopGrace, sandbox.StopGrace)
		switch state, err := x.pod.TryWait(min(grace, time.Until(x.end))); {
		case err != nil:
			return fmt.Errorf("%s was sent, and the pod did not stop within %v", sent, grace)
		case state != nil && !state.Success():
			return fmt.Errorf("%s was sent, and the pod ended with %v", sent, state)
		}
		return nil
	}
}
