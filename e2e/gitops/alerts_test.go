package gitops

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/promql/parser"
	sigsyaml "sigs.k8s.io/yaml"
)

const chart = "../../charts/tandem"

func files(t *testing.T, pattern string) []string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(chart, pattern))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no files %s in the chart: %v", pattern, err)
	}
	return paths
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// The labels that the result of an expression has, as far as its outermost aggregations say.
func groupedBy(expression parser.Expr) []string {
	switch expression := expression.(type) {
	case *parser.AggregateExpr:
		return expression.Grouping
	case *parser.BinaryExpr:
		return groupedBy(expression.LHS)
	case *parser.ParenExpr:
		return groupedBy(expression.Expr)
	default:
		return nil
	}
}

func TestAlertsAreExpressionsOfPrometheus(t *testing.T) {
	for _, path := range files(t, "alerts/*.yaml") {
		var alerts []struct {
			Alert, Expr, For, Severity, Summary string
		}
		if err := sigsyaml.UnmarshalStrict(read(t, path), &alerts); err != nil {
			t.Fatal(err)
		}
		for _, alert := range alerts {
			expression, err := parser.ParseExpr(alert.Expr)
			if err != nil {
				t.Errorf("%s: %v", alert.Alert, err)
				continue
			}
			// A label that the summary names and the result does not have would be empty.
			for _, word := range strings.Split(alert.Summary, "$labels.")[1:] {
				label, _, _ := strings.Cut(word, " ")
				label = strings.TrimSuffix(label, "}}")
				found := false
				for _, grouped := range groupedBy(expression) {
					found = found || grouped == label
				}
				if !found {
					t.Errorf("%s: the summary names the label %s, which the result does not have", alert.Alert, label)
				}
			}
		}
	}
}

func TestPanelsAreExpressionsOfPrometheus(t *testing.T) {
	for _, path := range files(t, "dashboards/*.json") {
		var dashboard struct {
			Panels []struct {
				Title   string
				Targets []struct{ Expr string }
			}
		}
		if err := json.Unmarshal(read(t, path), &dashboard); err != nil {
			t.Fatal(err)
		}
		count := 0
		for _, panel := range dashboard.Panels {
			for _, target := range panel.Targets {
				count++
				if _, err := parser.ParseExpr(strings.ReplaceAll(target.Expr, "$__rate_interval", "5m")); err != nil {
					t.Errorf("%s: %s: %v", path, panel.Title, err)
				}
			}
		}
		if count == 0 {
			t.Errorf("%s has no panels", path)
		}
	}
}
