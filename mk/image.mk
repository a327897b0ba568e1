# The container image, without a Docker daemon. Works alone too: make -f mk/image.mk image-test
# Needs buildah and jq, which Debian has.
IMAGE_VERSION := $(shell sed -nE 's/^version = "(.*)"/\1/p' Cargo.toml | head -n 1)
IMAGE_ARCHIVE := dist/keda-kaito-scaler-$(IMAGE_VERSION).oci.tar
IMAGE_TARGET ?= x86_64-unknown-linux-gnu
# A build with --target keeps crt-static away from build scripts and procedural macros, which must be dynamic.
IMAGE_BINARY = $(or $(CARGO_TARGET_DIR),target)/$(IMAGE_TARGET)/release/keda-kaito-scaler

.PHONY: image-binary
image-binary:
	RUSTFLAGS='-C target-feature=+crt-static' GIT_COMMIT=$$(git rev-parse --short HEAD) \
	  cargo build --release --locked --bin keda-kaito-scaler --target $(IMAGE_TARGET)

.PHONY: image
image: image-binary
	hack/image.sh $(IMAGE_BINARY) $(IMAGE_ARCHIVE) $(IMAGE_VERSION)

.PHONY: image-test
image-test: image
	hack/image-test.sh $(IMAGE_ARCHIVE) $(IMAGE_VERSION)
