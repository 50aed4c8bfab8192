package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"

	"github.com/google/uuid"
)

// config is what agent.json says.
type config struct {
	Workers int    `json:"workers"`
	Motto   string `json:"motto"`
}

func readConfig(workspace string) (config, error) {
	c := config{Workers: 2}
	data, err := os.ReadFile(workspace + "/agent.json")
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &c)
	}
	if err == nil && (c.Workers < 1 || c.Workers > 64) {
		err = fmt.Errorf("%d workers: 1 to 64 are possible", c.Workers)
	}
	if err != nil {
		return c, fmt.Errorf("agent.json: %w", err)
	}
	return c, nil
}

// state is what outlives the agent: a session, in a file that is named after it. The file of
// the pod's name has the session's.
type state struct {
	Session string            `json:"session"`
	Notes   map[string]string `json:"notes"`
	Done    int               `json:"done"` // jobs

	dir string // "" = there is no home: nothing is kept
}

var sessionID = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

func openState(name, session string) (state, error) {
	s := state{Notes: map[string]string{}, dir: firstDir([][2]string{{"YOI_HOME", "/agent"}, {"HOME", "/.yoi/agent"}})}
	id := session
	if last, err := os.ReadFile(s.dir + "/names/" + name); session == "" && s.dir != "" && err == nil {
		id = string(last)
	}
	data, err := os.ReadFile(s.dir + "/sessions/" + id + ".json")
	switch stored := s.dir != "" && sessionID.MatchString(id) && err == nil; {
	case stored:
		if err := json.Unmarshal(data, &s); err != nil {
			return s, fmt.Errorf("session %s: %w", id, err)
		}
	case session != "":
		return s, fmt.Errorf("session %s is not stored", session)
	default:
		s.Session = uuid.NewString()
	}
	if s.dir == "" {
		return s, nil
	}
	for _, dir := range []string{"/sessions", "/names"} {
		if err := os.MkdirAll(s.dir+dir, 0o700); err != nil {
			return s, err
		}
	}
	return s, errors.Join(s.save(), writeAtomically(s.dir+"/names/"+name, []byte(s.Session)))
}

func (s state) save() error {
	if s.dir == "" {
		return nil
	}
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return writeAtomically(s.dir+"/sessions/"+s.Session+".json", data)
}
