#!/usr/bin/env bash
# Lints the chart, checks each rendering against Kubernetes' own types, and runs the chart's unit tests.
set -euo pipefail
chart=${1:?usage: chart-test.sh CHART}
PATH=${TOOLS_BIN:?}:$PATH

version() { sed -nE "s/^$2[ :=]+\"?([^\"]+)\"?/\1/p;t end;b;:end;q" "$1"; }
crate=$(version Cargo.toml version)
for key in version appVersion; do
  if [ "$(version "$chart/Chart.yaml" $key)" != "$crate" ]; then
    echo "$chart/Chart.yaml: $key is $(version "$chart/Chart.yaml" $key), Cargo.toml's version is $crate" >&2
    exit 1
  fi
done

for values in "$chart"/values.yaml "$chart"/ci/*-values.yaml; do
  if ! helm lint --strict --quiet "$chart" -f "$values" -n keda; then
    echo "helm lint failed with $values" >&2
    exit 1
  fi
  printf '%s: ' "$values"
  helm template keda-kaito-scaler "$chart" -n keda -f "$values" | manifests ServiceMonitor PrometheusRule
done

# What an upgrade with --reuse-values from an earlier chart leaves: none of this chart's own values.
if message=$(helm template keda-kaito-scaler "$chart" --set keda=null 2>&1); then
  echo "the chart renders without its own values" >&2
  exit 1
elif [[ $message != *--reset-then-reuse-values* ]]; then
  echo "the refusal of another chart's values does not say what to do: $message" >&2
  exit 1
fi

# A packaged chart has no test in it.
package=$(mktemp -d)
trap 'rm -rf "$package"' EXIT
helm package --destination "$package" "$chart" >/dev/null
files=$(tar -tzf "$package"/*.tgz)
if grep -E '/(ci|tests/.*_test\.yaml|tests/__snapshot__)' <<<"$files"; then
  echo "the package contains test files" >&2
  exit 1
fi
grep -q templates/tests/check-install.yaml <<<"$files"

helm-unittest --strict "$chart"
