# common.sh - what every script here needs. Sourced, not run.
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
DEPS=$ROOT/build/_deps
CACHE=${MYSTI_CACHE:-${XDG_CACHE_HOME:-${HOME:-/nonexistent}/.cache}/mysti}
# Without a home that can be written (a service's account, say) everything stays in this clone, npm's downloads included.
if ! { mkdir -p "$CACHE" && [ -w "$CACHE" ]; } 2>/dev/null; then
  CACHE=$ROOT/build/cache
  export npm_config_cache=$CACHE/npm
fi
JOBS=${MYSTI_JOBS:-$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)}
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-PASSIVE} # computing threads that wait leave the processor to others

say() { printf '\033[1m==>\033[0m %s\n' "$*"; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# Node for the page: the one setup.sh fetched where the system's is too old.
if [ -x "$DEPS/node/bin/node" ]; then PATH=$DEPS/node/bin:$PATH; fi
