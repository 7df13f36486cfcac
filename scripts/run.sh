#!/usr/bin/env bash
# run.sh [OPTIONS] - sets up, builds and starts the studio; options go to mysti_server (see --help).
. "$(dirname "$0")/common.sh"
"$ROOT/scripts/setup.sh"
"$ROOT/scripts/build.sh"
mkdir -p "$ROOT/models" "$ROOT/outputs" "$ROOT/data"

# Defaults beside the scripts, unless the caller says otherwise: by an option, or in the file that --config names.
config= previous=
for a in "$@"; do
  case $a in --config=*) config=${a#*=} ;; esac
  if [ "$previous" = --config ]; then config=$a; fi
  previous=$a
done
chosen() {
  local name=$1; shift
  for a in "$@"; do case $a in "--$name" | "--$name"=*) return 0 ;; esac; done
  [ -f "$config" ] && grep -q "\"$name\"[[:space:]]*:" "$config"
}
defaults=()
chosen model-dir "$@" || defaults+=(--model-dir "$ROOT/models")
chosen output-dir "$@" || defaults+=(--output-dir "$ROOT/outputs")
chosen data-dir "$@" || defaults+=(--data-dir "$ROOT/data")
say "starting mysti_server"
exec "$ROOT/build/bin/mysti_server" "${defaults[@]}" "$@"
