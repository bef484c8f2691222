// Package gitops judges samples and charts with the engines of the tools that read them. Alerts and dashboards: the parser of Prometheus.
// What the samples in examples/gitops say of every kind of status: the Lua interpreter of Argo CD, the evaluator of Flux, and kstatus.
package gitops

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"github.com/fluxcd/pkg/apis/kustomize"
	fluxcel "github.com/fluxcd/pkg/runtime/cel"
	lua "github.com/yuin/gopher-lua"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
	sigsyaml "sigs.k8s.io/yaml"
)

const (
	apiVersion = "tandem.dev/v1alpha1"
	samples    = "../../examples/gitops"
	// The generation of a resource whose case names none.
	usualGeneration = 2
)

var kinds = []string{"Function", "FunctionEgress", "FunctionRoute", "FunctionRuntime"}

type sample struct {
	Name       string         `json:"name"`
	Generation int64          `json:"generation"`
	Status     map[string]any `json:"status"`
	Kstatus    string         `json:"kstatus"`
	Flux       string         `json:"flux"`
	Argocd     string         `json:"argocd"`
	Message    string         `json:"message"`
}

// The resource of a case, as a tool reads it from the API server.
func (s sample) resource(kind string) *unstructured.Unstructured {
	generation := s.Generation
	if generation == 0 {
		generation = usualGeneration
	}
	object := map[string]any{
		"apiVersion": apiVersion,
		"kind":       kind,
		"metadata":   map[string]any{"name": "sample", "namespace": "shop", "generation": generation},
		"spec":       map[string]any{},
	}
	if s.Status != nil {
		object["status"] = s.Status
	}
	// Numbers become what they are in an answer of the API server.
	text, err := sigsyaml.Marshal(object)
	if err != nil {
		panic(err)
	}
	var resource unstructured.Unstructured
	json, err := sigsyaml.YAMLToJSON(text)
	if err != nil {
		panic(err)
	}
	if err := resource.UnmarshalJSON(json); err != nil {
		panic(err)
	}
	return &resource
}

func forEachSample(t *testing.T, judge func(t *testing.T, sample sample, resource *unstructured.Unstructured)) {
	t.Helper()
	text, err := os.ReadFile("testdata/statuses.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var cases []sample
	if err := sigsyaml.UnmarshalStrict(text, &cases); err != nil {
		t.Fatal(err)
	}
	for _, each := range cases {
		for _, kind := range kinds {
			t.Run(each.Name+"/"+kind, func(t *testing.T) { judge(t, each, each.resource(kind)) })
		}
	}
}

// The documents of a file.
func documents(t *testing.T, path string) []*unstructured.Unstructured {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(text), len(text))
	var found []*unstructured.Unstructured
	for {
		document := map[string]any{}
		if err := decoder.Decode(&document); errors.Is(err, io.EOF) {
			return found
		} else if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		found = append(found, &unstructured.Unstructured{Object: document})
	}
}

func TestKstatus(t *testing.T) {
	forEachSample(t, func(t *testing.T, sample sample, resource *unstructured.Unstructured) {
		result, err := status.Compute(resource)
		if err != nil {
			t.Fatal(err)
		}
		if result.Status.String() != sample.Kstatus {
			t.Errorf("kstatus says %s (%s), not %s", result.Status, result.Message, sample.Kstatus)
		}
	})
}

func fluxEvaluators(t *testing.T) map[string]*fluxcel.StatusEvaluator {
	t.Helper()
	evaluators := map[string]*fluxcel.StatusEvaluator{}
	for _, document := range documents(t, filepath.Join(samples, "flux/tandem.yaml")) {
		if document.GetKind() != "Kustomization" || document.GetName() != "shop" {
			continue
		}
		checks, _, err := unstructured.NestedSlice(document.Object, "spec", "healthCheckExprs")
		if err != nil {
			t.Fatal(err)
		}
		text, err := sigsyaml.Marshal(checks)
		if err != nil {
			t.Fatal(err)
		}
		var parsed []kustomize.CustomHealthCheck
		if err := sigsyaml.UnmarshalStrict(text, &parsed); err != nil {
			t.Fatal(err)
		}
		for _, check := range parsed {
			if check.APIVersion != apiVersion {
				t.Errorf("%s has the version %s", check.Kind, check.APIVersion)
			}
			evaluator, err := fluxcel.NewStatusEvaluator(&check.HealthCheckExpressions)
			if err != nil {
				t.Fatal(err)
			}
			evaluators[check.Kind] = evaluator
		}
	}
	return evaluators
}

func TestFlux(t *testing.T) {
	evaluators := fluxEvaluators(t)
	if len(evaluators) != len(kinds) {
		t.Fatalf("there are expressions for %d kinds, not %d", len(evaluators), len(kinds))
	}
	forEachSample(t, func(t *testing.T, sample sample, resource *unstructured.Unstructured) {
		// Flux waits where an expression cannot be answered.
		said := status.UnknownStatus
		result, err := evaluators[resource.GetKind()].Evaluate(context.Background(), resource)
		if err == nil {
			said = result.Status
		}
		if said.String() != sample.Flux {
			t.Errorf("Flux says %s (%v), not %s", said, err, sample.Flux)
		}
	})
}

func scripts(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{}
	for _, document := range documents(t, filepath.Join(samples, "argocd/argocd-cm.yaml")) {
		for _, kind := range kinds {
			key := "resource.customizations.health.tandem.dev_" + kind
			script, _, err := unstructured.NestedString(document.Object, "data", key)
			if err != nil {
				t.Fatal(err)
			}
			found[kind] = script
		}
	}
	return found
}

func TestArgoHasTheScriptForEveryKind(t *testing.T) {
	script, err := os.ReadFile(filepath.Join(samples, "argocd/health.lua"))
	if err != nil {
		t.Fatal(err)
	}
	for kind, found := range scripts(t) {
		if found != string(script) {
			t.Errorf("the script of %s is not health.lua", kind)
		}
	}
}

func TestArgo(t *testing.T) {
	scripts := scripts(t)
	forEachSample(t, func(t *testing.T, sample sample, resource *unstructured.Unstructured) {
		said, message := runScript(t, scripts[resource.GetKind()], resource)
		if said != sample.Argocd {
			t.Errorf("Argo CD says %s (%s), not %s", said, message, sample.Argocd)
		}
		if sample.Message != "" && message != sample.Message {
			t.Errorf("Argo CD says %q, not %q", message, sample.Message)
		}
	})
}

// Runs a script as Argo CD does: only base, table, string and math are there, and the resource is the global `obj`.
func runScript(t *testing.T, script string, resource *unstructured.Unstructured) (string, string) {
	t.Helper()
	state := lua.NewState(lua.Options{SkipOpenLibs: true})
	defer state.Close()
	for _, library := range []struct {
		name string
		open lua.LGFunction
	}{
		{lua.LoadLibName, lua.OpenPackage},
		{lua.BaseLibName, lua.OpenBase},
		{lua.TabLibName, lua.OpenTable},
		{lua.StringLibName, lua.OpenString},
		{lua.MathLibName, lua.OpenMath},
	} {
		open := lua.P{Fn: state.NewFunction(library.open), Protect: true}
		if err := state.CallByParam(open, lua.LString(library.name)); err != nil {
			t.Fatal(err)
		}
	}
	state.SetGlobal("obj", toLua(state, resource.Object))
	if err := state.DoString(script); err != nil {
		t.Fatal(err)
	}
	health, isTable := state.Get(-1).(*lua.LTable)
	if !isTable {
		t.Fatal("the script returns no table")
	}
	return health.RawGetString("status").String(), health.RawGetString("message").String()
}

func toLua(state *lua.LState, value any) lua.LValue {
	switch value := value.(type) {
	case map[string]any:
		table := state.NewTable()
		for key, each := range value {
			table.RawSetString(key, toLua(state, each))
		}
		return table
	case []any:
		table := state.NewTable()
		for _, each := range value {
			table.Append(toLua(state, each))
		}
		return table
	case string:
		return lua.LString(value)
	case bool:
		return lua.LBool(value)
	case int64:
		return lua.LNumber(value)
	case float64:
		return lua.LNumber(value)
	default:
		return lua.LNil
	}
}
