// Agent is a pod that runs jobs for its clients and tells all of them how the jobs fare.
//
//	agent [pod] --workspace DIR --pod NAME [--session UUID | --profile P] [--ticket-role R]
//
// It reads WORKSPACE/agent.json when it starts and on SIGHUP, and keeps its notes in
// $YOI_HOME/agent or $HOME/.yoi/agent.
package main

import (
	"flag"
	"fmt"
	"log"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
)

// bug names one of the bugs of TestInjectedBugs; "" = none. The linker sets it (-X).
var bug string

type options struct{ workspace, name, session, profile, role string }

func parseArgs(args []string) (o options) {
	flags := flag.NewFlagSet("agent", flag.ExitOnError)
	flags.StringVar(&o.workspace, "workspace", "", "the `DIR` that the agent works in")
	flags.StringVar(&o.name, "pod", "", "the `NAME` of the pod")
	flags.StringVar(&o.session, "session", "", "the `UUID` of a session to resume")
	flags.StringVar(&o.profile, "profile", "", "the profile of a new one")
	flags.StringVar(&o.role, "ticket-role", "", "its role")
	if len(args) > 0 && args[0] == "pod" {
		args = args[1:]
	}
	_ = flags.Parse(args)
	switch {
	case flags.NArg() > 0 || o.workspace == "":
		wrongUsage("--workspace is needed, and nothing but flags")
	case o.session != "" && o.profile != "":
		wrongUsage("--profile does not go with --session")
	case o.name == "" || o.name == "." || o.name == ".." || strings.ContainsAny(o.name, "/\t\r\n"):
		wrongUsage("--pod must be one path element, without a tab or a line end")
	}
	return o
}

func wrongUsage(why string) {
	log.Print(why)
	os.Exit(2)
}

// firstDir returns the directory that the first variable which is set says, with what is added to it.
func firstDir(places [][2]string) string {
	for _, place := range places {
		if base := os.Getenv(place[0]); filepath.IsAbs(base) {
			return base + place[1]
		} else if base != "" {
			here, err := os.Getwd()
			check(err)
			return here + "/" + base + place[1]
		}
	}
	return ""
}

func runtimeDir() string {
	dir := firstDir([][2]string{{"YOI_RUNTIME_DIR", ""}, {"YOI_HOME", "/run"}, {"XDG_RUNTIME_DIR", "/yoi"}, {"HOME", "/.yoi/run"}})
	if dir == "" {
		log.Fatal("no runtime directory (set YOI_HOME, YOI_RUNTIME_DIR, XDG_RUNTIME_DIR, or HOME)")
	}
	return dir
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

// writeAtomically writes a file that is whole or the old one, whatever happens meanwhile.
func writeAtomically(path string, data []byte) error {
	if err := os.WriteFile(path+".tmp", data, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".tmp", path)
}

func listen(path string) (net.Listener, error) {
	if room := len(syscall.RawSockaddrUnix{}.Path) - 1; len(path) > room {
		return nil, fmt.Errorf("%s: too long for a socket, whose path has at most %d bytes", path, room)
	}
	os.Remove(path) // of an agent that was killed
	return net.Listen("unix", path)
}

// announce writes the ready line, in one write.
func announce(name, path string) error {
	_, err := fmt.Fprintf(os.Stderr, "YOI-READY\t%s\t%s\n", name, path)
	return err
}

// files writes what the pod directory has, beside the socket and the log.
func files(dir, session string) error {
	if err := writeAtomically(dir+"/pid", fmt.Appendln(nil, os.Getpid())); err != nil {
		return err
	}
	return writeAtomically(dir+"/status.json", fmt.Appendf(nil, "{\"pid\":%d,\"session\":%q}\n", os.Getpid(), session))
}

// removeDir removes the socket last: a new pod of the name may start where none answers.
func removeDir(dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		log.Print(err)
	}
	for _, entry := range entries {
		if entry.Name() != "sock" {
			os.RemoveAll(dir + "/" + entry.Name())
		}
	}
	os.Remove(dir + "/sock")
	os.Remove(dir)
}

func main() {
	log.SetPrefix("agent: ")
	log.SetFlags(0)
	o := parseArgs(os.Args[1:])
	syscall.Umask(0o077)
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, os.Interrupt, syscall.SIGHUP)
	dir := runtimeDir() + "/" + o.name
	check(os.MkdirAll(dir, 0o700))
	a, err := newAgent(o, signals)
	check(err)
	listener, err := listen(dir + "/sock")
	check(err)
	check(files(dir, a.state.Session))
	served := make(chan struct{})
	go func() {
		defer close(served)
		a.serveAll(listener)
	}()
	check(announce(o.name, dir+"/sock"))
	log.Printf("%s listening on %q", o.name, dir+"/sock")
	for sig := range signals {
		if sig == os.Interrupt {
			break
		}
		a.reload()
		if bug == "ready-again" {
			check(announce(o.name, dir+"/sock"))
		}
	}
	a.stop()
	removeDir(dir)
	listener.Close()
	<-served
}
