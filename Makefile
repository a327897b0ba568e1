# Two commands do all the set-up on a machine with Rust: make demo, make test.
.DEFAULT_GOAL := help
CARGO ?= cargo

include mk/chart.mk
include mk/image.mk
include mk/e2e.mk
include mk/fuzz.mk

.PHONY: help
help: ## This list.
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  %-16s %s\n", $$1, $$2}'

.PHONY: demo
demo: ## Watch it work: a simulated fleet, the real engine, a stand-in for KEDA. Under a minute.
	$(CARGO) run --locked --package demo

.PHONY: demo-fast
demo-fast: ## The same in ten seconds.
	$(CARGO) run --locked --package demo -- --fast

.PHONY: test
test: ## Every test that needs nothing but Rust.
	$(CARGO) test --locked --workspace --exclude keda-kaito-scaler-e2e

.PHONY: lint
lint: ## Formatting and clippy, warnings as errors.
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings

.PHONY: deny
deny: ## Licences, bans and sources of dependencies; advisories are reported.
	command -v cargo-deny >/dev/null || $(CARGO) install --locked cargo-deny --version 0.20.2
	$(CARGO) deny --log-level error check bans licenses sources
	-$(CARGO) deny check advisories

.PHONY: bench
bench: ## Every benchmark of time, some minutes. BENCHMARKS.md says what to look at.
	$(CARGO) bench --locked
	$(CARGO) bench --locked --package keda-kaito-scaler --bench snapshot_read --bench push_latency

.PHONY: bench-instructions
bench-instructions: ## Instruction counts against benches/instructions/figures.json; needs valgrind.
	$(CARGO) bench --locked --package keda-kaito-scaler --bench instructions

.PHONY: bench-instructions-renew
bench-instructions-renew: ## Write those figures anew.
	$(CARGO) bench --locked --package keda-kaito-scaler --bench instructions -- --renew

.PHONY: bench-fleet
bench-fleet: ## Up to 10,000 endpoints against the real binary: what it costs, how late it is. Seven minutes.
	$(CARGO) bench --locked --package keda-kaito-scaler --bench fleet -- all

.PHONY: bench-smoke
bench-smoke: ## Every benchmark once: that they run, not how fast.
	$(CARGO) test --locked --package benches --bench exposition
	$(CARGO) test --locked --package keda-kaito-scaler --bench instructions --bench snapshot_read --bench push_latency --bench fleet

.PHONY: bench-vllm
bench-vllm: ## What scrapes cost a real vLLM on this machine's processor. Downloads 3 GB, takes some ten minutes.
	benches/vllm/setup.sh .tools/vllm
	$(CARGO) build --locked --release
	.tools/vllm/venv/bin/python benches/vllm/bench.py .tools/vllm $(or $(CARGO_TARGET_DIR),target)/release/keda-kaito-scaler
