# The commands of this repository. `make help` lists them.

.PHONY: help demo test charts e2e cluster cluster-down soak faults tikv tikv-down lint fmt bench bench-operator bench-tikv instructions docs generate
.DEFAULT_GOAL := help

help: ## Lists the commands.
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 22

STORE ?=

demo: ## Runs the orders application: real purchases, a kill in the middle, every invariant checked. STORE=tikv: three runtimes on one TiKV.
	@echo "building (a few minutes the first time) ..."
	@cargo build --release -p tandem-cli -p orders $(if $(STORE),-p tandem-server -p tandem-e2e-tikv)
	@target/release/orders-demo $(if $(STORE),--store $(STORE))

test: ## Runs all tests.
	cargo test --workspace --no-fail-fast

e2e: ## Runs the tests on a real Kubernetes node (needs root, Go, Debian packages; 25 minutes the first time). KUBECONFIG=...: on that cluster.
	@ci/e2e.sh $(TESTS)

cluster: ## Starts a Kubernetes node in the background, and says what to do next.
	@cargo run --quiet -p tandem-e2e-kubernetes -- up

cluster-down: ## Ends it.
	@cargo run --quiet -p tandem-e2e-kubernetes -- down

charts: ## Checks the Helm charts and the samples for GitOps (needs Helm and Go; says what it skipped).
	@ci/charts.sh
	@if command -v go >/dev/null 2>&1; then cd e2e/gitops && go vet . && go test -count=1 .; else echo "skipped the samples for GitOps: Go is missing" >&2; fi

MINUTES ?= 10

soak: ## Looks for broken promises with new seeds: simulation, programs, histories, kill -9. MINUTES=10 says how long.
	@cargo build --release -p tandem-cli -p tandem-verify
	@target/release/tandem-verify soak --minutes $(MINUTES)

faults: ## Kills, freezes and cuts off real runtimes, stores and PD at chosen moments, and judges what is left (needs Go). MINUTES=10 says how long.
	@cargo build --release -p tandem-server -p tandem-verify
	@target/release/tandem-verify faults --minutes $(MINUTES)

tikv: ## Starts a real PD and three test stores in the background (needs Go; five minutes the first time).
	@cargo run --quiet -p tandem-e2e-tikv -- up

tikv-down: ## Ends them. Data stays in .tandem/tikv.
	@cargo run --quiet -p tandem-e2e-tikv -- down

lint: ## Checks format, lints, documentation, dependency directions and licences.
	cargo fmt --all --check
	@if command -v gofmt >/dev/null 2>&1; then other=$$(gofmt -l e2e); test -z "$$other" || { echo "error: gofmt would change $$other" >&2; exit 1; }; \
	  else echo "skipped gofmt: Go is missing" >&2; fi
	cargo clippy --workspace --all-targets --quiet -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --quiet
	@tools=$$(./ci/tools.sh) && PATH="$$tools$$PATH" && \
	  cargo deny --log-level error check bans licenses sources && \
	  mdbook build docs --dest-dir "$(CURDIR)/target/book"

fmt: ## Formats the code.
	cargo fmt --all
	@if command -v gofmt >/dev/null 2>&1; then gofmt -w e2e; fi

# The page is made from the figures of both stores, whichever was measured now.
BENCH_PAGE = target/release/tandem-bench $(foreach file,$(wildcard docs/benchmarks.json docs/benchmarks-tikv.json),--from $(file)) --page docs

bench: ## Measures Tandem beside bare transactions and PostgreSQL (25 minutes), and writes docs/benchmarks.md anew.
	@cargo build --release -p tandem-bench
	@target/release/tandem-bench --json docs/benchmarks.json
	@$(BENCH_PAGE)

bench-tikv: ## Measures Tandem on three test stores beside bare tikv-client (15 minutes), and writes docs/benchmarks.md anew.
	@cargo build --release -p tandem-bench
	@target/release/tandem-bench t1 t2 t3 --json docs/benchmarks-tikv.json
	@$(BENCH_PAGE)

RESOURCES ?= 1000

bench-operator: ## Measures the operator over a real API server beside a script (5 minutes; needs Go the first time). RESOURCES=10000: more of everything.
	@cargo build --release -p tandem-operator -p tandem-bench-operator
	@target/release/tandem-bench-operator --resources $(RESOURCES) --json docs/benchmarks-operator.json --page docs

instructions: ## Counts the instructions of hot code under Valgrind; fails where they grew. UPDATE=1 accepts what there is.
	@tools=$$(./ci/tools.sh instructions) && PATH="$$tools$$PATH" && cargo run --quiet -p tandem-instructions -- $(if $(UPDATE),--update)

docs: ## Builds the book into target/book.
	@tools=$$(./ci/tools.sh) && PATH="$$tools$$PATH" && mdbook build docs --dest-dir "$(CURDIR)/target/book"

generate: ## Writes anew what is generated and committed: CRDs and reference pages.
	UPDATE_CRDS=1 UPDATE_DOCS=1 cargo test --quiet -p tandem-crds -p tandem-runtime -p tandem-server
	UPDATE_DOCS=1 cargo test --quiet -p tandem-operator --test reference
	UPDATE_DOCS=1 cargo test --quiet -p tandem-verify --test mechanisms the_page_is_up_to_date
