package main

import (
	"fmt"
	"os"
	"strconv"

	"example.com/podharness/scripts/internal/conformance"
)

// shard is the number of a part of the cases, from 1, and the number of parts.
type shard struct{ part, parts int }

func (s *shard) set(text string) error {
	var rest string
	n, _ := fmt.Sscanf(text+" ", "%d/%d%s", &s.part, &s.parts, &rest)
	if n != 2 || s.part < 1 || s.part > s.parts {
		return fmt.Errorf("want I/N, such as 1/4 to 4/4")
	}
	return nil
}

// obeyBazel takes the part that Bazel asks for, if there is no -shard, and tells Bazel
// so.
func (s *shard) obeyBazel() error {
	parts, index := os.Getenv("TEST_TOTAL_SHARDS"), os.Getenv("TEST_SHARD_INDEX")
	if parts == "" || s.parts > 1 {
		return nil
	}
	part, err := strconv.Atoi(index)
	if err != nil || s.set(fmt.Sprintf("%d/%s", part+1, parts)) != nil {
		return conformance.Usagef("TEST_SHARD_INDEX %q is no number from 0 to below TEST_TOTAL_SHARDS %q", index, parts)
	}
	if file := os.Getenv("TEST_SHARD_STATUS_FILE"); file != "" {
		return os.WriteFile(file, nil, 0o600)
	}
	return nil
}

// of returns the cases of this part, and with them those that they need, which another
// part reports.
func (s shard) of(cases []*testCase) (run, mine []*testCase) {
	wanted := map[*testCase]bool{}
	for i, c := range cases {
		if c.Foreign = i%s.parts != s.part-1; c.Foreign {
			continue
		}
		mine = append(mine, c)
		for ; c != nil; c = c.need {
			wanted[c] = true
		}
	}
	for _, c := range cases {
		if wanted[c] {
			run = append(run, c)
		}
	}
	return run, mine
}
