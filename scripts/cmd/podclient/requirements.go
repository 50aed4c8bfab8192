package main

import "example.com/podharness/scripts/internal/conformance"

// requirement is one thing that is asked of a client.
type requirement struct {
	id, level, section string
	text               string // it must, should or may …
}

// requirements are all that is asked, in the order in which they are judged.
var requirements = []requirement{
	{"arguments", conformance.Must, "1", "start the pod with the arguments pod --workspace DIR --pod NAME"},
	{"verdict", conformance.Must, "2, 3, 4", "end with status 0 where the pod becomes ready, and with another status and a word of why where it does not, not before its timeout is over"},
	{"prompt", conformance.Must, "3, 4", "end within 2s of when the outcome could be known: one timeout covers the ready line and the socket"},
	{"independent", conformance.Must, "1", "leave a ready pod that lives on without it, in a process group of its own, with the null device as stdin and stdout, its log as stderr and no other descriptor"},
	{"workspace", conformance.Must, "1", "start the pod in its workspace"},
	{"inherits", conformance.Must, "1", "pass its environment, umask and limits on to the pod, and have no signal blocked or ignored there"},
	{"clean", conformance.Must, "1, 4", "leave no process of a pod whose start has failed or was interrupted, and touch nothing for a name that is no path element"},
	{"log", conformance.Must, "1, 4", "leave the log of a failed start as the pod has written it"},
	{"silent", conformance.Must, "3", "connect to the pod's socket once, and send nothing"},
	{"memory", conformance.Must, "2", "need no more memory for what the pod writes than for a few lines"},
	{"reason", conformance.Should, "4", "say what explains a failure: the pod's last words, the line or the name that is wrong, or what it waited for"},
	{"terminal", conformance.Should, "2, 5c", "escape control characters of a pod, and what is no UTF-8"},
	{"notices", conformance.Should, "5c", "notice the ready line, the socket and the pod's end within 500ms"},
	{"idle", conformance.Should, "5c", "wait without a busy loop"},
	{"rereads", conformance.Should, "5c", "read the log once"},
	{"dash-name", conformance.Should, "1", "start a pod whose name begins with -"},
	{"signals", conformance.May, "1", "pass on to the pod which signals it was started with blocked or ignored"},
	{"one-pod", conformance.May, "1", "refuse to start a pod of a name while one answers"},
}

func find(id string) requirement {
	for _, r := range requirements {
		if r.id == id {
			return r
		}
	}
	panic("podclient: no requirement " + id)
}
