package conformance

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"example.com/podharness/spawn/podlog"
	"golang.org/x/sys/unix"
)

// Flags are the flags that both commands have.
type Flags struct {
	Run, Skip       *regexp.Regexp // of the names of cases; an empty Skip = none
	List            bool
	Strict, Verbose bool
	Parallel        int
	Env             []string
	Evidence        string // the directory for evidence, by case; "" = it is not kept
	Tested          Tested // Parse fills in all but the argv
	Sampled         bool   // each case was run in part: what did not show may be there all the same
	Part            bool   // a run of a part of the cases; a command adds what Parse does not know
	known           []KnownLine
	since, rerun    *Results // earlier runs; nil = none
	json, junit     string   // files; "" = none
	html            string   // a file; "" = none
	summary         string   // a file that is appended to; "" = none
}

// Parse adds the flags to those of the command and parses its arguments. It prints the
// help or the version, or writes the page of earlier runs, if that is asked for, and then
// returns flag.ErrHelp; any other error is a UsageError. Variables of Bazel's and GitHub's
// are defaults.
func (f *Flags) Parse(flags *flag.FlagSet, usage string, args []string, stdout, stderr io.Writer) error {
	f.Run, f.Skip = regexp.MustCompile(""), regexp.MustCompile("")
	flags.TextVar(f.Run, "run", f.Run, "run only the cases whose name matches the `REGEXP`")
	flags.TextVar(f.Skip, "skip", f.Skip, "leave out the cases whose name matches the `REGEXP`")
	flags.BoolVar(&f.List, "list", false, "list the cases, and run none")
	flags.BoolVar(&f.Strict, "strict", false, "a should counts as a must")
	flags.BoolVar(&f.Verbose, "v", false, "show what was met, too")
	flags.IntVar(&f.Parallel, "parallel", runtime.NumCPU(), "how many cases compute at once")
	flags.Func("env", "add `NAME=VALUE` to the environment of what is tested, or pass a NAME on; repeatable", func(entry string) error {
		if name, _, _ := strings.Cut(entry, "="); name == "" {
			return errors.New("it has no name")
		}
		f.Env = append(f.Env, entry)
		return nil
	})
	flags.Func("known", "accept the findings that `FILE` lists: a line is REQUIREMENT: REASON or REQUIREMENT/CASE: REASON, or a # comment; repeatable", func(path string) error {
		known, err := readKnown(path)
		f.known = append(f.known, known...)
		return err
	})
	earlier := func(r **Results) func(string) error {
		return func(path string) (err error) {
			*r, err = readRun(path, flags.Name())
			return err
		}
	}
	flags.Func("since", "tell what is new, mended or slower since an earlier run, whose -json wrote `FILE`", earlier(&f.since))
	flags.Func("rerun", "run only the cases that did not pass in an earlier run, whose -json wrote `FILE`", earlier(&f.rerun))
	flags.StringVar(&f.Tested.Name, "name", "", "the `NAME` of what is tested, in reports (default the base name of its program)")
	flags.StringVar(&f.json, "json", "", "write JSON to `FILE`: a line that tells what was tested, one for each check, the summary")
	flags.StringVar(&f.junit, "junit", os.Getenv("XML_OUTPUT_FILE"), "write JUnit's XML to `FILE`")
	flags.StringVar(&f.summary, "summary", os.Getenv("GITHUB_STEP_SUMMARY"), "append Markdown to `FILE`: the findings, with what to do, then all requirements")
	flags.StringVar(&f.html, "html", "", "write a page of the run to `FILE`; with only files *.json after the flags, nothing is run: the page shows these runs side by side")
	flags.StringVar(&f.Evidence, "o", os.Getenv("TEST_UNDECLARED_OUTPUTS_DIR"), "keep the evidence of findings in `DIR`, by case")
	version := flags.Bool("version", false, "print the version, and run nothing")
	flags.SetOutput(io.Discard)
	err := flags.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprint(stdout, usage)
		flags.SetOutput(stdout)
		flags.PrintDefaults()
		fmt.Fprint(stdout, statuses)
		return err
	case err != nil:
		return Usagef("%w (%s -help tells the usage)", err, flags.Name())
	case *version:
		v, commit := build()
		fmt.Fprintf(stdout, "%s %s commit %s %s %s/%s\n", flags.Name(), v, commit, runtime.Version(), runtime.GOOS, runtime.GOARCH)
		return flag.ErrHelp
	case f.Parallel < 1:
		return Usagef("-parallel %d runs nothing", f.Parallel)
	}
	f.Part = f.Run.String() != "" || f.Skip.String() != "" || f.rerun != nil
	f.Tested.Flags = f.given(flags, args[:len(args)-flags.NArg()])
	if done, err := f.compare(flags); done {
		return cmp.Or(err, flag.ErrHelp)
	}
	if f.Evidence != "" {
		f.Evidence, err = filepath.Abs(f.Evidence)
	}
	return err
}

// quiet are the flags that do not change what is tested, or that Tested has elsewhere.
var quiet = []string{"name", "v", "o", "work", "since", "json", "junit", "html", "summary", "pod", "pod-arg"}

// given returns the flags on a command line, each with its value, but for the quiet ones.
func (f *Flags) given(flags *flag.FlagSet, args []string) (words []string) {
	for len(args) > 0 && args[0] != "--" {
		name, value, ok := strings.Cut(strings.TrimLeft(args[0], "-"), "=")
		args = args[1:]
		if b, is := flags.Lookup(name).Value.(interface{ IsBoolFlag() bool }); !ok && !(is && b.IsBoolFlag()) {
			value, ok, args = args[0], true, args[1:]
		}
		if name == "env" {
			value, _, _ = strings.Cut(value, "=") // it may be a secret
		}
		if word := "-" + name; !slices.Contains(quiet, name) {
			if ok {
				word += "=" + value
			}
			words = append(words, word)
		}
	}
	return words
}

// build returns the version and the commit of the running program.
func build() (version, commit string) {
	version, commit = "(devel)", "unknown"
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return version, commit
	}
	settings := map[string]string{}
	for _, s := range info.Settings {
		settings[s.Key] = s.Value
	}
	commit = cmp.Or(settings["vcs.revision"], commit)
	if settings["vcs.modified"] == "true" {
		commit += " (modified)"
	}
	return cmp.Or(info.Main.Version, version), commit
}

// here completes what was tested by this program, this system and the time.
func (t Tested) here(command string) Tested {
	t.Command = command
	if t.Name == "" && len(t.Argv) > 0 {
		t.Name = filepath.Base(t.Argv[0])
	}
	t.Name = cmp.Or(t.Name, command)
	t.Version, t.Commit = build()
	t.System, t.Time = runtime.GOOS+"/"+runtime.GOARCH, time.Now()
	var name unix.Utsname
	if err := unix.Uname(&name); err == nil {
		t.Kernel = unix.ByteSliceToString(name.Release[:])
	}
	return t
}

// Chosen reports whether -run, -skip and -rerun choose a case.
func (f *Flags) Chosen(name string) bool {
	return f.Run.MatchString(name) && (f.Skip.String() == "" || !f.Skip.MatchString(name)) &&
		(f.rerun == nil || slices.ContainsFunc(f.rerun.Checks, func(c Check) bool { return c.Case == name && c.Result != Pass }))
}

// NoneChosen is the error for when they choose none.
func (f *Flags) NoneChosen() error {
	err := fmt.Errorf("no case matches -run %q", f.Run)
	if f.Skip.String() != "" {
		err = fmt.Errorf("%w and not -skip %q", err, f.Skip)
	}
	if f.rerun != nil {
		err = fmt.Errorf("%w and did not pass in %s (-rerun)", err, f.rerun.File)
	}
	return UsageError{err}
}

// Program returns the absolute path of a program, or a UsageError like a shell's.
func Program(word string) (string, error) {
	path, err := exec.LookPath(word)
	if err == nil {
		path, err = filepath.Abs(path)
	}
	var lookup *exec.Error
	switch {
	case errors.Is(err, fs.ErrNotExist) && strings.Contains(word, "/"):
		err = Usagef("%s: not found", word)
	case errors.Is(err, exec.ErrNotFound):
		err = Usagef("%s: not found in PATH", word)
		if _, here := os.Stat(word); here == nil {
			err = Usagef("%w: did you mean ./%s?", err, word)
		}
	case errors.As(err, &lookup) && errors.Is(err, fs.ErrPermission):
		err = Usagef("%s: %w (chmod +x makes a file a program)", word, lookup.Err)
	case errors.As(err, &lookup):
		err = Usagef("%s: %w", word, lookup.Err)
	}
	return path, err
}

// Report returns the report of a run with so many cases. It creates the files that the
// flags name. The error is a UsageError if one of them, or a file in the directory for
// evidence, cannot be created.
func (f *Flags) Report(name string, cases int, stdout, stderr io.Writer) (*Report, error) {
	if err := enough(); err != nil {
		return nil, err
	}
	if f.Evidence != "" {
		if err := writable(f.Evidence); err != nil {
			return nil, Usagef("-o: %w", err)
		}
	}
	r := &Report{Flags: *f, Out: stdout, total: cases, github: os.Getenv("GITHUB_ACTIONS") == "true", told: map[string]string{}, results: Results{Tested: f.Tested.here(name)}}
	if podlog.IsTerminal(stderr) {
		r.progress = stderr
	}
	page := func(results *Results, w io.Writer) error { return writeHTML(w, []*Results{results}) }
	for _, report := range []struct {
		path  string
		flag  int
		write func(*Results, io.Writer) error
	}{{f.json, os.O_TRUNC, (*Results).writeJSON}, {f.junit, os.O_TRUNC, (*Results).writeJUnit}, {f.html, os.O_TRUNC, page}, {f.summary, os.O_APPEND, (*Results).writeMarkdown}} {
		if report.path == "" {
			continue
		}
		if report.path == "-" {
			return nil, Usagef("a report cannot be written to -: name a file, such as /dev/stdout")
		}
		file, err := os.OpenFile(report.path, os.O_WRONLY|os.O_CREATE|report.flag, 0o666)
		if err != nil {
			return nil, UsageError{err}
		}
		r.files = append(r.files, func(results *Results) error { return errors.Join(report.write(results, file), file.Close()) })
	}
	return r, nil
}
