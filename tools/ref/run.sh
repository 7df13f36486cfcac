#!/bin/sh
# run.sh SCRIPT.py ARGS...: runs a reference script; exit 77 (skipped) with the reason where Python has no torch.
python=${PYTHON:-/usr/bin/python3}
"$python" -c 'import torch, numpy' 2>/dev/null || { echo "SKIP: $python has no torch and numpy (apt install python3-torch)"; exit 77; }
here=$(dirname "$0")
script=$1
shift
exec "$python" "$here/$script" "$@"
