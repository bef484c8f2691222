//go:build tools

// Package helm names the published module that programs are built from, so that go.mod and go.sum pin it. There is no code
// of ours in it.
package helm

import (
	_ "helm.sh/helm/v3/cmd/helm"
)
