#!/bin/sh
# test.sh: tests of the demo models' data; exit 77 (skipped) with the reason where Python has no numpy.
python=${PYTHON:-/usr/bin/python3}
"$python" -c 'import numpy' 2>/dev/null || { echo "SKIP: $python has no numpy (apt install python3-numpy)"; exit 77; }
exec "$python" "$(dirname "$0")/test_demo.py"
