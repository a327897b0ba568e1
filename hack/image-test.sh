#!/usr/bin/env bash
# Unpacks an OCI archive and runs what is in it as the image's user, in a chroot that holds the image and nothing else.
set -euo pipefail
archive=${1:?usage: image-test.sh ARCHIVE VERSION}
version=${2:?usage: image-test.sh ARCHIVE VERSION}
limit=$((15 * 1024 * 1024))
fail() { echo "image-test: $*" >&2; exit 1; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/oci" "$work/rootfs"
tar -xf "$archive" -C "$work/oci"
blob() { echo "$work/oci/blobs/${1/://}"; }
manifest=$(blob "$(jq -r '.manifests[0].digest' "$work/oci/index.json")")
config=$(blob "$(jq -r .config.digest "$manifest")")
for layer in $(jq -r '.layers[].digest' "$manifest"); do
  [ "sha256:$(sha256sum "$(blob "$layer")" | cut -d ' ' -f 1)" = "$layer" ] || fail "layer $layer has another digest"
  tar -xf "$(blob "$layer")" -C "$work/rootfs"
done

expect() { # WHAT FILTER WANTED
  local found
  found=$(jq -c "$2" "$config")
  [ "$found" = "$3" ] || fail "$1 is $found, not $3"
}
expect "the operating system" .os '"linux"'
expect "the user" .config.User '"65532:65532"'
expect "the entrypoint" .config.Entrypoint '["/keda-kaito-scaler"]'
expect "the command" '.config.Cmd // []' '[]'

files=$(cd "$work/rootfs" && find . -mindepth 1 | sort)
[ "$files" = ./keda-kaito-scaler ] || fail "the image holds more than the binary: $files"
# What a node pulls; the binary in it is compressed.
size=$(stat -c %s "$archive")
[ "$size" -lt "$limit" ] || fail "the image has $size bytes, the limit is $limit"
unpacked=$(stat -c %s "$work/rootfs/keda-kaito-scaler")

output=$(chroot --userspec=65532:65532 "$work/rootfs" /keda-kaito-scaler --version) || fail "--version failed: $output"
[[ $output == *"$version"* ]] || fail "--version says '$output', which does not name $version"
echo "$archive: $size bytes ($unpacked unpacked), runs as $(jq -r .config.User "$config"): $output"
