#!/usr/bin/env bash
# e2e-tools.sh MODULE FOLDER LDFLAGS PACKAGE=NAME...: builds programs that the Go module in MODULE pins.
set -euo pipefail
module=$1 folder=$2 ldflags=$3
shift 3
mkdir -p "$folder"
for target in "$@"; do
  package=${target%=*} name=${target##*=} began=$SECONDS
  printf 'e2e-tools: building %s...\n' "$name"
  # No -trimpath: with it nothing of the build cache could be shared with other builds.
  (cd "$module" && nice -n 5 go build -ldflags "$ldflags" -o "$folder/$name" "$package")
  printf 'e2e-tools: built %s in %d s\n' "$name" "$((SECONDS - began))"
done
