module example.org/agent

go 1.24.0

require (
	example.com/podharness v0.0.0
	github.com/google/uuid v1.6.0
)

require (
	github.com/creack/pty v1.1.24 // indirect
	golang.org/x/sys v0.35.0 // indirect
)

replace example.com/podharness => ../..
