module example.org/agent

go 1.24.0

require example.com/podharness v0.0.0
