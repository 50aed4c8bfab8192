// Podbench measures what starting pods costs, and prints the README's table of
// figures again:
//
//	go run ./harness/cmd/podbench
//
// It runs the benchmarks of spawn and harness, from the top of the repository; that
// takes about a quarter of an hour on two cores. With -write it puts the figures into
// README.md.
package main

import (
	"bufio"
	"bytes"
	_ "embed"
	"flag"
	"fmt"
	"io"
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
	write := flag.Bool("write", false, "write README.md")
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
	readme, err := os.ReadFile("README.md")
	if err == nil {
		readme, err = replacePage(readme, page)
	}
	if err != nil {
		return err
	}
	return os.WriteFile("README.md", readme, 0o644)
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

//go:embed page.md.tmpl
var pageText string

// page returns the README's text.
func (r *results) page(short bool) (string, error) {
	kernel, err := exec.Command("uname", "-sr").Output()
	if err != nil {
		return "", err
	}
	t, err := template.New("").Funcs(template.FuncMap{
		"n": func(format, name, unit string) (string, error) {
			value, err := r.median(name, unit)
			return fmt.Sprintf(format, value), err
		},
	}).Parse(pageText)
	if err != nil {
		return "", err
	}
	var out strings.Builder
	err = t.Execute(&out, map[string]any{
		"CPU": r.cpu, "CPUs": runtime.NumCPU(), "System": strings.TrimSpace(string(kernel)), "Go": runtime.Version(), "Short": short,
	})
	return out.String(), err
}
