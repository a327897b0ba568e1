# The simulator: traffic replayed through the scaler's decisions in virtual time.

.PHONY: simulate
simulate: ## Replay traffic against policies: ARGS='TRACE… --policy …'. Without ARGS the comparison of BENCHMARKS.md, under ten minutes.
ifdef ARGS
	$(CARGO) run --locked --quiet --release --package simulate --bin simulate -- $(ARGS)
else
	$(CARGO) run --locked --quiet --release --package simulate --bin publish
endif
