#!/bin/sh
# run.sh SCRIPT.py ARGS...: runs a reference script; exit 77 (skipped) with the reason where Python has no torch.
python=${PYTHON:-/usr/bin/python3}
"$python" -c 'import sys; from importlib.util import find_spec; sys.exit(not (find_spec("torch") and find_spec("numpy")))' ||
  { echo "SKIP: $python has no torch and numpy (apt install python3-torch)"; exit 77; }
here=$(dirname "$0")
# Tensors come and go by the thousand: glibc keeps their memory, in large pages, instead of asking the system for it anew
# (flows.py with seed 7: 52 000 page faults instead of 432 000).
export GLIBC_TUNABLES=${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=33554432:glibc.malloc.trim_threshold=4294967296}
script=$1
shift
exec "$python" "$here/$script" "$@"
