//go:build tools

// Package pd names the published module that pd-server is built from, so that go.mod and go.sum pin it. There is no code
// of ours in it.
package pd

import _ "github.com/tikv/pd/cmd/pd-server"
