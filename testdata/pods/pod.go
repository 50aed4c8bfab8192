// A pod in Go, with nothing but its standard library.
//
//	go build -o pod pod.go
//	pod [pod] --workspace DIR --pod NAME [--session UUID | --profile P] [--ticket-role R]
//
// It keeps the handshake (spawn/HANDSHAKE.md); main has the order in which things happen.
// Its methods are shutdown, and run, which takes three seconds in place of real work.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
	"unicode/utf8"
)

const maxLine = 4 << 20 // bytes of a client's line

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
	case *name == "" || *name == "." || *name == ".." || strings.ContainsAny(*name, "/\t\r\n"):
		wrongUsage("--pod must be one path element, without a tab or a line end")
	}
	return *name
}

func wrongUsage(why string) {
	log.Print(why)
	os.Exit(2)
}

// runtimeDir is not joined by package filepath, which takes a/link/../b for a/b.
func runtimeDir() string {
	for _, place := range [][2]string{
		{"YOI_RUNTIME_DIR", ""},
		{"YOI_HOME", "/run"},
		{"XDG_RUNTIME_DIR", "/yoi"},
		{"HOME", "/.yoi/run"},
	} {
		if base := os.Getenv(place[0]); filepath.IsAbs(base) {
			return base + place[1]
		} else if base != "" { // an empty one counts as unset
			here, err := os.Getwd()
			check(err)
			return here + "/" + base + place[1]
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

func writeAtomically(path, text string) error {
	err := os.WriteFile(path+".tmp", []byte(text), 0o600)
	if err != nil {
		return err
	}
	return os.Rename(path+".tmp", path)
}

// readMethod returns the method that a line names. Not by a struct, whose fields are found in any case.
func readMethod(line []byte) (method string, isObject bool) {
	var request map[string]json.RawMessage
	if !utf8.Valid(line) || json.Unmarshal(line, &request) != nil || request == nil {
		return "", false
	}
	_ = json.Unmarshal(request["method"], &method) // it may be none, or no string
	return method, true
}

// wholeLine is a bufio.SplitFunc that drops what stands behind the last newline.
func wholeLine(data []byte, _ bool) (advance int, line []byte, err error) {
	if n := bytes.IndexByte(data, '\n'); n >= 0 {
		return n + 1, data[:n], nil
	}
	return 0, nil, nil
}

// serve does not care whether a write fails: a client may leave, and what it has sent counts.
func serve(client net.Conn, stop chan<- os.Signal) {
	defer client.Close()
	send := func(event, data string) { fmt.Fprintf(client, "{\"event\":%q,\"data\":{%s}}\n", event, data) }
	send("snapshot", fmt.Sprintf(`"pid":%d`, os.Getpid()))
	lines := bufio.NewScanner(client)
	lines.Buffer(nil, maxLine)
	lines.Split(wholeLine)
	for lines.Scan() {
		switch method, isObject := readMethod(lines.Bytes()); {
		case len(lines.Bytes()) == 0:
		case !isObject:
			send("error", `"message":"no object of JSON"`)
		case method == "shutdown":
			stop <- os.Interrupt
		case method == "run":
			time.Sleep(3 * time.Second)
			send("done", "")
		default:
			send("error", `"message":"unknown method"`)
		}
	}
	if lines.Err() == bufio.ErrTooLong {
		send("error", `"message":"the line is too long"`)
	}
}

func serveAll(listener net.Listener, stop chan<- os.Signal) {
	for {
		client, err := listener.Accept()
		if err != nil { // too many descriptors
			log.Print(err)
			time.Sleep(100 * time.Millisecond)
			continue
		}
		go serve(client, stop)
	}
}

// start returns when the pod is ready. If it fails, it leaves nothing but the directory and its log.
func start(name, dir string, stop chan<- os.Signal) (err error) {
	path := dir + "/sock"
	if room := len(syscall.RawSockaddrUnix{}.Path) - 1; len(path) > room {
		return fmt.Errorf("%s: too long for a socket, whose path has at most %d bytes", path, room)
	}
	umask := syscall.Umask(0o077) // what is made here is for its user alone
	if err = os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	os.Remove(path) // of a pod that was killed
	defer func() {
		for _, file := range []string{"pid", "pid.tmp", "status.json", "status.json.tmp", "sock"} {
			if err != nil {
				os.Remove(dir + "/" + file)
			}
		}
	}()
	listener, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	if err = writeAtomically(dir+"/pid", fmt.Sprintln(os.Getpid())); err != nil {
		return err
	}
	status := fmt.Sprintf("{\"pid\":%d,\"state\":\"running\"}\n", os.Getpid())
	if err = writeAtomically(dir+"/status.json", status); err != nil {
		return err
	}
	syscall.Umask(umask)
	go serveAll(listener, stop)
	// Who reads the line may connect, and may stop the pod, at once. It goes out in one write,
	// with the newline: os.Stderr has no buffer.
	_, err = fmt.Fprintf(os.Stderr, "YOI-READY\t%s\t%s\n", name, path)
	return err
}

// removeDir removes the socket last: a new pod of the name may start where none answers.
func removeDir(dir string) error {
	entries, err := os.ReadDir(dir)
	errs := []error{err}
	for _, entry := range entries {
		if entry.Name() != "sock" {
			errs = append(errs, os.RemoveAll(dir+"/"+entry.Name()))
		}
	}
	errs = append(errs, os.Remove(dir+"/sock"), os.Remove(dir))
	errs = slices.DeleteFunc(errs, func(err error) bool {
		return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTEMPTY)
	})
	return errors.Join(errs...)
}

func main() {
	log.SetPrefix("pod: ")
	log.SetFlags(0)
	name := parseArgs()
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt)
	dir := runtimeDir() + "/" + name
	check(start(name, dir, stop))
	log.Printf("%s listening on %q", name, dir+"/sock")
	<-stop
	check(removeDir(dir))
}
