// Package harness starts pods in Go tests: isolated from the developer and from
// each other, their logs captured, torn down when the test ends.
//
//	func TestAgentAnswers(t *testing.T) {
//		pod := harness.StartPod(t, harness.Config{
//			Command: spawn.Command{Program: harness.Build(t, "./cmd/agent"), PrefixArgs: []string{"pod"}},
//		})
//		conn := pod.Dial()
//		…
//	}
//
// The zero [Config] starts a healthy fake pod. [TryStartPod] is for tests that
// expect a start to fail.
//
// # Isolation
//
// The pods of one test share a sandbox, a private directory below the system's
// temporary one with a path that is short enough for a socket address; pods of
// different tests, subtests included, share nothing. It holds the runtime
// directory, HOME, TMPDIR and the default workspace, and is removed at the end.
//
// A pod's environment is built, not inherited: PATH, LANG, LC_ALL, LC_CTYPE, TZ
// and GOCOVERDIR as the test has them (LANG is C.UTF-8 where it has none, GOCOVERDIR an
// absolute path), HOME, TMPDIR, YOI_HOME, YOI_RUNTIME_DIR and XDG_RUNTIME_DIR inside the
// sandbox, and last what [Config.Env] adds and PODHARNESS_MARK, see below. GORACE is the
// test's or that of Config.Env, with atexit_sleep_ms=0 unless it has that option: a pod that
// is built with -race takes a second to exit without. YOI_HOME is HOME's .yoi, which
// [Config.HomeFrom] can bring. Nothing else of the developer's environment reaches a pod.
//
// A pod runs with the rights of its tester, so it can read, change and kill whatever the
// tester can. What the harness does for it stays in the sandbox: the harness follows no
// link, crosses no mount and waits for no FIFO or device that stands where pods can write,
// believes no number and no journal there, and signals only processes that are proven to
// be a pod's.
//
// # Teardown
//
// When the test ends, each pod is stopped, the last one first: see [Pod.Stop].
// A pod that ended by itself during the test fails it, unless the test called
// Stop, Kill or Wait. So does a pod that leaves processes behind, in whatever
// group or session ([Config.AllowLeaks], [Leaks]): they are killed and named. So does one
// that exits with another status than 0 when it is stopped ([Config.StopStatus]), and one
// that writes a second ready line ([Config.AllowReadyAgain]). A report of a data race, or of a
// panic, in the log of a pod whose test passes is in the test's log. No goroutine is left
// when the last test has ended.
//
// However the test binary ends, by a panic, os.Exit, its timeout or SIGKILL,
// what its pods have started is gone a moment later, and so are the sandboxes:
// a watchdog process, started with the first pod, waits for the end of the test
// binary and kills the process group of each pod and whatever has that binary's
// mark in its environment, the variable PODHARNESS_MARK. (A watchdog that was killed or
// stopped is replaced.) This, and the finding of leaks, needs Linux. A process that
// has left the pod's process group and removes or overwrites its environment, as a
// daemon may that sets its own title, is not found.
//
// Only root can read the environment of a process that is not dumpable, such as ssh-agent.
// Such a process is known to be a pod's by its parents while they live, by its process group
// or session, or by a socket in the sandbox that it serves. If nothing tells whose it is, it is
// not killed, and the test's log names it. To see all, the test binary is a
// subreaper (see prctl(2)) while pods run: it is then the parent of what its descendants leave
// behind, and reaps that. It does not reap its own children: those that package os has started.
//
// # Faults
//
// [Config.Faults] has system calls of a pod fail, or the pod be killed at one (Linux): a full
// disk, no descriptor left, a crash in the middle of a save. [Pod.Fail] does so while the pod
// runs, until [Pod.Heal]. [Pod.Restart] starts the pod again without the faults.
// [ClientConfig.Faults] are those of a client. What they have struck is on the timeline.
//
// # Suites
//
// [Pod.With] has a pod in a subtest, [Pod.Restart] starts it again. Pods that all
// tests of a binary share need a TestMain, and are torn down after the last test:
//
//	func TestMain(m *testing.M) { harness.Main(m) }
//
//	func TestAnswers(t *testing.T) {
//		pod := harness.Shared(t, "agent", harness.Config{})
//		answer := pod.SendFor(`{"method":"ping"}`, `"pong"`, time.Second)
//		…
//	}
//
// Where a pod tells all its clients of an event, [Pod.Send] may return one that another test has
// caused: [Pod.SendFor] waits for the answer. If TestMain has more to do, it calls [Run], which
// returns the status. Main and Run also tell, in one line at the end, which tests had pods that
// did not stop gracefully, came close to their ready timeout, or logged a panic. A test that
// restarts a shared pod interrupts the others that use it, so it should not be parallel.
//
// There are four ways to speak to a pod. [Pod.Send] sends a line and returns the next one,
// [Pod.SendFor] sends a line and waits for its answer, each on a connection of its own.
// [Pod.Talk] is a conversation: it keeps what comes, [Talk.WaitLine] and [WaitJSON] wait for a
// line, [Talk.Quiet] for none. [Pod.Dial] is a bare connection. [Pod.WaitLogAfter] waits for the
// next line of a log, [Pod.NoLog] for none.
//
// # Clients
//
// A client is a program that starts pods itself. [StartClient] runs one in the
// test's sandbox, on a terminal if it wants one, and [Adopt] makes a Pod of what it
// has started:
//
//	client := harness.StartClient(t, harness.ClientConfig{Program: "my-client", Args: []string{"start", "alpha"}})
//	client.WaitOutput("alpha is ready", 10*time.Second)
//	pod := harness.Adopt(t, "alpha", 10*time.Second)
//
// What its pods log is captured, adopted or not. At the end of the test the client
// is stopped first, then its pods: living on without their client is what pods do.
// [ClientEnv] is for clients that are started in another way.
//
// # Evidence
//
// When a test failed, the last lines of each pod's log are reported, and the evidence
// is kept in a directory that one line names. It is named after the test and the time
// in the directory PODHARNESS_ARTIFACTS, if that environment variable is set; else it is
// the test's artifact directory (go test -artifacts), or a temporary one. Of those
// of earlier runs of a package's tests the newest 20 are kept. (A TB of another package than
// testing that has a method ArtifactDir chooses the directory.)
//
//	report.html     the verdict, a picture of all pods on one clock, what they used, their logs
//	                and processes, what the goroutines of one that hung waited for, which tests
//	                used a shared one, and what to do: the page to open first
//	NAME.log        the log of a pod, as it wrote it; NAME.2.log is its second life
//	NAME.talk.log   what the test and the pod have sent to each other ([Pod.Send], [Pod.Talk]): by
//	                connection, > to the pod, < from it, a long line cut
//	NAME.new.log    what the pod has put in the place of its log, as to rotate it
//	NAME.txtar      a recording: podscript NAME.txtar has a fake pod do again what the pod did, as
//	                far as its parent could see. It answers a request as the pod did, if the pod
//	                has answered its method in one way. There is none of a client's pod
//	client-N.stdout what a client wrote to its stdout, or stderr
//	NAME.dir/       the small files of the pod's directory, such as status.json
//	merged.log      all of these logs on one clock
//	processes.txt   what lived when the test failed, or when a start did, before it was
//	                ended: with open files, sockets, and what each thread waits for; and
//	                the environment beyond the usual, values as [Config.ShowEnv] has it,
//	                and the arguments, as [Config.ShowArgs] does
//	timelines.txt   how long each step of each start took, and what came then, to the end
//
// [Config.Redact] is asked what of a line may be shown. The evidence of a test has at most 64 MiB,
// or as many as PODHARNESS_ARTIFACTS_MAX says: of logs that are too long the beginning and the end
// are kept.
//
// The same is written of each test that the end of the test binary cuts short, by a panic,
// os.Exit or a signal: by the watchdog, which looks at what lives, kills it, and has one
// line on the test binary's stderr say where the evidence is; it knows the times of lines
// to 100 ms. A test that
// still runs shortly before its deadline (go test -timeout) has its evidence written then.
// Every wait of this package ends before that, where TB has Deadline.
//
// With the environment variable PODHARNESS_KEEP=1 the pods of a test that fails live on, with its
// sandbox: a message says how to attach a debugger to them, how to reach and how to end them.
// Where the test binary has a terminal, the end of the test waits until somebody presses Enter
// there, but no longer than to the test's deadline (go test -timeout=0: it has none). Where it has
// none, the pods are ended with the binary. Those of Shared are not kept beyond the last test.
//
// If two starts in a row fail their tests with the same config and the same verdict, the second
// one is told in one line. With PODHARNESS_FAILFAST=1 it also ends the test binary: tests that run
// go on to their end, with all teardown and evidence, no other one begins, and no pod is started
// any more.
//
// On success nothing is written. Cleanups run last to first: if one that was registered before the
// test first used this package fails the test, there is no evidence.
package harness
