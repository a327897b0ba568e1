# syntax=docker/dockerfile:1
# The release's image for amd64 and arm64. The compiler always runs on the builder's own architecture and
# cross-compiles, so no emulator is needed: docker buildx build --platform linux/amd64,linux/arm64 .
# `make image` assembles the same image where no Docker daemon runs.
FROM --platform=$BUILDPLATFORM docker.io/library/rust:1.95-bookworm AS build
ARG TARGETARCH
ARG GIT_COMMIT=unknown
WORKDIR /src

# The C compiler is for aws-lc; the C library's package has the static libc of the target.
RUN case "$TARGETARCH" in \
      amd64) triple=x86_64-unknown-linux-gnu packages="gcc-x86-64-linux-gnu libc6-dev-amd64-cross" prefix=x86_64-linux-gnu ;; \
      arm64) triple=aarch64-unknown-linux-gnu packages="gcc-aarch64-linux-gnu libc6-dev-arm64-cross" prefix=aarch64-linux-gnu ;; \
      *) echo "no target for $TARGETARCH" >&2; exit 1 ;; \
    esac; \
    if [ "$prefix" = "$(gcc -dumpmachine)" ]; then packages=; fi; \
    apt-get update && apt-get install -y --no-install-recommends cmake $packages && rm -rf /var/lib/apt/lists/* && \
    rustup target add "$triple" && \
    echo "$triple" >/triple && \
    printf '[target.%s]\nlinker = "%s-gcc"\nrustflags = ["-C", "target-feature=+crt-static"]\n' "$triple" "$prefix" >"$CARGO_HOME/config.toml"

COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/target,id=target-$TARGETARCH \
    GIT_COMMIT=$GIT_COMMIT CARGO_TARGET_DIR=/target cargo build --release --locked --bin keda-kaito-scaler --target "$(cat /triple)" && \
    install -D "/target/$(cat /triple)/release/keda-kaito-scaler" /image/keda-kaito-scaler

FROM scratch
COPY --from=build /image/ /
USER 65532:65532
ENTRYPOINT ["/keda-kaito-scaler"]
