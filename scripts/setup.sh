#!/usr/bin/env bash
# setup.sh [--test] - installs what building needs (and what the tests need), fetches the pinned sources, builds
# llama.cpp + ggml once. Does nothing that is already done. Options by environment: MYSTI_CUDA=1, MYSTI_VULKAN=1,
# MYSTI_HIP=1 build ggml with that backend; MYSTI_CACHE=DIR keeps downloads and the llama.cpp build elsewhere.
. "$(dirname "$0")/common.sh"
. "$ROOT/third_party/pins.sh"

BUILD_PACKAGES="build-essential cmake ninja-build pkg-config git ca-certificates nodejs npm
  libuv1-dev libsqlite3-dev libpng-dev libjpeg62-turbo-dev libwebp-dev libcmocka-dev"
# With OpenBLAS the reference tests take a third less processor time (embeddings_fresh: 20 s instead of 29). This build of it
# waits as PyTorch's own threads do.
TEST_PACKAGES="clang libclang-rt-14-dev python3 python3-numpy python3-torch libopenblas0-openmp chromium fonts-dejavu-core"

have_package() { dpkg-query -W -f '${Status}' "$1" 2>/dev/null | grep -q 'install ok installed'; }

has_candidate() { apt-cache policy "$1" 2>/dev/null | grep -q 'Candidate: [0-9]'; }

# Some packages may come from elsewhere (Node from its makers, say): a command that is there is enough.
satisfied() {
  case $1 in
    nodejs) command -v node >/dev/null ;;
    npm | git | cmake | clang) command -v "$1" >/dev/null ;;
    python3) [ -x /usr/bin/python3 ] ;;
    *) have_package "$1" ;;
  esac
}

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"
  elif command -v sudo >/dev/null; then sudo "$@"
  else die "these packages are missing, and there is no sudo to install them: $missing"; fi
}

install_packages() {
  missing=
  for p in $1; do satisfied "$p" || missing="$missing $p"; done
  [ -n "$missing" ] || return 0
  command -v apt-get >/dev/null || die "not a Debian system; install the equivalents of:$missing"
  say "installing packages:$missing"
  as_root apt-get update -qq
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >"$DEPS/apt.log" 2>&1 ||
    { tail -n 20 "$DEPS/apt.log" >&2; die "apt-get install failed"; }
}

# npm_pack NAME@VERSION SHA512 FILE: the package's tarball, checked against the pin.
npm_pack() {
  [ -f "$3" ] && echo "$2  $3" | sha512sum -c --quiet 2>/dev/null && return 0
  local tmp; tmp=$(mktemp -d)
  (cd "$tmp" && npm pack --silent "$1" >/dev/null 2>&1) || die "cannot fetch $1 from the npm registry"
  echo "$2  $(ls "$tmp"/*.tgz)" | sha512sum -c --quiet || die "$1: checksum differs from third_party/pins.sh"
  mkdir -p "$(dirname "$3")"
  mv "$tmp"/*.tgz "$3"
  rmdir "$tmp"
}

# llhttp and yyjson are not in Debian 12: take these packages from Debian 13 into a folder of our own, with an apt
# configuration of its own (same mirror, same keyring) that leaves the system's package lists alone.
fetch_debian_libraries() {
  SYSROOT=
  if has_candidate libllhttp-dev && has_candidate libyyjson-dev; then
    install_packages "libllhttp-dev libyyjson-dev" # Debian 13, Ubuntu 24.04
    return 0
  fi
  SYSROOT=$DEPS/sysroot
  [ -f "$SYSROOT/.complete" ] && cmp -s "$SYSROOT/.complete" <(echo "$DEBIAN_PINS") && return 0
  local arch debs apt mirror pin name sum
  arch=$(dpkg --print-architecture)
  debs=$CACHE/debian-$arch
  apt=$DEPS/apt
  mkdir -p "$debs" "$apt/lists/partial" "$apt/cache/archives/partial"
  if ! ls "$debs"/*.deb >/dev/null 2>&1 || [ ! -f "$debs/.complete" ] || ! cmp -s "$debs/.complete" <(echo "$DEBIAN_PINS"); then
    say "fetching llhttp and yyjson from Debian 13"
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Component: main' | grep -v security | head -n 1)
    [ -n "$mirror" ] || die "apt has no Debian mirror configured"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror trixie main" >"$apt/sources.list"
    cat >"$apt/apt.conf" <<CONF
Dir::State "$apt";
Dir::State::status "/dev/null";
Dir::Cache "$apt/cache";
Dir::Etc::sourcelist "$apt/sources.list";
Dir::Etc::sourceparts "-";
APT::Sandbox::User "";
CONF
    APT_CONFIG=$apt/apt.conf apt-get update -qq || die "cannot read Debian 13's package list"
    rm -f "$debs"/*.deb
    while read -r pin sum; do
      [ -n "$pin" ] || continue
      (cd "$debs" && APT_CONFIG=$apt/apt.conf apt-get download -qq "$pin") || die "Debian 13 no longer has $pin; update third_party/pins.sh"
      if [ "$arch" = amd64 ]; then
        name=${pin%%=*}
        echo "$sum  $(ls "$debs/${name}"_*.deb)" | sha256sum -c --quiet || die "$pin: checksum differs from third_party/pins.sh"
      fi
    done <<<"$DEBIAN_PINS"
    echo "$DEBIAN_PINS" >"$debs/.complete"
  fi
  rm -rf "$SYSROOT"
  mkdir -p "$SYSROOT"
  for deb in "$debs"/*.deb; do dpkg-deb -x "$deb" "$SYSROOT"; done
  echo "$DEBIAN_PINS" >"$SYSROOT/.complete"
}

# The page's build needs Node >= 20.19; Debian 12's is 18. The npm registry has Node itself.
ensure_node() {
  node -e 'const [a,b]=process.versions.node.split(".").map(Number);process.exit(a>20||(a===20&&b>=19)?0:1)' 2>/dev/null && return 0
  [ -x "$DEPS/node/bin/node" ] && return 0
  local arch; case $(uname -m) in x86_64) arch=x64 ;; aarch64) arch=arm64 ;; *) die "Node 20.19 or newer is needed" ;; esac
  say "fetching Node $NODE_NPM_VERSION (the system's is older than 20.19)"
  mkdir -p "$DEPS/node"
  (cd "$DEPS" && npm pack --silent "node-linux-$arch@$NODE_NPM_VERSION" >/dev/null 2>&1 && tar xzf node-linux-*.tgz -C node --strip-components=1 &&
    rm node-linux-*.tgz) || die "cannot fetch Node from the npm registry"
}

# llama.cpp + ggml, built once per version, options and processor, and kept outside the clone.
build_llama() {
  local options cpu key src inner
  # OpenMP: its barriers sleep. ggml's own spin, and two workers that spin for the same processors stand still.
  options="-DGGML_OPENMP=$([ "$(uname)" = Darwin ] && echo OFF || echo ON) -DGGML_NATIVE=ON"
  [ "${MYSTI_CUDA:-0}" = 1 ] && options="$options -DGGML_CUDA=ON"
  [ "${MYSTI_VULKAN:-0}" = 1 ] && options="$options -DGGML_VULKAN=ON"
  [ "${MYSTI_HIP:-0}" = 1 ] && options="$options -DGGML_HIP=ON"
  cpu=$(grep -m1 -E '^(flags|Features)' /proc/cpuinfo 2>/dev/null || uname -m)
  key=$(echo "$LLAMA_SHA512 $options $cpu $(cc -dumpfullversion 2>/dev/null)" | sha256sum | cut -c1-12)
  LLAMA_PREFIX=$CACHE/llama-$LLAMA_VERSION-$key
  # Of ggml's inner headers the tests need one, to make a device of their own (tests/unit/small_device.c).
  inner=ggml-backend-impl.h
  [ -f "$LLAMA_PREFIX/.complete" ] && [ -f "$LLAMA_PREFIX/include/$inner" ] && return 0
  npm_pack "$LLAMA_NPM" "$LLAMA_SHA512" "$CACHE/llama-$LLAMA_VERSION.tgz"
  src=$CACHE/src-$key
  rm -rf "$src"
  mkdir -p "$src"
  tar xzf "$CACHE/llama-$LLAMA_VERSION.tgz" -C "$src" package/llama/gitRelease.bundle
  git -c advice.detachedHead=false clone -q "$src/package/llama/gitRelease.bundle" "$src/llama.cpp"
  mkdir -p "$LLAMA_PREFIX/include"
  cp "$src/llama.cpp/ggml/src/$inner" "$LLAMA_PREFIX/include/"
  if [ -f "$LLAMA_PREFIX/.complete" ]; then rm -rf "$src"; return 0; fi # made before that was needed
  say "building llama.cpp + ggml $LLAMA_VERSION (once; about 3 minutes on 2 cores)"
  cmake -S "$src/llama.cpp" -B "$src/build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=OFF \
    -DCMAKE_POSITION_INDEPENDENT_CODE=ON -DCMAKE_INSTALL_PREFIX="$LLAMA_PREFIX" -DLLAMA_BUILD_COMMON=OFF \
    -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_TOOLS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_SERVER=OFF \
    -DLLAMA_BUILD_APP=OFF -DLLAMA_OPENSSL=OFF $options >"$src/build.log" 2>&1 &&
    cmake --build "$src/build" -j "$JOBS" >>"$src/build.log" 2>&1 && cmake --install "$src/build" >>"$src/build.log" 2>&1 ||
    { tail -n 30 "$src/build.log" >&2; die "llama.cpp did not build; the whole log is $src/build.log"; }
  touch "$LLAMA_PREFIX/.complete"
  rm -rf "$src"
}

fetch_clip_vocabulary() {
  CLIP_VOCAB=$DEPS/clip/bpe_simple_vocab_16e6.js
  [ -f "$CLIP_VOCAB" ] && return 0
  npm_pack "$CLIP_NPM" "$CLIP_SHA512" "$CACHE/$CLIP_NPM.tgz"
  mkdir -p "$DEPS/clip"
  tar xzf "$CACHE/$CLIP_NPM.tgz" -C "$DEPS/clip" --strip-components=2 package/script/bpe_simple_vocab_16e6.js
}

write_deps_file() {
  { [ -z "$SYSROOT" ] || echo "set(MYSTI_SYSROOT \"$SYSROOT\")"
    echo "set(MYSTI_LLAMA_PREFIX \"$LLAMA_PREFIX\")"
    echo "set(MYSTI_CLIP_VOCAB \"$CLIP_VOCAB\")"; } >"$DEPS/deps.cmake.new"
  cmp -s "$DEPS/deps.cmake.new" "$DEPS/deps.cmake" || mv "$DEPS/deps.cmake.new" "$DEPS/deps.cmake"
  rm -f "$DEPS/deps.cmake.new"
}

mkdir -p "$DEPS"
install_packages "$BUILD_PACKAGES"
if [ "${1:-}" = --test ]; then install_packages "$TEST_PACKAGES"; fi
fetch_debian_libraries
ensure_node
fetch_clip_vocabulary
build_llama
write_deps_file
say "dependencies are ready"
