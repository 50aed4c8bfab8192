module example.org/agent

go 1.23.0

require example.com/podharness v0.0.0
