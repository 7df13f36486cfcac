#!/usr/bin/env python3
"""What step caching saves, and what it costs: step_cache.py MODEL [SIZE] [STEPS] [THREADS]

Makes one picture with the image worker's own command line for each cache interval, one behind the other, and prints the
seconds of its sampling, how much quicker that is than without, and the peak signal to noise against the picture without."""
import os
import re
import subprocess
import sys
import tempfile

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
sys.path.insert(0, os.path.join(ROOT, "tools", "ref"))
import picture


def make(model, size, steps, threads, interval, folder):
    out = os.path.join(folder, "a.png")
    args = ["generate", "--model", model, "--prompt", "a red cube on a table", "--width", size, "--height", size, "--steps", steps,
            "--seed", "42", "--sampler", "euler", "--threads", threads, "--cache-interval", str(interval), "-o", out]
    done = subprocess.run([os.path.join(ROOT, "build", "bin", "mysti_sd_worker"), *args], capture_output=True, text=True,
                          env=os.environ | {"OMP_WAIT_POLICY": "PASSIVE"})
    if done.returncode:
        sys.exit(done.stderr)
    return float(re.search(r"[\r\n]sampling +([0-9.]+) s", done.stderr).group(1)), picture.read_png(out)


def main(model, size="512", steps="20", threads=str(os.cpu_count())):
    with tempfile.TemporaryDirectory() as folder:
        whole, want = make(model, size, steps, threads, 1, folder)
        print("%s, %sx%s, %s steps, %s threads: %.1f s without" % (os.path.basename(model), size, size, steps, threads, whole), flush=True)
        for interval in (2, 3, 5):
            seconds, got = make(model, size, steps, threads, interval, folder)
            print("cache interval %d: %.1f s, %.2f times as quick, %.1f dB" % (interval, seconds, whole / seconds, picture.psnr(got, want)),
                  flush=True)


if __name__ == "__main__":
    if not 2 <= len(sys.argv) <= 5:
        sys.exit(__doc__)
    main(*sys.argv[1:])
