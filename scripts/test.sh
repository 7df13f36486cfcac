#!/usr/bin/env bash
# test.sh - sets up, builds and runs every test: fuzz (seconds each), unit (sanitized, then as shipped), parity, end to
# end, browser.
. "$(dirname "$0")/common.sh"
"$ROOT/scripts/setup.sh" --test
"$ROOT/scripts/build.sh"
cd "$ROOT"

# Configures a preset when it is new, or when the dependencies moved.
configure_preset() { # preset folder log
  if [ -f "$2/build.ninja" ] && [ "$2/build.ninja" -nt build/_deps/deps.cmake ]; then return 0; fi
  rm -f "$2/CMakeCache.txt"
  run_logged "$3" cmake --preset "$1"
}

rm -f build/build_tests.log build/debug.log build/fuzz.log build/npm_e2e.log
say "building the tests"
run_logged build/build_tests.log cmake --build build -j "$JOBS"
say "building the sanitized tests (ASAN + UBSAN)"
configure_preset debug build/debug build/debug.log
run_logged build/debug.log cmake --build build/debug -j "$JOBS"
say "building the fuzz targets"
configure_preset fuzz build/fuzz build/fuzz.log
run_logged build/fuzz.log cmake --build build/fuzz -j "$JOBS" --target mysti_fuzzers
npm_install tests/e2e build/npm_e2e.log

failed=0
say "fuzz targets, a few seconds each"
ctest --test-dir build/fuzz -j "$JOBS" -R '^fuzz_' --output-on-failure || failed=1
lanes=$((JOBS + 1)) # for tests that wait: for a retry, for a heartbeat that stays away
say "unit tests under ASAN + UBSAN (fresh parity tests and test_small_device, which would take minutes here, come below, with the programs as shipped)"
ctest --test-dir build/debug -j "$lanes" -LE 'e2e|web' -E '_fresh$|^test_small_device$' --output-on-failure || failed=1
say "unit and parity tests"
ctest --test-dir build -j "$lanes" -LE 'e2e|web' --output-on-failure || failed=1
# They start real processes and a browser and share the machine with each other and whatever else runs there: one that
# fails is run once more, and both runs are in the output.
say "end-to-end and browser tests"
ctest --test-dir build -j "$JOBS" -L 'e2e|web' --output-on-failure --repeat until-pass:2 || failed=1
exit $failed
