package proc

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"example.com/podharness/spawn/podlog"
	"example.com/podharness/spawn/safefile"
)

// An Owner is what is known of the process behind a pod directory.
type Owner struct {
	// Handle holds the process; nil = it is not known for certain.
	Handle *Handle
	// Unknown says why Handle is nil.
	Unknown error
	// Named is the number that the file pid names; 0 = none.
	Named int
	// Err is the error of a connection to the socket; nil = something listens there.
	Err error
	// Within tells that the socket is one in the pod directory, and no link.
	Within bool
	// Listens tells that Handle, or something in the pod directory, listens on the
	// socket.
	Listens bool
}

// OwnerOf finds the process of the pod whose directory is given, among the one that
// listens on its socket and the one that its file pid names. A number alone may be
// anybody's. A process is the pod only if it has started after launch, and if it has the
// directory's log, a regular file, open as its stderr, listens on a socket in the
// directory, or has the mark, if there is one; this process never is. If launch is zero, the
// process that listens may have started at any time, since a pod may have made its directory
// itself; another one must have started after the directory was made, as far as the file
// system tells. The caller closes the handle. OwnerOf connects to the socket once, and never
// waits.
func OwnerOf(dir *safefile.Dir, socket string, launch time.Time, mark string) (o Owner) {
	born := launch
	if launch.IsZero() {
		born = dir.Born()
	}
	path, below := strings.CutPrefix(socket, dir.Name()+"/")
	o.Within = below && dir.IsSocket(path)
	log, logErr := dir.Open(podlog.LogName)
	if logErr == nil {
		defer log.Close()
	}
	isPod := func(id ID, listens bool) bool {
		switch {
		case id.PID == 0 || id.PID == os.Getpid():
			return false
		case listens && o.Within:
			return StartedSince(id, launch)
		}
		return StartedSince(id, born) && (hasMark(id.PID, mark) || logErr == nil && hasFile(id.PID, 2, log))
	}
	take := func(h *Handle, listens bool) bool {
		if h == nil || !isPod(h.ID, listens) || h.Ended() {
			return false
		}
		o.Handle = h
		return true
	}

	listener, name, err := holdListener(socket)
	o.Err = err
	// The socket of another pod may have a second name here.
	if filepath.IsAbs(name) && !dir.Is(filepath.Dir(name), filepath.Dir(path)) {
		o.Within = false
	}
	o.Listens = err == nil && o.Within
	if take(listener, true) {
		o.Listens = true
		return o
	}
	if listener != nil {
		listener.Close()
	}
	text, err := dir.ReadFile("pid", 100)
	if err != nil {
		o.Unknown = fmt.Errorf("its file pid cannot be read: %w", cmp.Or(errors.Unwrap(err), err))
		return o
	}
	pid, err := parsePID(text)
	if err != nil {
		o.Unknown = err
		return o
	}
	o.Named = pid
	named, err := Hold(Of(pid))
	switch {
	case err != nil:
		o.Unknown = fmt.Errorf("process %d, which its file pid names, has ended", pid)
	case !take(named, false):
		named.Close()
		o.Unknown = fmt.Errorf("process %d, which its file pid names, is not known to be the pod: its stderr is not the log %s, or it is older than the pod", pid, podlog.LogName)
	}
	return o
}
