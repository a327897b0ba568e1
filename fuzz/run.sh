#!/usr/bin/env bash
# Runs one fuzz target: run.sh TARGET BINARY FOLDER SECONDS. Inputs that reach something new, and
# those that fail, are kept in FOLDER. Ends with a line of figures, and fails with a finding.
set -euo pipefail
target=$1 binary=$2 found=$3 seconds=$4
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$found/$target" "$found/failures"
log="$found/$target.log"
options=(-max_total_time="$seconds" -timeout=5 -rss_limit_mb=1024 -print_final_stats=1 -max_len=16384
  -artifact_prefix="$found/failures/$target-")
[ -f "$here/dictionaries/$target.dict" ] && options+=(-dict="$here/dictionaries/$target.dict")
status=0
"$binary" "${options[@]}" "$found/$target" "$here/corpus/$target" >"$log" 2>&1 || status=$?
executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
coverage=$(grep -o 'cov: [0-9]*' "$log" | tail -1 || true)
echo "fuzz $target: ${executions:-0} executions in $seconds s, ${coverage:-cov: unknown}"
if [ "$status" -ne 0 ]; then
  tail -n 40 "$log"
  exit "$status"
fi
