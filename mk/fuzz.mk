# libFuzzer without cargo-fuzz and without a nightly toolchain: see fuzz/README.md.
FUZZ_TARGETS := answer exposition annotations trigger endpoints
# How long each target runs: FUZZ_SECONDS, or FUZZ_HOURS.
FUZZ_HOURS ?= 1
FUZZ_SECONDS ?= $(shell expr $(FUZZ_HOURS) \* 3600)
# How many run at once.
FUZZ_JOBS ?= 1
FUZZ_HOST := $(shell rustc -vV | sed -n 's/^host: //p')
FUZZ_DIR := $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)/fuzz
# What cargo-fuzz sets, less the sanitizers: there is no unsafe code to find out about.
FUZZ_FLAGS := -Cpasses=sancov-module \
  -Cllvm-args=-sanitizer-coverage-level=4 \
  -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
  -Cllvm-args=-sanitizer-coverage-pc-table \
  -Cllvm-args=-sanitizer-coverage-trace-compares

.PHONY: fuzz-build
fuzz-build:
	RUSTFLAGS="$(FUZZ_FLAGS)" $(CARGO) build --locked --release --manifest-path fuzz/Cargo.toml --bins \
	  --target $(FUZZ_HOST) --target-dir $(FUZZ_DIR)

.PHONY: fuzz
fuzz: fuzz-build ## Every fuzz target for FUZZ_HOURS (1) or FUZZ_SECONDS, FUZZ_JOBS (1) at once. New inputs stay in target/fuzz.
	printf '%s\n' $(FUZZ_TARGETS) | xargs -P $(FUZZ_JOBS) -I{} \
	  fuzz/run.sh {} $(FUZZ_DIR)/$(FUZZ_HOST)/release/{} $(FUZZ_DIR)/found $(FUZZ_SECONDS)

.PHONY: fuzz-smoke
fuzz-smoke: ## Every fuzz target for a minute, two at once, from the corpus in the repository.
	$(MAKE) --no-print-directory fuzz FUZZ_SECONDS=$(or $(FUZZ_SMOKE_SECONDS),60) FUZZ_JOBS=2

.PHONY: fuzz-corpus
fuzz-corpus: ## The corpus through the same checks, without a fuzzer: seconds.
	$(CARGO) test --locked --manifest-path fuzz/Cargo.toml --target-dir $(FUZZ_DIR)
