#!/usr/bin/env bash
# beside.sh SD_CLI MODEL [SIZE] [STEPS] [ROUNDS] [THREADS] - the image worker and stable-diffusion.cpp's sd-cli by turns,
# the same model, prompt, size, sampler and threads. For each run: seconds a step after the first, for decoding and for
# both prompts, of the whole command, peak memory. SD_FLAGS: further flags of sd-cli.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
sd_cli=$1 model=$2 size=${3:-512} steps=${4:-3} rounds=${5:-3} threads=${6:-$(nproc)}
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
common=(-W "$size" -H "$size" --steps "$steps")

# What both print, in the words of each: the pattern's first number of the last line that fits.
last() { # pattern
  tr '\r' '\n' <"$out/log" | sed -nE "s/.*$1.*/\\1/p" | tail -1
}

line() { # who step decode text
  local wall peak
  wall=$(last 'Elapsed .wall clock. time .h:mm:ss or m:ss.: ([0-9:.]+)')
  peak=$(last 'Maximum resident set size .kbytes.: ([0-9]+)')
  printf '%-24s %8s s/step %8s s decoding %8s s prompts %10s whole %6.2f GB\n' "$1" "$2" "$3" "$4" "$wall" "$(awk "BEGIN {print $peak / 1e6}")"
}

echo "$(grep -m1 'model name' /proc/cpuinfo | sed 's/.*: //'), $threads threads, ${size}x$size, $steps steps, $(basename "$model")"
for ((i = 0; i < rounds; i++)); do
  /usr/bin/time -v "$root/build/bin/mysti_sd_worker" generate --model "$model" --prompt "a red cube on a table" --width "$size" --height "$size" \
    --steps "$steps" --seed 42 --cfg-scale 7 --sampler euler --threads "$threads" --precision "${PRECISION:-auto}" -o "$out/a.png" >"$out/log" 2>&1
  line mysti_sd_worker "$(last 'sampling .*, ([0-9.]+) s each')" "$(last 'decoding +([0-9.]+) s')" "$(last 'encoding +([0-9.]+) s')"
  /usr/bin/time -v "$sd_cli" -m "$model" -p "a red cube on a table" "${common[@]}" --seed 42 --cfg-scale 7 --sampling-method euler -t "$threads" \
    ${SD_FLAGS:-} -v -o "$out/b.png" >"$out/log" 2>&1
  line stable-diffusion.cpp "$(last ' - ([0-9.]+)s\/it')" "$(last 'latent 1 decoded, taking ([0-9.]+)s')" "$(last 'get_learned_condition completed, taking ([0-9.]+)s')"
done
