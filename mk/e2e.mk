# End-to-end tests against a real Kubernetes control plane, KEDA and Helm.

KEDA ?= 2.21.0
E2E_TOOLS := $(CURDIR)/.tools/e2e
E2E_KEDA := $(E2E_TOOLS)/keda-$(KEDA)
# The Go module whose `tool` lines and go.sum pin KEDA $(KEDA) and what it is built of.
E2E_KEDA_MODULE := $(if $(filter 2.21.0,$(KEDA)),e2e/tools,e2e/tools-keda-$(KEDA))
# `kubectl version` and KEDA read these. They are part of the build cache's keys, so they never change without a reason.
E2E_K8S := k8s.io/component-base/version
E2E_LDFLAGS := -s -w -X $(E2E_K8S).gitVersion=v1.36.3 -X $(E2E_K8S).gitMajor=1 -X $(E2E_K8S).gitMinor=36 -X $(E2E_K8S).gitTreeState=clean
# The program under test: that of the image, unless another one is given.
E2E_SCALER ?= $(IMAGE_BINARY)

# Each is built only when what pins it, or how it is built, has changed.
E2E_STAMP = $(1)/.built-$(shell (cat $(2)/go.mod $(2)/go.sum hack/e2e-tools.sh; echo '$(E2E_LDFLAGS)') | sha256sum | cut -c 1-16)
E2E_PLANE_STAMP := $(call E2E_STAMP,$(E2E_TOOLS),e2e/tools)
E2E_KEDA_STAMP := $(call E2E_STAMP,$(E2E_KEDA),$(E2E_KEDA_MODULE))

.PHONY: e2e-tools
e2e-tools: $(E2E_PLANE_STAMP) $(E2E_KEDA_STAMP) $(TOOLS) ## The control plane and KEDA, from their Go modules: up to 15 minutes, once.

$(E2E_PLANE_STAMP):
	hack/e2e-tools.sh e2e/tools $(E2E_TOOLS) '$(E2E_LDFLAGS)' go.etcd.io/etcd/server/v3=etcd \
	  k8s.io/kubernetes/cmd/kube-apiserver=kube-apiserver \
	  k8s.io/kubernetes/cmd/kube-controller-manager=kube-controller-manager
	rm -f $(E2E_TOOLS)/.built-* && touch $@

$(E2E_KEDA_STAMP):
	hack/e2e-tools.sh $(E2E_KEDA_MODULE) $(E2E_KEDA) '$(E2E_LDFLAGS)' \
	  github.com/kedacore/keda/v2/cmd/adapter=keda-adapter github.com/kedacore/keda/v2/cmd/operator=keda-operator
	rm -rf $(E2E_KEDA)/config
	cp -r "$$(cd $(E2E_KEDA_MODULE) && go list -m -f '{{.Dir}}' github.com/kedacore/keda/v2)/config" $(E2E_KEDA)/config
	chmod -R u+w $(E2E_KEDA)/config
	rm -f $(E2E_KEDA)/.built-* && touch $@

E2E_RUN = $(CARGO) run --locked --quiet --package keda-kaito-scaler-e2e --bin e2e --

.PHONY: e2e
e2e: e2e-tools $(if $(filter $(IMAGE_BINARY),$(E2E_SCALER)),image-binary) ## Every promise, proved against the real thing. KEDA=2.20.2 takes an older KEDA.
	$(CARGO) test --locked --quiet --package keda-kaito-scaler-e2e
	$(E2E_RUN) run --keda $(KEDA) --scaler $(E2E_SCALER) --json target/e2e.json $(E2E_ARGS)

.PHONY: dev-cluster
dev-cluster: e2e-tools ## A control plane with KEDA and the scaler on this machine, until Ctrl-C.
	$(CARGO) build --locked --bin keda-kaito-scaler
	$(E2E_RUN) dev-cluster --keda $(KEDA) --scaler $(or $(CARGO_TARGET_DIR),target)/debug/keda-kaito-scaler $(E2E_ARGS)

.PHONY: e2e-vllm
e2e-vllm: e2e-tools ## The same with a real vLLM on the processor as one of the pods. Downloads 3 GB.
	benches/vllm/setup.sh .tools/vllm
	$(CARGO) build --locked --bin keda-kaito-scaler
	$(E2E_RUN) run --keda $(KEDA) --scaler $(or $(CARGO_TARGET_DIR),target)/debug/keda-kaito-scaler --vllm .tools/vllm
