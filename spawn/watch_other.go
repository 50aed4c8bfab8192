//go:build unix && (!linux || portable)

package spawn

const (
	logEvents    = 0
	socketEvents = 0
)

// watchPath tells that there is no way to be woken here: the caller polls.
func watchPath(string, uint32, chan<- struct{}) (stop func(), ok bool) {
	return func() {}, false
}
