#!/usr/bin/env python3
"""Other ways through the models against PyTorch: flows.py PROGRAM MODELS VOCABULARY [SEED]

As picture.py, with whole pictures of at least 40 dB: a refiner that takes over within the run, tiles of what
is larger than the model's pictures, and steps that reuse what earlier ones computed."""
import math
import os
import random
import sys
import tempfile

import numpy as np
import torch

import clip_bpe
import picture
import sample


def calls_a_step(case):
    return 2 if case["sampler"] in sample.TWICE else 1


class Refined(picture.Sdxl):
    """SDXL, and its refiner from the first step at or behind the share case["switch_at"] on."""

    def __init__(self, models, words):
        super().__init__(models, words)
        self.refiner = picture.Refiner(models, words)
        self.options = lambda case: ["--refiner", self.refiner.file, "--switch-at", str(case["switch_at"])]

    def told(self, parts, case, is_negative):
        both = zip(super().told(parts, case, is_negative), self.refiner.told(parts, case, is_negative))
        return [(weight, {text: (said[text], other[text]) for text in said}, says) for (weight, said, says), (_, other, _) in both]

    def predict(self, x, t, told, case, call, question):
        if call // calls_a_step(case) / case["steps"] < case["switch_at"]:
            return self.net(x, t, *told[0])
        return self.refiner.net(x, t, *told[1])


def tile_begins(side, tile, overlap):
    """Where windows begin that cover a side at even distances, each overlapping the next by at least so much."""
    if side <= tile:
        return [0]
    n = math.ceil((side - overlap) / (tile - overlap))
    return [i * (side - tile) // (n - 1) for i in range(n)]


class Tiled(picture.Model):
    """MultiDiffusion: what the network says of each window, averaged where they overlap."""

    def options(self, case):
        return ["--tile", str(case["tile"]), "--tile-overlap", str(case["overlap"])]

    def predict(self, x, t, told, case, call, question):
        tile, overlap = case["tile"] // 8, case["overlap"] // 8
        total, times = torch.zeros_like(x), torch.zeros_like(x)
        for top in tile_begins(x.shape[2], tile, overlap):
            for left in tile_begins(x.shape[3], tile, overlap):
                window = (slice(None), slice(None), slice(top, top + tile), slice(left, left + tile))
                total[window] += super().predict(x[window], t, told, case, call, question)
                times[window] += 1
        return total / times


class TiledXl(Tiled, picture.Sdxl):
    pass


class Cached(picture.Model):
    """DeepCache: every case["interval"] steps the whole network, in between its last block; each question for itself."""

    def options(self, case):
        self.kept = {}
        return ["--cache-interval", str(case["interval"])]

    def predict(self, x, t, told, case, call, question):
        if call // calls_a_step(case) % case["interval"] == 0 or question not in self.kept:
            self.kept[question] = {}
        return self.net(x, t, *told, deep=self.kept[question])


class CachedXl(Cached, picture.Sdxl):
    pass


def check(model, case, seed, program, folder, from_picture):
    picture.check(model, case, seed, program, folder, from_picture, model.options(case))


def main(program, models, vocabulary, seed):
    print("seed", seed)
    rnd, words = random.Random(seed), clip_bpe.Vocabulary(vocabulary)
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        refined = Refined(models, words)
        for sampler in ("euler_a", "dpm++2m", rnd.choice([s for s in sample.SAMPLERS if s in sample.TWICE])):
            case = picture.random_case(rnd, sampler, 5)
            case["switch_at"] = rnd.choice([0.2, 0.5, 0.6, 0.8])
            check(refined, case, seed, program, folder, False)
        for family in (Tiled, Tiled, TiledXl):
            case = picture.random_case(rnd, rnd.choice(["euler_a", "dpm++2m", "heun"]), 4)
            case["tile"] = rnd.choice([64, 80])
            case["overlap"] = rnd.choice([0, 16, case["tile"] // 16 * 8])
            case["width"] = rnd.choice([104, 128, 200])
            check(family(models, words), case, seed, program, folder, family is Tiled)
        for family in (Cached, Cached, CachedXl):
            case = picture.random_case(rnd, rnd.choice(["euler_a", "dpm++2m", "heun"]), 6)
            case["interval"] = rnd.choice([2, 3, 5])
            check(family(models, words), case, seed, program, folder, family is Cached)


if __name__ == "__main__":
    if len(sys.argv) not in (4, 5):
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]) if len(sys.argv) > 4 else random.randrange(2**32))
