// A pod in Go, with nothing but its standard library.
//
//	go build -o pod pod.go
//	pod [pod] --workspace DIR --pod NAME [--session UUID | --profile P] [--ticket-role R]
//
// It keeps the handshake (spawn/HANDSHAKE.md); main has the order in which things happen.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
)

// parseArgs returns the pod's name; flag.Parse ends the process with status 2 itself.
func parseArgs() string {
	workspace := flag.String("workspace", "", "the `DIR` that the pod works in")
	name := flag.String("pod", "", "the `NAME` of the pod")
	session := flag.String("session", "", "the `UUID` of a session to resume")
	profile := flag.String("profile", "", "the profile of a new one")
	flag.String("ticket-role", "", "its role")
	if len(os.Args) > 1 && os.Args[1] == "pod" {
		os.Args = os.Args[1:]
	}
	flag.Parse()
	switch {
	case flag.NArg() > 0 || *workspace == "":
		wrongUsage("--workspace is needed, and nothing but flags")
	case *session != "" && *profile != "":
		wrongUsage("--profile does not go with --session")
	case *name == "" || *name == "." || *name == ".." || strings.Contains(*name, "/"):
		wrongUsage("--pod must be one path element")
	}
	return *name
}

func wrongUsage(why string) {
	log.Print(why)
	os.Exit(2)
}

func runtimeDir() string {
	for _, place := range [][2]string{
		{"YOI_RUNTIME_DIR", ""},
		{"YOI_HOME", "run"},
		{"XDG_RUNTIME_DIR", "yoi"},
		{"HOME", ".yoi/run"},
	} {
		if base := os.Getenv(place[0]); base != "" { // an empty one counts as unset
			return filepath.Join(base, place[1])
		}
	}
	log.Fatal("no runtime directory (set YOI_HOME, YOI_RUNTIME_DIR, XDG_RUNTIME_DIR, or HOME)")
	return ""
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func writeAtomically(path, text string) {
	check(os.WriteFile(path+".tmp", []byte(text), 0o600))
	check(os.Rename(path+".tmp", path))
}

func serve(client net.Conn, stop chan<- os.Signal) {
	defer client.Close()
	fmt.Fprintf(client, "{\"event\":\"snapshot\",\"data\":{\"pid\":%d}}\n", os.Getpid())
	for lines := bufio.NewScanner(client); lines.Scan(); {
		var request struct{ Method string }
		if json.Unmarshal(lines.Bytes(), &request) == nil && request.Method == "shutdown" {
			stop <- os.Interrupt
			continue
		}
		io.WriteString(client, `{"event":"error","data":{"message":"unknown method"}}`+"\n")
	}
}

func main() {
	log.SetPrefix("pod: ")
	log.SetFlags(0)
	name := parseArgs()
	dir := filepath.Join(runtimeDir(), name)
	path := filepath.Join(dir, "sock")
	check(os.MkdirAll(dir, 0o700))
	writeAtomically(filepath.Join(dir, "pid"), fmt.Sprintln(os.Getpid()))
	writeAtomically(filepath.Join(dir, "status.json"), fmt.Sprintf("{\"pid\":%d,\"state\":\"running\"}\n", os.Getpid()))
	os.Remove(path) // of a pod that was killed
	// Who reads the ready line may connect, and may stop the pod, at once.
	listener, err := net.Listen("unix", path)
	check(err)
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt)
	// One write, with the newline: os.Stderr has no buffer.
	stderr := os.Stderr
	fmt.Fprintf(stderr, "YOI-READY\t%s\t%s\n", name, path)
	fmt.Fprintf(stderr, "pod: %s listening on %q\n", name, path)
	go func() {
		for {
			client, err := listener.Accept()
			check(err)
			go serve(client, stop)
		}
	}()
	<-stop
	check(os.RemoveAll(dir))
}
