package evidence

import (
	"bytes"
	"cmp"
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"example.com/podharness/spawn/podlog"
	"github.com/google/uuid"
)

// A page is what report.html shows. Its times are durations since the begin of the
// evidence's clock.
type page struct {
	Nonce     string // of the one script that may run
	Test, Why string
	Begin     time.Time
	Snapshot  time.Duration
	Rows      []*row
	Failures  []failure     // the first one is the verdict
	Asked     []*Attempt    // those whose goroutines are known
	Moment    time.Duration // of that, or of the snapshot
	Advice    string        // about the test as a whole; "" = none
	Left      int           // attempts that have no row
	Failed    string        // the tests that have used the pods and failed
	Log       []event
	Processes string
	Labels    []time.Duration // of the axis

	from, until time.Duration // the ends of the axis
}

// A row is an attempt in the picture.
type row struct {
	*Attempt
	Files  []string
	Bars   []bar
	Events []event
	Left   int // events that are left out
	Charts []chart
	Users  []string // tests, with what is known of their use
}

// A failure is one of the test's, or a start that has failed while the test went on.
type failure struct {
	*Attempt
	When    time.Time
	At      time.Duration
	Message string
	Told    bool // to the test
}

// A bar is a step of an attempt.
type bar struct {
	Kind        string
	From, Until time.Duration
}

// Took returns how long a step was.
func (b bar) Took() string { return short(b.Until - b.From) }

// An event is one of an attempt, or a line of its log.
type event struct {
	*Attempt   // nil = it is one of the test
	At         time.Duration
	Kind, What string
}

var (
	//go:embed report.html.tmpl
	reportText     string
	reportTemplate = sync.OnceValue(func() *template.Template {
		return template.Must(template.New("").Funcs(template.FuncMap{
			"advice": failure.advice,
			"clock":  func(d time.Duration) string { return fmt.Sprintf("%+.6f", d.Seconds()) },
			"link":   func(file string) string { return "./" + url.PathEscape(file) },
			"short":  short,
			"show":   podlog.PrintableLines,
			"steps": func() [][2]string {
				return [][2]string{{"launch", "launch"}, {"first", "until the first line"}, {"ready", "until the ready line"}, {"connect", "until connected"}, {"life", "its life from then"}, {"failed", "until the start had failed"}}
			},
			"shapes": func() [][2]string {
				return [][2]string{{"ready", "ready line"}, {"connect", "connected"}, {"act", "stop, signal"}, {"end", "end"}, {"open", "still ran"}, {"failed", "failed"}}
			},
		}).Parse(reportText))
	})
)

func short(d time.Duration) string {
	if d < time.Second {
		return d.Round(10 * time.Microsecond).String()
	}
	return d.Round(time.Millisecond).String()
}

// Shorten cuts a text for people to so many bytes.
func Shorten(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return fmt.Sprintf("%s… (%d bytes more)", strings.ToValidUTF8(text[:most], ""), len(text)-most)
}

// advice tells what to do about a start of a verdict, which has waited for what is missing.
var advice = []struct{ verdict, missing, text string }{
	{"invalid config", "", "Nothing was started: correct the field that the message names."},
	{"launch failed", "", "The system could not execute the program: is it there, may it be executed, are its interpreter and the directory there?"},
	{"malformed ready line", "", "Have it write YOI-READY, its name and the path of its socket, with tabs between them, as one line."},
	{"wrong name", "", "Have it announce the name that --pod has given it."},
	{"socket error", "", "Have it bind a socket of its own and listen on it before its ready line has the path."},
	{"timed out", "socket", "It has announced its socket, but nobody answers there: have it bind and listen first, and then announce."},
	{"timed out", "ready line", "It ran but did not say that it is ready: see below what its threads waited for (Config.DumpSignal has it tell more). If it is only slow, raise Config.ReadyTimeout."},
	{WhyFailed, "", "The message of the test is in the output of go test: no pod or client here was what it failed of."},
	{WhyLate, "", "It hangs: see below what the threads of its pods wait for, and in the output of go test where its goroutines stand."},
	{WhyEnded, "", "The output of go test has the panic or the last words. Where it has none, the test binary was killed, as when memory is short (dmesg) or a job is cancelled."},
}

func adviceFor(verdict, missing string) string {
	for _, a := range advice {
		if verdict == a.verdict && (a.missing == "" || missing == a.missing) {
			return a.text
		}
	}
	return ""
}

// advice tells what to do about a failure, by what is known beside its message; "" = nothing.
func (f failure) advice() string {
	const killed = "Nobody here has sent SIGKILL: the system does when memory is short (dmesg), and so does whoever cancels a job."
	end := slices.IndexFunc(f.Marks, func(m Mark) bool { return m.Last })
	byItself := end >= 0 && !slices.ContainsFunc(f.Marks[:end], Mark.asks)
	switch start := f.StartFailed; {
	case start != nil && start.Status == "signal: killed", start == nil && byItself && f.Marks[end].What == "signal: killed":
		return killed
	case start != nil:
		return adviceFor(start.Verdict, start.Missing)
	case f.Pod == "" || byItself || end >= 0 && f.Marks[end].At.Before(f.When):
		return ""
	case f.Dump == 0:
		return "It still ran: see below what its threads waited for (Config.DumpSignal has it tell more)."
	}
	if len(f.Goroutines) > 0 {
		return "It still ran: what its goroutines waited for is below, and in its log all of it."
	}
	return "It still ran: see below what its threads waited for, and in its log what it wrote when it was asked."
}

// failures returns what the test has failed of, in the order of time, and then the starts that
// have failed while it went on.
func (r *Record) failures() (all []failure) {
	for _, a := range r.Lives {
		for _, m := range a.Failures {
			all = append(all, failure{a, m.At, r.since(m.At), m.What, true})
		}
		if a.Error != "" && len(a.Failures) == 0 {
			at := a.Timeline.Start.Add(a.Timeline.Ended)
			all = append(all, failure{a, at, r.since(at), a.Error, false})
		}
	}
	slices.SortStableFunc(all, func(a, b failure) int {
		if a.Told != b.Told {
			return map[bool]int{true: -1, false: 1}[a.Told]
		}
		return a.When.Compare(b.When)
	})
	return all
}

// writeReport writes what a person wants to see first, as a page that has a 16th of
// the room.
func (r *Record) writeReport(w io.Writer) error {
	for most := 2048; ; most /= 2 {
		var text bytes.Buffer
		p, err := r.page(most)
		err = cmp.Or(err, reportTemplate().Execute(&text, p))
		if int64(text.Len()) <= r.Most/16 || most == 16 {
			return cmp.Or(err, second(text.WriteTo(w)))
		}
	}
}

// page returns the page with at most so many lines, as many events, and all else in
// proportion.
func (r *Record) page(most int) (*page, error) {
	const perLine, perLife = 256, 8
	some := *r
	if half := most / perLife / 2; len(r.Lives) > 2*half {
		some.Lives = slices.Concat(r.Lives[:half], r.Lives[len(r.Lives)-half:])
	}
	processes, processesErr := r.processes()
	p := &page{
		Nonce: uuid.NewString(), Test: r.Name, Why: r.Why, Begin: r.start(), Snapshot: r.since(r.Until),
		Left: len(r.Lives) - len(some.Lives), Processes: Shorten(string(processes), most*perLine/4), Failures: r.failures(),
		Failed: r.failedUsers(max(1, min(20, most/64))),
	}
	p.Moment, p.Advice = p.Snapshot, adviceFor(r.Why, "")
	if len(p.Failures) > 0 && p.Failures[0].Told {
		p.Moment = p.Failures[0].At
		if r.Why == WhyFailed {
			p.Advice = ""
		}
	}
	p.Failures = p.Failures[:min(len(p.Failures), maxFailures)]
	for i, f := range p.Failures {
		p.Failures[i].Message = Shorten(f.Message, most*perLine/8)
	}
	p.Log = []event{{nil, p.Snapshot, "failed", r.Why}}
	times := []time.Duration{p.Moment}
	for _, a := range some.Lives {
		row := r.row(a, most/len(some.Lives))
		p.Rows = append(p.Rows, row)
		if len(a.Goroutines) > 0 && len(p.Asked) < max(1, min(maxFailures, most/64)) {
			p.Asked = append(p.Asked, a)
		}
		p.Log = append(p.Log, row.Events...)
		times = append(times, r.since(a.Timeline.Start))
		for i := 0; i < len(a.Stamps); i += 1 + len(a.Stamps)/1000 {
			times = append(times, r.since(a.Stamps[i].At))
		}
	}
	err := some.eachLine(int64(most*perLine), perLine, func(a *Attempt, at time.Time, line string) error {
		if at.IsZero() {
			at = a.Timeline.Start
		}
		p.Log = append(p.Log, event{a, r.since(at), "line", Shorten(line, 2000)})
		return nil
	})
	slices.SortStableFunc(p.Log, inTime)
	for _, e := range p.Log {
		times = append(times, e.At)
	}
	p.scale(times)
	return p, cmp.Or(err, processesErr)
}

// processes returns the text of processes.txt.
func (r *Record) processes() ([]byte, error) {
	return r.at.ReadFile("processes.txt", 16<<20)
}

func (r *Record) since(at time.Time) time.Duration { return at.Sub(r.start()) }

func inTime(a, b event) int { return cmp.Compare(a.At, b.At) }

// row returns the row of an attempt, with at most so many of its events.
func (r *Record) row(a *Attempt, most int) *row {
	row := &row{Attempt: a, Charts: a.samples.charts(min(max(8, most), 120)), Users: r.users(a, most)}
	for _, file := range []string{a.FileName(), a.Name + ".dir", a.Name + ".txtar"} {
		if r.at.Has(file) {
			row.Files = append(row.Files, file)
		}
	}
	add := func(at time.Time, kind, what string) {
		row.Events = append(row.Events, event{a, r.since(at), kind, what})
	}
	from := r.since(a.Timeline.Start)
	step := func(kind string, until time.Time) {
		row.Bars = append(row.Bars, bar{kind, from, r.since(until)})
		from = r.since(until)
	}
	for i, until := range phases(a.Timeline) {
		if until > 0 {
			at := a.Timeline.Start.Add(until)
			kind, _, _ := strings.Cut(phaseNames[i], " ")
			add(at, kind, phaseNames[i])
			step(kind, at)
		}
	}
	end, how := a.end(r.Until)
	if len(row.Bars) > 0 && r.since(end) > from {
		step("life", end)
	}
	if how == "" && len(row.Bars) > 0 {
		add(end, "open", "it still ran")
	}
	for _, m := range a.Marks {
		kind := "act"
		if m.Last {
			kind = "end"
		} else if m.What == Connected {
			kind = "connect"
		}
		add(m.At, kind, m.What)
	}
	for _, m := range a.Failures {
		what, _, _ := strings.Cut(m.What, "\n")
		add(m.At, "failed", "the test failed: "+what)
	}
	slices.SortStableFunc(row.Events, inTime)
	if row.Left = max(0, len(row.Events)-most); row.Left > 0 {
		row.Events = slices.Delete(row.Events, most/2, most/2+row.Left)
	}
	return row
}

// Growth returns when the log of an attempt grew, as a path in a picture that is 500 wide.
func (p *page) Growth(r *row) string {
	var path []byte
	last := -1
	for _, s := range r.Stamps {
		if x := int(5 * p.place(s.At.Sub(p.Begin))); x != last {
			path = fmt.Appendf(path, "M%d 0v1", x)
			last = x
		}
	}
	return string(path)
}

// X returns where on the axis a time is.
func (p *page) X(at time.Duration) string { return fmt.Sprintf("%.2f%%", p.place(at)) }

// Anchor returns which end of a label at the moment is there, so that it stays on the page.
func (p *page) Anchor() string {
	if p.place(p.Moment) > 90 {
		return "end"
	}
	return "start"
}

// Width returns how long a part of the axis is.
func (p *page) Width(b bar) string {
	return fmt.Sprintf("%.2f%%", p.place(b.Until)-p.place(b.From))
}

// place returns where on the axis a time is, in percent of its length.
func (p *page) place(at time.Duration) float64 {
	return 100 * float64(at-p.from) / float64(max(1, p.until-p.from))
}

// scale makes the axis, on which something happens at these times.
func (p *page) scale(times []time.Duration) {
	const most = 6 // labels: there is room for them on a phone
	p.from, p.until = slices.Min(times), slices.Max(times)
	step := time.Duration(1)
	for i := 0; step*most < p.until-p.from; i++ { // 1, 2, 5, 10, 20 ...
		if step *= 2; i%3 == 1 {
			step += step / 4
		}
	}
	for at := p.from.Truncate(step); p.place(at) < 93; at += step {
		if at >= p.from {
			p.Labels = append(p.Labels, at)
		}
	}
}
