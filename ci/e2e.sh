#!/usr/bin/env bash
# Runs the tests on a real Kubernetes: builds programs and images, brings a node up with a PD and three test stores beside it, and takes it
# down again. With KUBECONFIG given, runs them on the cluster that it names, which has to have the images of TANDEM_E2E_REGISTRY and
# TANDEM_E2E_TAG, Service addresses that this machine reaches, and TANDEM_PD_ENDPOINTS that its pods reach.
#   ci/e2e.sh [names of tests]       KEEP=1 leaves the node up.
set -euo pipefail
cd "$(dirname "$0")/.."
target="${CARGO_TARGET_DIR:-target}"
name=e2e
STORES=3
logs="$PWD/.tandem/kubernetes/$name/failed"

packages=(-p tandem-operator -p tandem-server -p orders -p tandem-e2e-kubernetes)
cargo build --quiet "${packages[@]}"
cargo build --quiet -p tandem-e2e-kubernetes --example fickle
cargo test --quiet -p tandem-e2e-kubernetes --test e2e --no-run

images() { # The programs without what only debuggers read: a tenth of the size.
  mkdir -p "$target/images/programs"
  for program in tandem-operator tandem-runtime orders examples/fickle; do
    strip -o "$target/images/programs/${program##*/}" "$target/debug/$program"
  done
  ci/image-files.sh "$target/images/programs" "$target/images/files"
  for program in tandem-operator tandem-runtime orders fickle; do
    local image="tandem-${program#tandem-}"
    cluster pack "$target/images/files/$program" --image "localhost/$image:dev" --entry-point "/$program" \
      --label org.opencontainers.image.title="$image" --label org.opencontainers.image.version=dev \
      -o "$target/images/$image.tar" $([[ "$program" = tandem-* ]] || echo --environment TANDEM_WORKER_ADDRESS=0.0.0.0:9000)
    cluster load "$target/images/$image.tar"
  done
}
cluster() { "$target/debug/tandem-cluster" --name "$name" "$@"; }
down() { [ -n "${KEEP:-}" ] && echo "the node stays up: tandem-cluster --name $name down" || cluster down; }

if [ -z "${KUBECONFIG:-}" ]; then
  trap down EXIT
  cluster up --stores "$STORES"
  images
  binaries="$(dirname "$(cluster build | grep kubectl)")"
  export TANDEM_E2E_STORES="$STORES" KUBECTL="$binaries/kubectl" HELM="$binaries/helm" TANDEM_E2E_OURS="$name"
  KUBECONFIG="$(cluster kubeconfig)"
  TANDEM_PD_ENDPOINTS="$(cluster status -o json | sed -n '/pd_endpoints/,/]/p' | grep -oE '[0-9.]+:[0-9]+' | paste -sd, -)"
  export KUBECONFIG TANDEM_PD_ENDPOINTS
fi
rm -rf "$logs"
TANDEM_E2E=1 TANDEM_E2E_LOGS="$logs" cargo test --quiet -p tandem-e2e-kubernetes --test e2e -- --test-threads=1 --nocapture "$@"
