// A suite of Ginkgo's with the pods of podharness. Two of its specs fail, to show how.
package agent_test

import (
	"fmt"
	"os"
	"testing"
	"time"

	"example.com/podharness/harness"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

func TestMain(m *testing.M) { harness.Main(m) }

func TestAgent(t *testing.T) {
	RegisterFailHandler(Fail)
	RunSpecs(t, "agent")
}

func agent() *harness.Pod {
	return harness.Shared(GinkgoT(), "agent", harness.Config{})
}

var _ = Describe("a shared pod", func() {
	It("answers", func() {
		Expect(agent().Send(`{"method":"ping"}`, 5*time.Second)).To(ContainSubstring("pong"))
		fmt.Println("process", agent().PID)
	})
	It("is the same in another spec", func() {
		fmt.Println("process", agent().PID)
	})
	It("fails a spec", func() {
		agent().WaitLog("nowhere", 10*time.Millisecond)
	})
})

var _ = Describe("a pod of one spec", func() {
	BeforeEach(func() {
		harness.StartPod(GinkgoT(), harness.Config{Name: "alpha"})
	})
	It("is in the spec's one sandbox", func() {
		_, err := os.Stat(harness.RuntimeDir(GinkgoT()) + "/alpha/sock")
		Expect(err).NotTo(HaveOccurred())
		_, err = harness.TryStartPod(GinkgoT(), harness.Config{Name: "alpha"})
		Expect(err).To(MatchError(ContainSubstring("pod alpha still runs")))
	})
	It("dies", FlakeAttempts(2), func() {
		pod := harness.Adopt(GinkgoT(), "alpha", time.Second)
		_, _ = pod.TrySend(`{"method":"run","params":{"program":"log 'no memory'; exit 3"}}`, 5*time.Second)
		<-pod.Done()
	})
})

var _ = Describe("a pod of a container", Ordered, func() {
	var pod *harness.Pod
	BeforeAll(func() {
		pod = harness.StartPod(GinkgoT(), harness.Config{})
	})
	It("is restarted", func() {
		pod = pod.With(GinkgoT()).Restart()
	})
	It("lives on in the next spec", func() {
		Expect(pod.With(GinkgoT()).Send(`{"method":"ping"}`, 5*time.Second)).To(ContainSubstring("pong"))
	})
})
