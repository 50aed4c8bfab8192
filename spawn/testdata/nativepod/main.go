// Nativepod is the pod that the benchmarks start: as little as Go allows, so
// that its own start hides less of the parent's cost than a real one's would.
// With a duration as its first argument it waits that long first.
package main

import (
	"os"
	"syscall"
	"time"
)

func main() {
	var name string
	for i, arg := range os.Args[:len(os.Args)-1] {
		if arg == "--pod" {
			name = os.Args[i+1]
		}
	}
	if delay, err := time.ParseDuration(os.Args[1]); err == nil {
		time.Sleep(delay)
	}
	runtimeDir := os.Getenv("YOI_RUNTIME_DIR")
	dir := runtimeDir + "/" + name
	// A real pod makes its directory, too, where it is not there yet.
	_ = syscall.Mkdir(runtimeDir, 0o700)
	_ = syscall.Mkdir(dir, 0o700)
	socket := dir + "/sock"
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err == nil {
		err = syscall.Bind(fd, &syscall.SockaddrUnix{Name: socket})
	}
	if err == nil {
		err = syscall.Listen(fd, 128)
	}
	if err != nil {
		os.Stderr.WriteString(socket + ": " + err.Error() + "\n")
		os.Exit(1)
	}
	os.Stderr.WriteString("YOI-READY\t" + name + "\t" + socket + "\n")
	time.Sleep(time.Hour)
}
