#!/bin/sh
# test.sh [NAME]: tests of the demo models' data (test_demo.py), of the image model's training (test_training.py) or of the
# language model's (llm/test_llm.py, which does less without PyTorch); exit 77 (skipped) with the reason where Python lacks what
# they need.
python=${PYTHON:-/usr/bin/python3}
name=${1:-test_demo}
case $name in test_training) needs=torch ;; *) needs=numpy ;; esac
"$python" -c "import sys; from importlib.util import find_spec; sys.exit(not find_spec('$needs'))" ||
  { echo "SKIP: $python has no $needs (apt install python3-$needs)"; exit 77; }
exec "$python" "$(dirname "$0")/$name.py"
