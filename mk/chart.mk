# The Helm chart and the tools that test it. Works alone too: make -f mk/chart.mk chart-test
CHART := charts/keda-kaito-scaler
TOOLS_BIN := $(CURDIR)/.tools/bin
TOOLS := $(TOOLS_BIN)/.installed

# helm, helm-unittest and actionlint come from the Go module proxy, their versions and sums pinned in tools/.
# The build takes minutes and is repeated only when those change.
$(TOOLS): tools/go.mod tools/go.sum $(wildcard tools/*/*.go)
	mkdir -p $(TOOLS_BIN)
	cd tools && CGO_ENABLED=0 GOBIN=$(TOOLS_BIN) nice go install -trimpath -ldflags '-s -w' tool ./...
	touch $@

.PHONY: tools
tools: $(TOOLS)

.PHONY: chart-test
chart-test: $(TOOLS)
	TOOLS_BIN=$(TOOLS_BIN) hack/chart-test.sh $(CHART)

# After a wanted change of what is rendered; review the difference.
.PHONY: chart-snapshots
chart-snapshots: $(TOOLS)
	$(TOOLS_BIN)/helm-unittest --strict --update-snapshot $(CHART)

# actionlint runs shellcheck over the steps where it is installed.
.PHONY: workflows-test
workflows-test: $(TOOLS)
	$(TOOLS_BIN)/actionlint -color
