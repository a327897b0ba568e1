#!/usr/bin/env bash
# Assembles the image of one architecture from a static binary, as an OCI archive, without a daemon or a network.
# The Dockerfile describes the same image for releases.
set -euo pipefail
binary=${1:?usage: image.sh BINARY ARCHIVE VERSION}
archive=${2:?usage: image.sh BINARY ARCHIVE VERSION}
version=${3:?usage: image.sh BINARY ARCHIVE VERSION}
command -v buildah >/dev/null || { echo "buildah is missing: apt-get install --no-install-recommends buildah" >&2; exit 1; }

# The image has no loader and no libc to be found at run time.
headers=$(LC_ALL=C readelf --file-header --program-headers "$binary")
if [[ $headers == *INTERP* ]]; then
  echo "$binary is dynamically linked" >&2
  exit 1
fi
case $(sed -n 's/^ *Machine: *//p' <<<"$headers") in
  *X86-64) arch=amd64 ;;
  AArch64) arch=arm64 ;;
  *) echo "$binary is for no architecture that is released" >&2; exit 1 ;;
esac

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
# Nothing is run inside, so neither overlay mounts nor a container runtime are asked for.
buildah=(buildah --root "$scratch/root" --runroot "$scratch/run" --storage-driver vfs)
created=$(git log -1 --format=%ct 2>/dev/null || date +%s)

install -D -m 0755 "$binary" "$scratch/rootfs/keda-kaito-scaler"
touch --date="@$created" "$scratch/rootfs" "$scratch/rootfs/keda-kaito-scaler"
container=$("${buildah[@]}" from --isolation chroot --arch "$arch" scratch)
"${buildah[@]}" add --quiet "$container" "$scratch/rootfs" / >/dev/null
"${buildah[@]}" config --user 65532:65532 --entrypoint '["/keda-kaito-scaler"]' --cmd '' \
  --label org.opencontainers.image.title=keda-kaito-scaler \
  --label org.opencontainers.image.version="$version" \
  --label org.opencontainers.image.licenses=Apache-2.0 \
  "$container"
mkdir -p "$(dirname "$archive")"
rm -f "$archive"
"${buildah[@]}" commit --quiet --rm --disable-compression=false --timestamp "$created" "$container" "oci-archive:$archive:$version" >/dev/null
echo "$archive: $(du -k "$archive" | cut -f 1) KiB"
