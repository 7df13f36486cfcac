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

# Node for the page: the one setup.sh fetched where the system's is too old. It trusts the machine's own certificates too,
# as the system's does.
if [ -x "$DEPS/node/bin/node" ]; then
  PATH=$DEPS/node/bin:$PATH
  if [ -f /etc/ssl/certs/ca-certificates.crt ]; then
    export NODE_EXTRA_CA_CERTS=${NODE_EXTRA_CA_CERTS:-/etc/ssl/certs/ca-certificates.crt}
  fi
fi

# Runs a command with its output in a log; on failure shows the end of the log and stops.
run_logged() { # log command...
  local log=$1
  shift
  "$@" >>"$log" 2>&1 || { tail -n 40 "$log" >&2; die "failed: $*; the whole log is $log"; }
}

# The npm packages of a folder, as its lock file has them; nothing when they are there.
npm_install() { # folder log
  local done=$1/node_modules/.complete # npm may leave half of them behind when it fails
  if [ -f "$done" ] && [ ! "$1/package-lock.json" -nt "$done" ]; then return 0; fi
  run_logged "$2" npm ci --prefix "$1" --no-audit --no-fund
  touch "$done"
}
