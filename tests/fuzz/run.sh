#!/usr/bin/env bash
# run.sh - fuzzes every target, or TIDEGATE_FUZZ_TARGET alone, for TIDEGATE_FUZZ_SECONDS each (default 600), from the corpus
# beside this file. Inputs found on the way stay in target/fuzz/TARGET, those that fail in target/fuzz/TARGET/found.
# With `minimise` as its argument it fuzzes nothing: it brings what was found into the corpus, as few inputs as cover the same.
# (Failures go to tests/fuzz/found/TARGET by hand, with their fix.)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
seconds=${TIDEGATE_FUZZ_SECONDS:-600}
targets=(config artifact collect dlq batch)
if [ -n "${TIDEGATE_FUZZ_TARGET:-}" ]; then targets=("$TIDEGATE_FUZZ_TARGET"); fi
here=tests/fuzz
built=$(realpath -m "${CARGO_TARGET_DIR:-target}")
# A call longer than this, or more memory, is a failure. Inputs are kept short, so that many of them are tried.
limits=(-timeout=20 -rss_limit_mb=2048 -max_len=4096)

if ! command -v c++ >/dev/null; then
  echo "a C++ compiler is missing, with which libFuzzer is built: apt-get install g++" >&2
  exit 1
fi
for target in "${targets[@]}"; do
  # Host and SDK are never built together.
  if [ "$target" = batch ]; then side=sdk; else side=host; fi
  CARGO_INCREMENTAL=0 RUSTC_WORKSPACE_WRAPPER=$PWD/$here/rustc.sh \
    cargo build --locked --quiet -p fuzz --features "$side" --bin "fuzz-$target"
done

failed=0
report=()
for target in "${targets[@]}"; do
  work=$built/fuzz/$target
  corpus=$here/corpus/$target
  # Components and caches of the targets stand in the folder for temporary files.
  rm -rf "$work/tmp" && mkdir -p "$work/new" "$work/found" "$work/tmp"
  export TMPDIR=$work/tmp
  options=("${limits[@]}")
  if [ -f "$here/words/$target.dict" ]; then options+=("-dict=$here/words/$target.dict"); fi
  if [ "${1:-}" = minimise ]; then
    # What has a name was written by hand, and stays.
    rm -rf "$work/least" && mkdir "$work/least"
    find "$corpus" -regextype posix-extended -type f ! -regex '.*/[0-9a-f]{40}' -exec cp -t "$work/least" {} +
    # One input per edge: those that only take an edge more often are many, and soon found again.
    "$built/debug/fuzz-$target" "${limits[@]}" -set_cover_merge=1 -use_counters=0 "$work/least" "$corpus" "$work/new" \
      </dev/null >"$work/log" 2>&1
    rm -rf "$corpus" && mv "$work/least" "$corpus"
    report+=("$target: $(find "$corpus" -type f | wc -l) inputs, $(du -sb "$corpus" | cut -f1) bytes")
    continue
  fi
  echo "fuzzing $target for $seconds s; log in $work/log"
  before=$(find "$work/found" -type f | wc -l)
  code=0
  "$built/debug/fuzz-$target" "${options[@]}" -max_total_time="$seconds" -print_final_stats=1 \
    -artifact_prefix="$work/found/" "$work/new" "$corpus" </dev/null >"$work/log" 2>&1 || code=$?
  rm -rf "$work/tmp"
  crashes=$(($(find "$work/found" -type f | wc -l) - before))
  runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$work/log")
  last=$(grep -E '^#[0-9]+' "$work/log" | tail -n 1 || true)
  covered=$(sed -n 's/.* cov: \([0-9]*\) ft: \([0-9]*\) corp: \([^ ]*\).*/\1 edges, \2 features, corpus \3/p' <<<"$last")
  report+=("$target: ${runs:-?} runs, ${covered:-nothing covered}, $crashes failed")
  if [ "$code" -ne 0 ] || [ "$crashes" -ne 0 ]; then
    failed=1
    grep -m 1 -A 4 -E 'panicked at|ERROR: libFuzzer' "$work/log" >&2 || tail -n 20 "$work/log" >&2
  fi
done
printf '%s\n' "${report[@]}"
if [ "$failed" -ne 0 ]; then
  echo "an input failed: see $built/fuzz/*/found; once mended, keep it in $here/found/TARGET" >&2
  exit 1
fi
