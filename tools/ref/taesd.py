#!/usr/bin/env python3
"""The tiny autoencoder against PyTorch: taesd.py PROGRAM [SEED]  (PROGRAM: tests/parity/network_run)

Both halves at their real width with random weights, in the names of the original and of diffusers, together and alone in a
file; relative error at most 1e-3 in f32 and 2e-2 in f16; tiles against the whole."""
import os
import random
import subprocess
import sys
import tempfile

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

from upscale import randomize, write


class Block(nn.Module):
    def __init__(self, i, o):
        super().__init__()
        self.conv = nn.Sequential(conv(i, o), nn.ReLU(), conv(o, o), nn.ReLU(), conv(o, o))
        if i != o:
            self.skip = nn.Conv2d(i, o, 1, bias=False)

    def forward(self, x):
        return F.relu(self.conv(x) + (self.skip(x) if hasattr(self, "skip") else x))


class Clamp(nn.Module):
    def forward(self, x):
        return torch.tanh(x / 3) * 3


def conv(i, o, **more):
    return nn.Conv2d(i, o, 3, padding=1, **more)


def blocks(width, count):
    return [Block(width, width) for _ in range(count)]


def encoder(width, channels):
    """Pixels are 0..1."""
    down = lambda: [conv(width, width, stride=2, bias=False), *blocks(width, 3)]
    return nn.Sequential(conv(3, width), *blocks(width, 1), *down(), *down(), *down(), conv(width, channels))


def decoder(width, channels):
    up = lambda: [*blocks(width, 3), nn.Upsample(scale_factor=2), conv(width, width, bias=False)]
    return nn.Sequential(Clamp(), conv(channels, width), nn.ReLU(), *up(), *up(), *up(), *blocks(width, 1), conv(width, 3))


def diffusers(state, is_decoder):
    """Its lists have no clamp."""
    half = "decoder" if is_decoder else "encoder"
    for name, t in state.items():
        number, rest = name.split(".", 1)
        yield f"{half}.layers.{int(number) - is_decoder}.{rest}", t


class Checks:
    def __init__(self, program, folder):
        self.program, self.folder, self.failed = program, folder, 0

    def path(self, name):
        return os.path.join(self.folder, name)

    def ours(self, kind, x, shape, tile=64):
        with open(self.path("in"), "wb") as f:
            f.write(x.numpy().astype(np.float32).tobytes())
        h, w = x.shape[2:]
        args = [self.program, kind, self.path("model.safetensors"), str(w), str(h), self.path("in"), self.path("out"), str(tile)]
        done = subprocess.run(args, capture_output=True, text=True)
        if done.returncode:
            sys.exit(done.stderr)
        return np.fromfile(self.path("out"), np.float32).reshape(shape)

    def say(self, what, error, most):
        self.failed += not error <= most
        print(f"{'ok  ' if error <= most else 'FAIL'} {what:44} error {error:.1e}", flush=True)

    def compare(self, what, enc, dec, tensors, half=False):
        write(self.path("model.safetensors"), tensors, half)
        h, w = random.randrange(2, 8), random.randrange(2, 8)
        most = 2e-2 if half else 1e-3
        if dec:
            z = torch.randn(1, 4, h, w) * 2
            want = (dec(z) * 2 - 1)[0].numpy()
            got = self.ours("taesd-decode", z, (3, 8 * h, 8 * w))
            self.say(what + ", decoder", np.abs(got - want).max() / np.abs(want).max(), most)
        if enc:
            rgb = torch.rand(1, 3, 8 * h, 8 * w) * 2 - 1
            want = enc((rgb + 1) / 2)[0].numpy()
            got = self.ours("taesd-encode", rgb, (4, h, w))
            self.say(what + ", encoder", np.abs(got - want).max() / np.abs(want).max(), most)


def main():
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(2**31)
    print(f"seed {seed}", flush=True)
    random.seed(seed)
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        c = Checks(sys.argv[1], folder)
        enc, dec = randomize(encoder(64, 4), False), randomize(decoder(64, 4), False)
        e, d = enc.state_dict(), dec.state_dict()
        c.compare("diffusers", enc, dec, dict([*diffusers(e, False), *diffusers(d, True)]))
        c.compare("original, both", enc, dec, {**{"encoder." + k: v for k, v in e.items()}, **{"decoder." + k: v for k, v in d.items()}})
        c.compare("original, decoder alone", None, dec, d)
        c.compare("original, encoder alone", enc, None, e)
        c.compare("named halves", enc, dec, {**{"taesd_encoder." + k: v for k, v in e.items()}, **{"taesd_decoder." + k: v for k, v in d.items()}})
        enc, dec = randomize(encoder(64, 4), True), randomize(decoder(64, 4), True)
        e, d = enc.state_dict(), dec.state_dict()
        c.compare("diffusers, f16", enc, dec, dict([*diffusers(e, False), *diffusers(d, True)]), half=True)
        dec = randomize(decoder(16, 4), False)  # with a width that has a skip somewhere, and in tiles
        dec[18] = randomize(nn.Sequential(Block(16, 8)), False)[0]
        dec[19] = randomize(nn.Sequential(conv(8, 3)), False)[0]
        c.compare("another width at the end", None, dec, dec.state_dict())
        for m in dec.modules():  # a trained one looks less far than random numbers make it
            if isinstance(m, nn.Conv2d):
                m.weight *= 0.35
        write(c.path("model.safetensors"), dec.state_dict(), False)
        z = F.interpolate(torch.randn(1, 4, 3, 4), size=(34, 40), mode="bilinear")
        whole, tiled = (c.ours("taesd-decode", z, (3, 272, 320), tile) for tile in (64, 32))
        c.say("tiles", np.abs(whole - tiled).max() / np.ptp(whole), 2 / 255)
    print(f"{c.failed} failed")
    return 1 if c.failed else 0


if __name__ == "__main__":
    sys.exit(main())
