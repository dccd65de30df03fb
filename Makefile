# The commands of this repository. `make` lists them; recipes call scripts, so that each also runs by hand.
# Every target closes with one line, `NAME: ok (12 s)` or `NAME: FAILED (exit 1, 12 s)`, and its exit status.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

scripts := e2e/scripts
step = $(scripts)/step.sh $@
# A cmake and a cargo-deny of our own, where the machine has none.
export PATH := $(CURDIR)/.cache/tools/bin:$(PATH)
simulate = cargo run --quiet --release --locked --package sluice-benches --bin sim -- --seed $(or $(SEED),1)
# Exported by the test targets only: where it is set, the real-engine tests fail rather than skip.
engines := $(CURDIR)/.cache/engines

.PHONY: help
help: ## this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## (.*)/  \1\t\2/' | expand -t 20

## Run

.PHONY: demo
demo: tools ## two engines, the gateway, one streamed chat (ENGINE=sim: no Python; ONCE=1: then end)
	@$(scripts)/demo.sh

## Test

.PHONY: test test-unit test-e2e test-real
test: tools engines ## every test, on real engines too; what `make ci` runs
	@$(step) env SLUICE_ENGINES=$(engines) $(scripts)/test.sh all
test-unit: tools ## without the whole-product tests
	@$(step) $(scripts)/test.sh unit
test-e2e: tools ## whole-product tests on simulated engines
	@$(step) $(scripts)/test.sh e2e
test-real: tools engines ## whole-product tests on llama.cpp engines
	@$(step) env SLUICE_ENGINES=$(engines) $(scripts)/test.sh real
.PHONY: e2e-cluster e2e-vllm e2e-chart image-test
e2e-cluster: tools ## tests on a real Kubernetes API server, pods as processes (needs root, Go; FILTER=name)
	@$(step) $(scripts)/e2e-cluster.sh $(FILTER)
e2e-vllm: tools ## predicted cache hits against two real vLLM engines (fetches 6 GiB; not in CI)
	@$(step) $(scripts)/e2e-vllm.sh
e2e-chart: ## the chart on a real API server: accepted, installed, upgraded, taken away (builds a control plane once: Go)
	@$(step) $(scripts)/e2e-chart.sh
image-test: tools ## the images, each started once as nobody (buildah, musl-tools, root; PROFILE=dist CPU=; not in CI)
	@$(step) $(scripts)/image-test.sh

## Check

.PHONY: fmt lint check-crds check-examples check-chart deny ci
fmt: ## format the Rust code (CHECK=1: only list the files that are not)
	@$(step) cargo fmt --all $(if $(CHECK),-- --check -l)
lint: tools ## clippy without warnings, scripts that parse, arrows between rooms
	@$(step) $(scripts)/lint.sh
check-crds: tools ## crds/yaml and the chart's copies are what the types say
	@$(step) cargo run --quiet --locked --bin crdgen -- --check
check-examples: tools ## config/examples is accepted by the gateway
	@$(step) $(scripts)/check-examples.sh
check-chart: tools ## the Helm chart: lint, permissions, pods, wiring, refusals (builds helm once: Go)
	@$(step) $(scripts)/check-chart.sh
deny: ## licences, banned crates, sources, advisories
	@$(scripts)/fetch-tools.sh --deny
	@$(step) $(scripts)/deny.sh
ci: ## what a change must pass, on a bare machine too
	@.ci/run

## Measure (benches/README.md)

.PHONY: bench sim sim-check bench-overhead bench-memory bench-syscalls bench-routing bench-push sim-vs-real
bench: tools ## micro-benchmarks (criterion)
	@$(step) cargo bench --locked --package sluice-benches
sim: tools ## routing policies in virtual time: tables, target/bench/sim.json and pictures (SEED=1)
	@$(step) $(simulate) --suite --json target/bench/sim.json --plots target/bench/sim
sim-check: tools ## MTL against the best policy and the ideal hit rate, in virtual time
	@$(step) $(simulate) --check --json target/bench/sim-check.json
bench-overhead: tools ## CPU per request beside haproxy and nginx (ROUNDS=3 SECS=2)
	@$(step) benches/overhead/run.sh overhead
bench-memory: tools ## memory of 10,000 idle streams (STREAMS=10000)
	@$(step) benches/overhead/run.sh memory
bench-syscalls: tools ## system calls per request, against a bound
	@$(step) benches/overhead/run.sh syscalls
bench-routing: tools ## routing in real time beside sglang-router, vllm-router and nginx (WORKLOADS= PEERS= REQUESTS=2048)
	@$(step) benches/routing/run.sh
bench-push: tools ## the control loop's push to simulated gateways: changes, first pushes, storms (ARGS=--help)
	@$(step) cargo run --quiet --release --locked --package sluice-benches --bin push-bench -- $(ARGS)
sim-vs-real: tools ## the simulator's figures beside those of the last bench-routing, 10 % apart at most
	@$(step) env SIM="cargo run --quiet --release --locked --package sluice-benches --bin sim --" \
		python3 benches/routing/compare.py

## Fetch

.PHONY: engines tools
engines: ## llama.cpp, a small model and the OpenAI SDK into .cache/engines
	@$(step) $(scripts)/fetch-engines.sh
tools: ## cmake into .cache/tools, if the machine has none
	@$(scripts)/fetch-tools.sh
