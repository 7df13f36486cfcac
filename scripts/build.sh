#!/usr/bin/env bash
# build.sh - builds the three programs and the page into build/bin (setup.sh must have run).
# Logs: build/build_server.log, build/build_sd_worker.log, build/build_llm_worker.log, build/build_webui.log.
. "$(dirname "$0")/common.sh"
cd "$ROOT"

configure() {
  local options=
  for b in CUDA VULKAN HIP METAL; do
    local v=MYSTI_$b; [ "${!v:-0}" = 1 ] && options="$options -DMYSTI_$b=ON"
  done
  [ -f build/build.ninja ] && [ -z "$options" ] && [ build/build.ninja -nt build/_deps/deps.cmake ] && return 0
  say "configuring"
  rm -f build/CMakeCache.txt # it remembers where the dependencies of last time were
  cmake --preset release $options >build/configure.log 2>&1 || { cat build/configure.log >&2; die "configuration failed"; }
}

build_program() { # target log
  cmake --build build -j "$JOBS" --target "$1" >"build/$2" 2>&1 ||
    { tail -n 40 "build/$2" >&2; die "$1 did not build; the whole log is build/$2"; }
}

# The page is built again only when its sources changed.
build_page() {
  local stamp=build/webui.stamp
  if [ -f build/bin/public/index.html ] && [ -f $stamp ] &&
     [ -z "$(find webui -path webui/node_modules -prune -o -path webui/dist -prune -o -type f -newer $stamp -print -quit)" ]; then return 0; fi
  say "building the page"
  rm -f build/build_webui.log
  npm_install webui build/build_webui.log
  run_logged build/build_webui.log npm run build --prefix webui
  rm -rf build/bin/public
  mkdir -p build/bin
  cp -r webui/dist build/bin/public
  touch $stamp
}

mkdir -p build
configure
say "building mysti_server, mysti_sd_worker, mysti_llm_worker"
build_program mysti_server build_server.log
build_program mysti_sd_worker build_sd_worker.log
build_program mysti_llm_worker build_llm_worker.log
build_page
say "built: build/bin"
