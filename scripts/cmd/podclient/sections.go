package main

// sections are those of the contract that have the requirements. A finding may name one of
// them, or another.
var sections = map[string]string{
	"arguments": "1", "verdict": "2, 3, 4", "prompt": "3, 4", "independent": "1", "clean": "1, 4", "reason": "4", "terminal": "2",
}
