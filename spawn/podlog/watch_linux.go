//go:build !portable

package podlog

import (
	"encoding/binary"
	"os"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

const (
	logEvents = unix.IN_MODIFY
	dirEvents = unix.IN_CREATE | unix.IN_MOVED_TO
)

// watches is the one inotify instance of the process. A user has few of them
// (128 by default) and closing one takes the kernel about 10 ms, so it is kept
// once it was needed. Its goroutine lives only while something is watched: a test that has
// ended its watches leaves none.
var watches inotify

type inotify struct {
	mu      sync.Mutex // guards all below
	file    *os.File   // nil until the first watch
	fd      int
	reading bool
	wakes   map[int32][]chan<- struct{} // by watch descriptor
}

// watchPath has wake receive, without blocking, when one of the events happens
// to path. Where that cannot be had (no instance or watch left, a file system
// without inotify) ok is false. A wake-up may be lost or come for nothing: the
// caller looks for itself, and at times without being told. stop is never nil.
func watchPath(path string, events uint32, wake chan<- struct{}) (stop func(), ok bool) {
	wd, err := watches.add(path, events, wake)
	if err != nil {
		return func() {}, false
	}
	return func() { watches.remove(wd, wake) }, true
}

func (in *inotify) add(path string, events uint32, wake chan<- struct{}) (int32, error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.file == nil {
		fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
		if err != nil {
			return 0, err
		}
		in.fd, in.file = fd, os.NewFile(uintptr(fd), "inotify")
		in.wakes = map[int32][]chan<- struct{}{}
	}
	// One file has one watch in an instance: the events of a second start in
	// the same directory must add to those of the first.
	wd, err := unix.InotifyAddWatch(in.fd, path, events|unix.IN_MASK_ADD)
	if err != nil {
		return 0, err
	}
	in.wakes[int32(wd)] = append(in.wakes[int32(wd)], wake)
	if !in.reading {
		in.reading = true
		go in.read()
	}
	return int32(wd), nil
}

func (in *inotify) remove(wd int32, wake chan<- struct{}) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.wakes[wd] = slices.DeleteFunc(in.wakes[wd], func(w chan<- struct{}) bool { return w == wake })
	if len(in.wakes[wd]) > 0 {
		return
	}
	delete(in.wakes, wd)
	// The event that this makes, IN_IGNORED, is what ends the reader. The error
	// is of no use: the kernel has dropped the watch of a deleted file already.
	_, _ = unix.InotifyRmWatch(in.fd, uint32(wd))
}

// read wakes whoever waits for an event until nothing is watched any more.
func (in *inotify) read() {
	var buf [4096]byte
	for more := true; more; {
		n, err := in.file.Read(buf[:])
		more = in.dispatch(buf[:max(0, n)], err)
	}
}

// dispatch reports whether there is more to read. After an error nobody is woken
// again: the callers' own timers take over.
func (in *inotify) dispatch(events []byte, err error) (more bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for len(events) >= unix.SizeofInotifyEvent {
		// struct inotify_event: wd, mask, cookie and the length of the name.
		field := func(i int) uint32 { return binary.NativeEndian.Uint32(events[4*i:]) }
		wd, mask := int32(field(0)), field(1)
		if mask&unix.IN_Q_OVERFLOW != 0 {
			for _, wakes := range in.wakes {
				wakeAll(wakes)
			}
		}
		wakeAll(in.wakes[wd])
		if mask&unix.IN_IGNORED != 0 {
			delete(in.wakes, wd)
		}
		events = events[unix.SizeofInotifyEvent+int(field(3)):]
	}
	in.reading = err == nil && len(in.wakes) > 0
	return in.reading
}

func wakeAll(wakes []chan<- struct{}) {
	for _, wake := range wakes {
		select {
		case wake <- struct{}{}:
		default:
		}
	}
}
