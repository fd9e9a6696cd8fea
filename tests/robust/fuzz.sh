#!/usr/bin/env bash
# One harness of build/fuzz for so many seconds, and what it found: fuzz.sh NAME SECONDS. Exit code 255, which ends xargs, where it failed.
set -euo pipefail
cd "$(dirname "$0")/../../build/fuzz"
mkdir -p "corpus/$1"
longest=()  # libFuzzer tries nothing longer than the longest seed, and faults of depth need hundreds of thousands of bytes
case $1 in
  config_json | json | manifest | safetensors | state | toml) longest=(-max_len=1100000) ;;
esac
if ! "./fuzz_$1" "${longest[@]}" -max_total_time="$2" -timeout=10 -rss_limit_mb=1024 -verbosity=0 -print_final_stats=1 -artifact_prefix="$1-" \
  "corpus/$1" "../../tests/robust/seeds/$1" >"$1.log" 2>&1; then
  echo "fuzz_$1: failed; build/fuzz/$1.log ends with" >&2
  tail -n 40 "$1.log" >&2
  exit 255
fi
log=$1.log
stat() { sed -n "s/^stat::$1: *//p" "$log"; }
echo "fuzz_$1: $(stat number_of_executed_units) executions in $2 s, none over $(($(stat slowest_unit_time_sec) + 1)) s," \
  "at most $(stat peak_rss_mb) MiB"
