#!/usr/bin/env bash
# Checks the charts: lint, golden renders, values that must be refused, rights, names of metrics. UPDATE=1 writes the golden renders anew.
# What may stop reading early (grep -q, cmp, awk with exit) reads files and no pipes: with pipefail, who still writes would fail the check.
# Needs Helm: HELM=path, or `helm` on PATH, or the one that the harness of e2e/kubernetes has built. Without it, nothing is checked and that is
# said; with TANDEM_REQUIRE_HELM=1 it is an error.
set -euo pipefail
cd "$(dirname "$0")/.."

# Helm asks no cluster here; this is the version that templates are told.
KUBERNETES=1.36.0

find_helm() {
  if [ -n "${HELM:-}" ]; then echo "$HELM"; return; fi
  if command -v helm; then return; fi
  find "${XDG_CACHE_HOME:-$HOME/.cache}/tandem/kubernetes" -name helm -type f -perm -u+x 2>/dev/null | sort -V | tail -n 1 || true
}

HELM="$(find_helm)"
if [ -z "$HELM" ]; then
  echo "skipped all checks of the charts: helm is missing (set HELM=path, or build it: cargo run -p tandem-e2e-kubernetes -- build)" >&2
  [ "${TANDEM_REQUIRE_HELM:-}" != 1 ]
  exit
fi

scratch="$(mktemp -d)"
trap 'rm -rf "$scratch"' EXIT
failures=0
fail() { echo "error: $*" >&2; failures=$((failures + 1)); }

render() { # chart, release, namespace, more arguments
  "$HELM" template "$2" "charts/$1" --namespace "$3" --kube-version "$KUBERNETES" "${@:4}"
}

# Lints, with the values of every test.
lint() {
  "$HELM" lint --strict --quiet --kube-version "$KUBERNETES" charts/tandem-crds || fail "helm lint charts/tandem-crds"
  for values in charts/tandem/tests/*.yaml; do
    "$HELM" lint --strict --quiet --kube-version "$KUBERNETES" charts/tandem --values "$values" || fail "helm lint with $values"
  done
}

# What is rendered is what is stored, and the same a second time.
golden() {
  for values in charts/tandem/tests/*.yaml; do
    local name; name="$(basename "$values" .yaml)"
    local stored="charts/tandem/golden/$name.yaml"
    render tandem tandem tandem-system --values "$values" > "$scratch/$name.yaml" || { fail "helm template with $values"; continue; }
    render tandem tandem tandem-system --values "$values" > "$scratch/again.yaml" || fail "helm template with $values"
    cmp -s "$scratch/again.yaml" "$scratch/$name.yaml" || fail "$values renders differently each time"
    if [ "${UPDATE:-}" = 1 ]; then cp "$scratch/$name.yaml" "$stored"; fi
    diff -u "$stored" "$scratch/$name.yaml" >&2 || fail "$stored is stale: UPDATE=1 ci/charts.sh"
  done
}

# What must be refused is refused, for the reason that the first line of the file gives.
refusals() {
  for values in charts/tandem/tests/refused/*.yaml; do
    local expected; expected="$(sed -n '1s/^# expects: //p' "$values")"
    if render tandem tandem tandem-system --values "$values" > /dev/null 2> "$scratch/refusal"; then
      fail "$values is accepted"
    elif ! grep -qF -- "$expected" "$scratch/refusal"; then
      fail "$values is refused for another reason than \"$expected\": $(cat "$scratch/refusal")"
    fi
  done
}

# Documents of one kind from a render.
documents() { # kind, file
  awk -v kind="kind: $1" 'BEGIN { RS = "---\n" } index("\n" $0, "\n" kind "\n")' "$2"
}

rights() {
  local render
  for render in "$scratch"/{default,full,namespaced}.yaml; do
    ! grep -nE "(resources|verbs|apiGroups): .*\*" "$render" || fail "a right to everything in $(basename "$render")"
    documents ClusterRole "$render" > "$scratch/roles"
    ! grep -q secrets "$scratch/roles" || fail "$(basename "$render") reads secrets of the cluster"
    # Each rule has one resource, and a comment before it.
    ! grep -nE "resources: \[.*,.*\]$" "$render" | grep -v functionegresses || fail "a rule with several resources in $(basename "$render")"
  done
  grep -q "^kind: ClusterRole$" "$scratch/default.yaml" || fail "the check of kinds sees nothing"
  ! grep -nE "^kind: (ClusterRole|ClusterRoleBinding|ValidatingWebhookConfiguration)$" "$scratch/namespaced.yaml" ||
    fail "namespaced mode has objects of the cluster"
  # What the roles of namespaces hold is what the role of the cluster holds, but for the webhook.
  documents ClusterRole "$scratch/default.yaml" | grep -E "^    resources:" | grep -vE "functionruntimes/scale|validatingwebhook" | sort -u > "$scratch/cluster"
  documents Role "$scratch/namespaced.yaml" | grep -E "^    resources:" | grep -vE "leases" | sort -u > "$scratch/namespace"
  diff -u "$scratch/cluster" "$scratch/namespace" >&2 || fail "rights of the two modes differ"
}

# What charts install is the same wherever and whenever it is rendered.
determinism() {
  ! grep -rnE '\b(lookup|rand[A-Z]\w*|genCA\w*|genS\w*Cert\w*|now|uuidv4|getHostByName)\b' charts/*/templates ||
    fail "a template depends on the cluster, the time or chance"
  ! grep -rn "helm.sh/hook" charts/*/templates | grep -vE "/tests/test.yaml:" || fail "an installation needs a hook"
}

# Metrics that alerts and dashboards name exist, and every alert has a chapter.
metrics() {
  grep -hoE '\btandem_(runtime|operator)_[a-z_]+' docs/src/reference/*metrics*.md | sort -u > "$scratch/known"
  grep -rhoE '\btandem_(runtime|operator)_[a-z_]+' charts/tandem/alerts charts/tandem/dashboards |
    sed -E 's/_(bucket|sum|count)$//' | sort -u > "$scratch/used"
  local unknown; unknown="$(comm -23 "$scratch/used" "$scratch/known")"
  [ -z "$unknown" ] || fail "alerts or dashboards use metrics that no page names: $unknown"
  local alert
  for alert in $(sed -n 's/^- alert: //p' charts/tandem/alerts/*.yaml); do
    grep -qx "## $alert" docs/src/how-to/alerts.md || fail "docs/src/how-to/alerts.md has no chapter $alert"
  done
  for dashboard in charts/tandem/dashboards/*.json; do
    python3 -c 'import json, sys; json.load(open(sys.argv[1]))' "$dashboard" || fail "$dashboard is no JSON"
  done
}

# The page on security names every resource that the operator has rights on.
documentation() {
  local resource
  for resource in $(grep -hoE 'resources: \[[a-z/]+\]' charts/tandem/templates/_rules.tpl charts/tandem/templates/rbac.yaml | sed -E 's/.*\[(.*)\]/\1/' | sort -u); do
    grep -qF "\`$resource\`" docs/src/security.md || fail "docs/src/security.md says nothing of the right on $resource"
  done
}

# Each dashboard becomes a ConfigMap, whole.
dashboards() {
  render tandem tandem tandem-system --set monitoring.dashboards.enabled=true > "$scratch/dashboards.yaml"
  documents ConfigMap "$scratch/dashboards.yaml" > "$scratch/maps"
  for dashboard in charts/tandem/dashboards/*.json; do
    local key="  tandem-$(basename "$dashboard"): |"
    awk -v key="$key" '$0 == key { inside = 1; next } inside && !/^    / { exit } inside' "$scratch/maps" | sed 's/^    //' > "$scratch/dashboard"
    cmp -s "$scratch/dashboard" "$dashboard" || fail "$dashboard is not whole in its ConfigMap"
  done
}

# The charts have the version of the code.
versions() {
  local version; version="$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"$/\1/p' Cargo.toml)"
  local chart
  for chart in charts/*/Chart.yaml; do
    [ "$(grep -cE "^(version|appVersion): $version\$" "$chart")" = 2 ] || fail "$chart has another version than the code, $version"
  done
}

definitions() {
  render tandem-crds tandem-crds tandem-system > "$scratch/definitions.yaml"
  local count; count="$(grep -c '^kind: CustomResourceDefinition$' "$scratch/definitions.yaml")"
  local kept; kept="$(grep -c '^    helm.sh/resource-policy: keep$' "$scratch/definitions.yaml")"
  [ "$count" = 4 ] && [ "$kept" = 4 ] || fail "$kept of $count definitions are kept, of 4"
}

lint
golden
refusals
rights
determinism
metrics
documentation
dashboards
definitions
versions
if [ "$failures" -gt 0 ]; then echo "$failures checks of the charts failed" >&2; exit 1; fi
echo "the charts are right"
