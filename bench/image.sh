#!/usr/bin/env bash
# [PRECISION=f32] image.sh MODEL [SIZE] [STEPS] [THREADS] - seconds per step and for decoding, peak memory of the image worker's own command line.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
model=$1 size=${2:-512} steps=${3:-3} threads=${4:-$(nproc)}
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
/usr/bin/time -v "$root/build/bin/mysti_sd_worker" generate --model "$model" --prompt "a red cube on a table" --width "$size" --height "$size" \
  --steps "$steps" --seed 42 --cfg-scale 7 --sampler euler --threads "$threads" --precision "${PRECISION:-auto}" -o "$out/a.png" 2>"$out/log" || { cat "$out/log" >&2; exit 1; }
grep -m1 'model name' /proc/cpuinfo | sed 's/.*: //'
grep -E 'encod|step|sampl|decod|load' "$out/log" | grep -v 'Command being' || true
awk '/Maximum resident/ {printf "peak resident memory: %.2f GB\n", $NF/1e6} /Elapsed/ {print "whole command: " $NF}' "$out/log"
