//go:build unix && (!linux || portable)

package sandbox

import "errors"

func (b *Box) inMemory(string) (string, error) { return "", errors.ErrUnsupported }
