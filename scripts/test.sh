#!/usr/bin/env bash
# test.sh - sets up, builds and runs every test: unit, parity, fuzz (seconds), end to end, browser.
. "$(dirname "$0")/common.sh"
"$ROOT/scripts/setup.sh" --test
"$ROOT/scripts/build.sh"
cd "$ROOT"
say "building the tests"
cmake --build build -j "$JOBS" >build/build_tests.log 2>&1 || { tail -n 40 build/build_tests.log >&2; die "the tests did not build"; }
say "building the sanitized tests (ASAN + UBSAN)"
configured() { [ -f "$1/build.ninja" ] && [ "$1/build.ninja" -nt build/_deps/deps.cmake ] || { rm -f "$1/CMakeCache.txt"; false; }; }
configured build/debug || cmake --preset debug >build/debug.log 2>&1 || { cat build/debug.log >&2; die "configuration failed"; }
cmake --build build/debug -j "$JOBS" >>build/debug.log 2>&1 || { tail -n 40 build/debug.log >&2; die "the sanitized tests did not build"; }
say "building the fuzz targets"
configured build/fuzz || cmake --preset fuzz >build/fuzz.log 2>&1 || { cat build/fuzz.log >&2; die "configuration failed"; }
cmake --build build/fuzz -j "$JOBS" --target mysti_fuzzers >>build/fuzz.log 2>&1 || { tail -n 40 build/fuzz.log >&2; die "the fuzz targets did not build"; }

say "installing the client library of the API tests"
(cd tests/e2e && { [ -d node_modules ] && [ node_modules -nt package-lock.json ] || npm ci --no-audit --no-fund; touch node_modules; }) \
  >build/npm_e2e.log 2>&1 || { tail -n 20 build/npm_e2e.log >&2; die "npm ci failed in tests/e2e"; }

failed=0
say "fuzz targets, a few seconds each"
ctest --test-dir build/fuzz -R '^fuzz_' --output-on-failure || failed=1
say "unit tests under ASAN + UBSAN"
ctest --test-dir build/debug -LE 'e2e|web|fresh' --output-on-failure || failed=1
say "all tests"
ctest --test-dir build --output-on-failure || failed=1
exit $failed
