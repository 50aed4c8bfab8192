//go:build !portable

package fault

import "golang.org/x/sys/unix"

const auditArch = unix.AUDIT_ARCH_AARCH64

// older are the calls that only older architectures have.
var older map[string][]sysCall
