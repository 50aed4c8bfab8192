//go:build !portable

package fault

// older are the calls that only older architectures have.
var older []family
