# run.ps1 [OPTIONS] - starts the studio (build.ps1 first); options go to mysti_server.
# GGUF files that hold only the diffusion model (Flux, SD3, ...) are given with --diffusion-model.
$ErrorActionPreference = "Stop"
$root = Split-Path -Parent $PSScriptRoot
$server = Join-Path $root "build\bin\mysti_server.exe"
if (-not (Test-Path $server)) { & (Join-Path $PSScriptRoot "build.ps1") }

$defaults = @()
foreach ($pair in @(@("--model-dir", "models"), @("--output-dir", "outputs"), @("--data-dir", "data"))) {
    if ($args -notcontains $pair[0]) {
        $folder = Join-Path $root $pair[1]
        New-Item -ItemType Directory -Force $folder | Out-Null
        $defaults += $pair[0], $folder
    }
}
& $server @defaults @args
exit $LASTEXITCODE
