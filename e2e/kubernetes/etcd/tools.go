//go:build tools

// Package etcd names the published module that programs are built from, so that go.mod and go.sum pin it. There is no code
// of ours in it.
package etcd

import (
	_ "go.etcd.io/etcd/server/v3"
)
