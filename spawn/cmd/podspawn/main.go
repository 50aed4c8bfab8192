// Podspawn starts one pod by the real handshake and tells how that ended. The
// pod lives on; a pod that did not become ready is gone.
//
//	podspawn -pod /usr/local/bin/agent -pod-arg pod alpha
//	podspawn -list
//	podspawn -follow alpha
//	podspawn -stop alpha
//
// What the pod logs before it is ready goes to stderr. Once it is ready, its
// process, socket and log go to stdout. Each verdict has an exit status of its
// own, 0 for a ready pod: podspawn -help has them.
package main

import (
	"os"

	"example.com/podharness/spawn/podspawn"
)

func main() { os.Exit(podspawn.Main(os.Args[1:], os.Stdout, os.Stderr)) }
