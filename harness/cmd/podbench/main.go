// Podbench measures what starting pods costs, and prints the README's table of
// figures again:
//
//	go run ./harness/cmd/podbench
//
// It runs the benchmarks of spawn and harness, from the top of the repository; that
// takes about a quarter of an hour on two cores. With -write it puts the figures into
// README.md and draws harness/growth.svg anew.
package main

import (
	"bufio"
	"bytes"
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"text/template"
)

func main() {
	short := flag.Bool("short", false, "a quick look: one run with fewer pods and smaller logs")
	runs := flag.Int("runs", 5, "how often each benchmark is run; the medians count")
	write := flag.Bool("write", false, "write README.md and harness/growth.svg")
	flag.Parse()
	if flag.NArg() > 0 || *runs < 1 || *short && *write {
		fmt.Fprintln(os.Stderr, "podbench: want no arguments, -runs of at least 1, and not -short with -write")
		flag.Usage()
		os.Exit(2)
	}
	if err := run(*short, *runs, *write); err != nil {
		fmt.Fprintln(os.Stderr, "podbench:", err)
		os.Exit(1)
	}
}

func run(short bool, runs int, write bool) error {
	if _, err := os.Stat("spawn/bench_test.go"); err != nil {
		return fmt.Errorf("run this at the top of the podharness repository: %w", err)
	}
	r := results{values: map[[2]string][]float64{}}
	if err := r.measureAll(short, runs); err != nil {
		return err
	}
	page, err := r.page(short)
	if err != nil {
		return err
	}
	fmt.Print(page)
	if !write {
		return nil
	}
	return r.write(page)
}

// write puts the figures into the README and draws the curve.
func (r *results) write(page string) error {
	curve, err := r.curve()
	if err != nil {
		return err
	}
	readme, err := os.ReadFile("README.md")
	if err == nil {
		readme, err = replacePage(readme, page)
	}
	if err != nil {
		return err
	}
	return errors.Join(os.WriteFile("harness/growth.svg", []byte(curve), 0o644), os.WriteFile("README.md", readme, 0o644))
}

func (r *results) measureAll(short bool, runs int) error {
	args := []string{"-run", "^$", "-timeout", "1h", "-count", strconv.Itoa(runs)}
	if short {
		args = append(args, "-short", "-benchtime", "1x", "-count", "1")
	}
	// Large logs come last: a disk is busy with them for a while.
	const large = "Follow|Flood"
	if err := r.measure(slices.Concat(args, []string{"-bench", ".", "-skip", large + "|Suite", "./spawn", "./harness"})); err != nil {
		return err
	}
	// Its runs are many tests each.
	if err := r.measure(slices.Concat(args, []string{"-bench", "Suite", "-count", "1", "./harness"})); err != nil {
		return err
	}
	return r.measure(slices.Concat(args, []string{"-bench", large, "./spawn"}))
}

// replacePage puts a page between the two comments that enclose it.
func replacePage(readme []byte, page string) ([]byte, error) {
	const begin, end = "<!-- podbench -->\n", "<!-- /podbench -->\n"
	before, rest, ok := bytes.Cut(readme, []byte(begin))
	_, after, ok2 := bytes.Cut(rest, []byte(end))
	if !ok || !ok2 {
		return nil, fmt.Errorf("README.md has lost %q or %q", begin, end)
	}
	return slices.Concat(before, []byte(begin+page+end), after), nil
}

// results are what was measured.
type results struct {
	cpu    string
	values map[[2]string][]float64 // by benchmark and unit
}

// median fails where nothing was measured.
func (r *results) median(name, unit string) (float64, error) {
	all := slices.Sorted(slices.Values(r.values[[2]string{name, unit}]))
	if len(all) == 0 {
		return 0, fmt.Errorf("benchmark %s has no %s (was it skipped?)", name, unit)
	}
	return all[len(all)/2], nil
}

// measure runs benchmarks and shows their output as it comes.
func (r *results) measure(args []string) error {
	cmd := exec.Command("go", append([]string{"test"}, args...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	readErr := r.read(io.TeeReader(out, os.Stderr))
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("go test %s: %w", strings.Join(args, " "), err)
	}
	return readErr
}

// benchmarkLine is the benchmark format (go.dev/design/14313-benchmark-format):
// the name with the number of CPUs, the iterations, then values with their units.
// golang.org/x/perf/benchfmt reads it, too, but is no dependency for 20 lines.
var benchmarkLine = regexp.MustCompile(`^Benchmark(\S+?)(?:-\d+)?\s+\d+\s+(.*)$`)

func (r *results) read(from io.Reader) error {
	lines := bufio.NewScanner(from)
	for lines.Scan() {
		if cpu, ok := strings.CutPrefix(lines.Text(), "cpu: "); ok {
			r.cpu = cpu
		}
		match := benchmarkLine.FindStringSubmatch(lines.Text())
		if match == nil {
			continue
		}
		fields := strings.Fields(match[2])
		for i := 0; i+1 < len(fields); i += 2 {
			value, err := strconv.ParseFloat(fields[i], 64)
			if err != nil {
				return fmt.Errorf("benchmark line %q: %w", lines.Text(), err)
			}
			key := [2]string{match[1], fields[i+1]}
			r.values[key] = append(r.values[key], value)
		}
	}
	return lines.Err()
}

var (
	//go:embed page.md.tmpl
	pageText string
	//go:embed curve.svg.tmpl
	curveText string
)

// page returns the README's text.
func (r *results) page(short bool) (string, error) {
	kernel, err := exec.Command("uname", "-sr").Output()
	if err != nil {
		return "", err
	}
	return r.fill(pageText, map[string]any{
		"CPU": r.cpu, "CPUs": runtime.NumCPU(), "System": strings.TrimSpace(string(kernel)), "Go": runtime.Version(), "Short": short,
	})
}

func (r *results) fill(text string, data any) (string, error) {
	t, err := template.New("").Funcs(template.FuncMap{
		"mul":  func(a, b int) int { return a * b },
		"half": func(a int) int { return a / 2 },
		"n": func(format, name, unit string) (string, error) {
			value, err := r.median(name, unit)
			return fmt.Sprintf(format, value), err
		},
	}).Parse(text)
	if err != nil {
		return "", err
	}
	var out strings.Builder
	err = t.Execute(&out, data)
	return out.String(), err
}

// live returns the numbers of live pods that were measured.
func (r *results) live() (counts []int) {
	for key := range r.values {
		var n int
		if _, err := fmt.Sscanf(key[0], "LivePods/%d", &n); err == nil && key[1] == "start-ms" {
			counts = append(counts, n)
		}
	}
	slices.Sort(counts)
	return counts
}

// A panel is one diagram of the curve: its lines over the number of live pods.
type panel struct {
	X, Top int // of its left lower corner, and of the highest value
	Title  string
	Lines  []line
}

type line struct {
	unit                 string
	Name, Colour, Points string
	LabelY               int
}

// curve draws how the cost of a pod grows with the number of those that live.
// The axis of the pods is logarithmic, and each diagram begins at zero, so that
// what is flat looks flat.
func (r *results) curve() (string, error) {
	const width, height, apart = 150, 140, 220
	live := r.live()
	if len(live) < 2 {
		return "", fmt.Errorf("a curve needs more than %d points", len(live))
	}
	panels := []panel{
		{Title: "start, ms", Lines: []line{{unit: "start-ms"}, {unit: "floor-ms"}}},
		{Title: "stop, ms", Lines: []line{{unit: "stop-ms"}}},
		{Title: "parent's KiB for each", Lines: []line{{unit: "KiB/pod"}}},
		{Title: "parent's µs/s for each", Lines: []line{{unit: "cpu-µs/s/pod"}}},
	}
	for i := range panels {
		panels[i].X = 50 + i*apart
		if err := r.draw(&panels[i], live, width, height); err != nil {
			return "", err
		}
	}
	return r.fill(curveText, map[string]any{"Panels": panels, "Live": live, "Width": width, "Step": width / (len(live) - 1)})
}

// draw scales the lines of a panel to its highest value.
func (r *results) draw(d *panel, live []int, width, height int) error {
	values, top := make([][]float64, len(d.Lines)), 0.0
	for j, l := range d.Lines {
		for _, n := range live {
			v, err := r.median(fmt.Sprintf("LivePods/%d", n), l.unit)
			if err != nil {
				return err
			}
			values[j] = append(values[j], v)
			top = max(top, v)
		}
	}
	d.Top = int(top) + 1
	for j := range d.Lines {
		l, y := &d.Lines[j], 0
		for k, v := range values[j] {
			y = height + 40 - int(math.Round(max(0, v)/float64(d.Top)*float64(height)))
			l.Points += fmt.Sprintf(" %d,%d", d.X+k*width/(len(live)-1), y)
		}
		l.Points = l.Points[1:]
		l.Name, _, _ = strings.Cut(l.unit, "-")
		l.Colour, l.LabelY = []string{"#0b6e99", "#999"}[j], y+[]int{-5, 15}[j]
	}
	return nil
}
