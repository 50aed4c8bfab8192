// Package options is the inside of spawn, harness and scripts: no promise is made
// about it. It has the options of a start that the configs of all three have, and makes
// the arguments of the handshake and flags of them.
package options

import (
	"cmp"
	"flag"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"example.com/podharness/spawn/fault"
	"github.com/google/uuid"
)

// Options are the options of a start. A config has a field of the same name and
// type for each: one more option is one here and one in each config.
type Options struct {
	Profile    string
	TicketRole string
	NameFlag   string // "" = --pod
	ExtraArgs  []string
	Dir        string
	ResumeFrom *uuid.UUID
	Faults     []fault.Fault
}

// Of returns the options in a config, which is a struct.
func Of(config any) (o Options) {
	from, to := reflect.ValueOf(config), reflect.ValueOf(&o).Elem()
	for i := range to.NumField() {
		to.Field(i).Set(from.FieldByName(to.Type().Field(i).Name))
	}
	return o
}

// To sets the options in a config, which is a pointer to a struct.
func (o Options) To(config any) {
	from, to := reflect.ValueOf(o), reflect.ValueOf(config).Elem()
	for i := range from.NumField() {
		to.FieldByName(from.Type().Field(i).Name).Set(from.Field(i))
	}
}

// Args returns the arguments of the handshake for a pod of a name in a workspace.
func (o Options) Args(workspace, pod string) []string {
	args, name := []string{"--workspace", workspace}, cmp.Or(o.NameFlag, "--pod")
	if o.ResumeFrom != nil {
		args = append(args, "--session", o.ResumeFrom.String(), name, pod)
	} else {
		args = append(args, name, pod)
		if o.Profile != "" {
			args = append(args, "--profile", o.Profile)
		}
	}
	if o.TicketRole != "" {
		args = append(args, "--ticket-role", o.TicketRole)
	}
	return append(args, o.ExtraArgs...)
}

// Flags registers the flags of the options. They are parsed into a config, which is a
// pointer to a struct; what that holds are the defaults.
func Flags(config any, flags *flag.FlagSet) {
	flags.StringVar(field[string](config, "Dir"), "dir", *field[string](config, "Dir"), "the pod's `DIR` to work in (default: the workspace)")
	flags.StringVar(field[string](config, "Profile"), "profile", *field[string](config, "Profile"), "the pod's `PROFILE`")
	flags.StringVar(field[string](config, "TicketRole"), "ticket-role", *field[string](config, "TicketRole"), "the pod's ticket `ROLE`")
	flags.StringVar(field[string](config, "NameFlag"), "name-flag", cmp.Or(*field[string](config, "NameFlag"), "--pod"), "the `FLAG` by which the pod is told its name")
	flags.Func("extra-arg", "an `ARG` after the handshake's; repeatable", func(arg string) error {
		args := field[[]string](config, "ExtraArgs")
		*args = append(slices.Clip(*args), arg)
		return nil
	})
	flags.Func("session", "the `UUID` of the session to resume", func(text string) error {
		id, err := uuid.Parse(text)
		*field[*uuid.UUID](config, "ResumeFrom") = &id
		return err
	})
	flags.Func("fault", "a `FAULT` that system calls of the pod meet, such as rename:path=**/status.json:error=ENOSPC:when=1; repeatable", func(text string) error {
		f, err := fault.Parse(text)
		faults := field[[]fault.Fault](config, "Faults")
		*faults = append(slices.Clip(*faults), f)
		return err
	})
}

func field[T any](config any, name string) *T {
	return reflect.ValueOf(config).Elem().FieldByName(name).Addr().Interface().(*T)
}

// Check returns an error that names the option that cannot be right.
func (o Options) Check() error {
	if o.NameFlag != "" && !strings.HasPrefix(o.NameFlag, "-") {
		return fmt.Errorf("NameFlag %q must begin with -", o.NameFlag)
	}
	for _, f := range o.Faults {
		if err := f.Check(); err != nil {
			return err
		}
	}
	return cmp.Or(
		CheckNUL("Profile", o.Profile), CheckNUL("TicketRole", o.TicketRole), CheckNUL("NameFlag", o.NameFlag),
		CheckNUL("ExtraArgs", o.ExtraArgs...), CheckNUL("Dir", o.Dir),
	)
}

// CheckNUL refuses values of a field that the system would cut at a NUL byte.
func CheckNUL(field string, values ...string) error {
	for _, value := range values {
		if strings.ContainsRune(value, 0) {
			return fmt.Errorf("%s %q holds a NUL byte", field, value)
		}
	}
	return nil
}

// CheckName refuses a name that no pod can have.
func CheckName(name string) error {
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00\t\r\n") {
		return fmt.Errorf("PodName %q must be one path element: not empty, . or .., and without /, NUL, tab, CR or newline", name)
	}
	return nil
}
