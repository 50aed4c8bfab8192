// Deadlock is a pod that works until one client deposits and another one withdraws: then two of
// its goroutines wait for each other.
package main

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"
)

var (
	in, out sync.Mutex
	both    sync.WaitGroup // until each is held
)

func deposit() {
	in.Lock()
	meet()
	out.Lock()
}

func withdraw() {
	out.Lock()
	meet()
	in.Lock()
}

func meet() {
	both.Done()
	both.Wait()
	fmt.Fprintln(os.Stderr, "holds one, wants the other")
}

func serve(conn net.Conn) {
	fmt.Fprintln(conn, `{"event":"snapshot","data":{}}`)
	for lines := bufio.NewScanner(conn); lines.Scan(); {
		if lines.Text() == "deposit" {
			deposit()
		} else {
			withdraw()
		}
		fmt.Fprintln(conn, `{"event":"done"}`)
	}
}

func main() {
	name := ""
	for i, arg := range os.Args {
		if arg == "--pod" {
			name = os.Args[i+1]
		}
	}
	path := filepath.Join(os.Getenv("YOI_RUNTIME_DIR"), name, "sock")
	listener, err := net.Listen("unix", path)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	both.Add(2)
	go func() {
		for {
			time.Sleep(time.Hour)
		}
	}()
	fmt.Fprintf(os.Stderr, "YOI-READY\t%s\t%s\n", name, path)
	for {
		conn, err := listener.Accept()
		if err != nil {
			os.Exit(1)
		}
		go serve(conn)
	}
}
