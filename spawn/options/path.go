package options

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Absolute returns path as it is from this process's working directory.
func Absolute(path string) (string, error) {
	if filepath.IsAbs(path) {
		return Clean(path), nil
	}
	dir, err := os.Getwd()
	return Below(dir, path), err
}

// Below returns path as it is from dir.
func Below(dir, path string) string {
	if !filepath.IsAbs(path) {
		path = dir + "/" + path
	}
	return Clean(path)
}

// Clean is filepath.Clean but for a path with .. in it: where that leads behind
// a symbolic link, only the system knows.
func Clean(path string) string {
	if slices.Contains(strings.Split(path, "/"), "..") {
		return path
	}
	return filepath.Clean(path)
}
