package sandbox

import (
	"strings"

	"example.com/podharness/spawn"
)

// placeholders returns what replaces {workspace}, {home}, {runtime} and {name} in the arguments
// and variables of a start by the pod's own. (Those in the paths of faults fault.Fault.Expand
// replaces.)
func (b *Box) placeholders(cfg spawn.Config) func(texts []string) []string {
	words := strings.NewReplacer("{workspace}", cfg.WorkspaceRoot, "{home}", b.Dir("home"), "{runtime}", b.Dir("run"), "{name}", cfg.PodName)
	return func(texts []string) (expanded []string) {
		for _, text := range texts {
			expanded = append(expanded, words.Replace(text))
		}
		return expanded
	}
}
