//go:build tools

// Package coredns names the published module that programs are built from, so that go.mod and go.sum pin it. There is no code
// of ours in it.
package coredns

import (
	_ "github.com/coredns/coredns"
)
