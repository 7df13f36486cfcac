#!/usr/bin/env python3
"""Trains the demo language model, in pieces if need be: each start goes on from the state that the last one saved.

    train.py STATE_DIR [--steps N] [--seed N] [--threads N]

STATE_DIR gets tokenizer.json (learned first), state.pt (every minute, whole or absent) and, at the end, weights.pt.
"""
import argparse
import os
import random
import shutil
import time
from pathlib import Path

os.environ.setdefault("ATEN_CPU_CAPABILITY", "avx512")

import torch  # noqa: E402
from torch.nn import functional as F  # noqa: E402

import corpus  # noqa: E402
import fast  # noqa: E402
import start  # noqa: E402
from network import ROPE_BASE, Network, Shape  # noqa: E402
from optimiser import Optimiser  # noqa: E402
from tokenizer import END, SPECIAL, Tokenizer, learn  # noqa: E402

VOCABULARY = 1792
BATCH_TOKENS = 3072
POOL = 2048  # conversations that are sorted by length together
WHOLE = 0.35  # of the conversations
WARM_UP = 100
SAVE_SECONDS = 60
SHOWN = ("a red circle on a blue background", "small green star left of a big pink heart, yellow stripes, watercolor",
         "a house and a tree on hills at night", "a cat on a mat", "zorbly quandix in front of Grünkohl (blue:1.3)")


def get_tokenizer(path, seed):
    """The state's tokenizer, learned when there is none."""
    if not path.exists():
        learn(corpus.texts(30_000, seed), VOCABULARY).save(path)
    return Tokenizer.load(path)


def word_tokens(tokenizer):
    """Tokens that can stand as a word in a made-up prompt."""
    plain = (tokenizer.decode([i]).strip() for i in range(len(SPECIAL) + 256, len(tokenizer.tokens)))
    return sorted({w for w in plain if w.isalpha()})


def batches(tokenizer, rng, context):
    """One pool of conversations as batches (ids, targets, weights): [n, length] each.

    Lengths are multiples of 16, and a length has its one number of rows: libraries prepare themselves for each shape.
    """
    words = word_tokens(tokenizer)
    rows = (cut(*tokenizer.chat(corpus.conversation(rng, words)), rng) for _ in range(POOL))
    rows = sorted((r for r in rows if len(r[0]) <= context + 1), key=lambda r: len(r[0]))
    out = []
    while rows:
        length = round_up(len(rows[-1][0]) - 1, 16)
        count = BATCH_TOKENS // length
        batch, rows = rows[-count:], rows[:-count]
        out.append(pad(batch + rng.choices(batch, k=count - len(batch)), length))
    rng.shuffle(out)
    return out


def cut(ids, weights, rng):
    """Mostly without the end of the last answer, which is soon known: time for more conversations."""
    if rng.random() < WHOLE:
        return ids, weights
    end = max(i for i, w in enumerate(weights) if w == 1) + 1 + rng.randint(3, 8)
    return ids[:end], weights[:end]


def round_up(n, step):
    return -(-n // step) * step


def pad(rows, length):
    """Rows (ids, weights) of one batch, padded: ids, what follows each of them, and how much that counts."""
    ids, targets = (torch.zeros(len(rows), length, dtype=torch.long) for _ in range(2))
    weights = torch.zeros(len(rows), length)
    for i, (row, counts) in enumerate(rows):
        ids[i, :len(row) - 1] = torch.tensor(row[:-1])
        targets[i, :len(row) - 1] = torch.tensor(row[1:])
        weights[i, :len(row) - 1] = torch.tensor(counts[1:])
    return ids, targets, weights


def loss_of(network, ids, targets, weights, device):
    """Mean loss of the tokens that the model has to say; the output head computes those alone, in whole 256s."""
    said = weights.flatten().nonzero().flatten()
    counts = weights.flatten()[said] / weights.sum()
    rest = round_up(len(said), 256) - len(said)
    said, counts = F.pad(said, (0, rest)), F.pad(counts, (0, rest))
    wanted = targets.flatten()[said]
    if device == "cpu" and shutil.which("cc"):
        return fast.loss(network, ids, said, wanted, counts)
    with torch.autocast(device, dtype=torch.bfloat16):
        logits = network.logits(network.hidden(ids.to(device)).flatten(0, 1)[said.to(device)])
    return (F.cross_entropy(logits.float(), wanted.to(device), reduction="none") * counts.to(device)).sum()


def rate(step, steps):
    """Of the peak rate: warm-up, a plateau, then straight down to nothing over the last two thirds."""
    return min(1, (step + 1) / WARM_UP) * min(1, (1 - step / steps) * 1.5)


def save(path, state):
    """Whole or not at all."""
    torch.save(state, path.with_suffix(".part"))
    os.replace(path.with_suffix(".part"), path)


def show(network, tokenizer):
    """Prints what the Magic Wand would make of a few prompts."""
    for prompt in SHOWN:
        ids, _ = tokenizer.chat([("system", corpus.WAND), ("user", prompt)], answer=False)
        print(f"  {prompt}\n    -> {tokenizer.decode(network.greedy(ids, 90, END))}", flush=True)


class Run:
    """The training's state: network, optimiser, steps and pools done, seconds on the clock and of the processor."""

    def __init__(self, folder, tokenizer, device):
        self.path, self.device = folder / "state.pt", device
        self.network = Network(Shape(len(tokenizer.tokens)))
        start.initialise(self.network, ROPE_BASE)
        self.network.to(device)
        self.optimiser = Optimiser(self.network)
        self.step = self.pool = 0
        self.seconds = self.processor = 0.0
        if self.path.exists():
            state = torch.load(self.path, map_location=device)
            self.network.load_state_dict(state["network"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.step, self.pool = state["step"], state["pool"]
            self.seconds, self.processor = state["seconds"], state.get("processor", 0.0)

    def save(self):
        save(self.path, {"network": self.network.state_dict(), "optimiser": self.optimiser.state_dict(),
                         "step": self.step, "pool": self.pool, "seconds": self.seconds, "processor": self.processor})

    def learn(self, batch, steps):
        loss = loss_of(self.network, *batch, self.device)
        loss.backward()
        self.optimiser.step(rate(self.step, steps))
        self.step += 1
        return float(loss)


def train(run, tokenizer, steps, seed):
    """Pools until all steps are done; an interrupted pool is drawn anew."""
    saved = noted = time.monotonic()
    began = time.process_time()
    while run.step < steps:
        rng = random.Random(f"{seed}/{run.pool}")
        losses = []
        for batch in batches(tokenizer, rng, run.network.shape.context):
            if run.step == steps:
                break
            losses.append(run.learn(batch, steps))
        run.pool += 1
        now, worked = time.monotonic(), time.process_time()
        run.seconds += now - noted
        run.processor += worked - began
        noted, began = now, worked
        print(f"step {run.step} of {steps}  loss {sum(losses) / len(losses):.4f}  {run.seconds / 60:.1f} min, "
              f"{run.processor / 60:.1f} of the processor", flush=True)
        if run.pool % 5 == 0:
            show(run.network, tokenizer)
        if noted - saved > SAVE_SECONDS:
            run.save()
            saved = noted
    run.save()


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("folder", type=Path)
    p.add_argument("--steps", type=int, default=1600)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--threads", type=int, default=1)
    a = p.parse_args()
    torch.set_num_threads(a.threads)
    torch.manual_seed(a.seed)
    a.folder.mkdir(parents=True, exist_ok=True)
    tokenizer = get_tokenizer(a.folder / "tokenizer.json", a.seed)
    run = Run(a.folder, tokenizer, "cuda" if torch.cuda.is_available() else "cpu")
    train(run, tokenizer, a.steps, a.seed)
    show(run.network, tokenizer)
    save(a.folder / "weights.pt", run.network.state_dict())


if __name__ == "__main__":
    main()
