"""Has the image worker draw held-out captions and judges the pictures:
evaluate.py WORKER MODEL.safetensors OUTDIR [--count N] [--seed S] [--known] [--sampler NAME] [--cfg X] [--steps N]

WORKER is mysti_sd_worker. Prints a table of what is right; OUTDIR keeps the pictures, sheet.png (the first 64) and
verdicts.jsonl. --known draws combinations from the training set instead."""
import argparse
import json
import os
import random
import socket
import subprocess
import time
import urllib.request

import numpy as np

import caption
import judge
import png
import scene

SIDE = 128
# As the server starts it: threads that wait for each other sleep.
ENVIRONMENT = {"MYSTI_TOKEN": "evaluate", "OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "5000"}


class Worker:
    """mysti_sd_worker with one model loaded, as the server talks to it (docs/worker-protocol.md)."""

    def __init__(self, program, model):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.process = subprocess.Popen(
            [program, "--port", str(self.port)], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, env={**os.environ, **ENVIRONMENT})
        for _ in range(100):
            try:
                self.ask("health")
                break
            except OSError:
                time.sleep(0.05)
        self.ask("load", {"model": os.path.abspath(model)})

    def ask(self, route, body=None):
        """The lines of the answer."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/internal/{route}", data,
                                         {"X-Mysti-Token": "evaluate", "Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=600) as answer:
            return [json.loads(line) for line in answer if line.strip()]

    def draw(self, text, seed, options):
        """[128, 128, 3] uint8"""
        stem = f"{seed:05}"
        lines = self.ask("generate", {
            "job": "j-1", "prompt": text, "negative_prompt": "", "width": SIDE, "height": SIDE, "steps": options.steps,
            "cfg_scale": options.cfg, "sampler": options.sampler, "scheduler": options.scheduler, "seed": seed,
            "output_dir": os.path.abspath(options.out), "file_stem": stem, "format": "png", "preview": False})
        failed = [line for line in lines if line["event"] == "error"]
        if failed:
            raise RuntimeError(failed[0])
        return png.read(os.path.join(options.out, stem + ".png"))

    def close(self):
        self.process.stdin.close()
        self.process.wait(10)


class Table:
    """Per part: how many were right, of how many that were named."""

    def __init__(self):
        self.right, self.named = {}, {}

    def add(self, part, verdict):
        if verdict is not None:
            self.named[part] = self.named.get(part, 0) + 1
            self.right[part] = self.right.get(part, 0) + bool(verdict)

    def print(self):
        for part, named in self.named.items():
            print(f"{part:12} {self.right[part]:5} of {named:5}  {100 * self.right[part] / named:5.1f} %")


def add_verdict(table, verdict):
    for part in ("colour", "shape", "size"):
        for one in getattr(verdict, part):
            table.add(part, one)
    for part in ("count", "place", "relation", "background", "pattern", "style", "time", "sky", "ground"):
        table.add(part, getattr(verdict, part))
    table.add("everything", verdict.right())


def sheet(pictures, columns=8):
    """[rows * 128, columns * 128, 3]"""
    rows = [np.concatenate(pictures[i : i + columns], 1) for i in range(0, len(pictures) // columns * columns, columns)]
    return np.concatenate(rows, 0)


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    for name in ("worker", "model", "out"):
        arguments.add_argument(name)
    arguments.add_argument("--count", type=int, default=300)
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--steps", type=int, default=20)
    arguments.add_argument("--cfg", type=float, default=7)
    arguments.add_argument("--sampler", default="euler_a")
    arguments.add_argument("--scheduler", default="discrete")
    arguments.add_argument("--known", action="store_true")
    options = arguments.parse_args()
    os.makedirs(options.out, exist_ok=True)
    rng, table, pictures = random.Random(options.seed), Table(), []
    worker, start = Worker(options.worker, options.model), time.time()
    with open(os.path.join(options.out, "verdicts.jsonl"), "w") as log:
        for i in range(options.count):
            one = scene.random_scene(rng, held_out=not options.known)
            text = caption.write(one, rng)
            picture = worker.draw(text, options.seed * 10000 + i, options)
            verdict = judge.judge(picture, caption.parse(text))
            add_verdict(table, verdict)
            pictures.append(picture)
            print(json.dumps({"caption": text, "right": verdict.right(), "verdict": str(verdict)}), file=log)
    seconds = time.time() - start
    worker.close()
    png.write(os.path.join(options.out, "sheet.png"), sheet(pictures[:64]))
    table.print()
    print(f"{options.count} pictures, {seconds / options.count:.2f} s each (the judge included)")


if __name__ == "__main__":
    main()
