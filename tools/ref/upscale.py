#!/usr/bin/env python3
"""Upscalers against PyTorch: upscale.py PROGRAM [SEED]  (PROGRAM: tests/parity/network_run)

ESRGAN's network in its three namings, for every factor, and Real-ESRGAN's compact one, written from their papers' figures and
published shapes; random weights, odd sizes. Relative error at most 1e-3 in f32 and 2e-2 in f16. Tiles are
compared in tests/unit/test_upscale.c: networks of random weights reach farther than tiles overlap."""
import json
import os
import random
import struct
import subprocess
import sys
import tempfile

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F


class Dense(nn.Module):
    def __init__(self, width, growth):
        super().__init__()
        for i in range(5):
            setattr(self, f"conv{i + 1}", nn.Conv2d(width + i * growth, growth if i < 4 else width, 3, padding=1))

    def forward(self, x):
        seen = [x]
        for i in range(4):
            seen.append(F.leaky_relu(getattr(self, f"conv{i + 1}")(torch.cat(seen, 1)), 0.2))
        return x + 0.2 * self.conv5(torch.cat(seen, 1))


class Block(nn.Module):
    def __init__(self, width, growth):
        super().__init__()
        self.rdb1, self.rdb2, self.rdb3 = (Dense(width, growth) for _ in range(3))

    def forward(self, x):
        return x + 0.2 * self.rdb3(self.rdb2(self.rdb1(x)))


class Rrdb(nn.Module):
    def __init__(self, width, growth, blocks, ups, shrink):
        super().__init__()
        self.shrink, self.ups = shrink, ups
        self.conv_first = nn.Conv2d(3 * shrink**2, width, 3, padding=1)
        self.body = nn.Sequential(*(Block(width, growth) for _ in range(blocks)))
        self.conv_body = nn.Conv2d(width, width, 3, padding=1)
        for i in range(ups):
            setattr(self, f"conv_up{i + 1}", nn.Conv2d(width, width, 3, padding=1))
        self.conv_hr = nn.Conv2d(width, width, 3, padding=1)
        self.conv_last = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, x):
        h, w = x.shape[2:]
        scale = 2**self.ups // self.shrink
        n = self.shrink
        x = F.pad(x, (0, -w % n, 0, -h % n), mode="replicate")
        x = self.conv_first(F.pixel_unshuffle(x, n) if n > 1 else x)
        x = x + self.conv_body(self.body(x))
        for i in range(self.ups):
            x = F.leaky_relu(getattr(self, f"conv_up{i + 1}")(F.interpolate(x, scale_factor=2, mode="nearest")), 0.2)
        return self.conv_last(F.leaky_relu(self.conv_hr(x), 0.2))[:, :, : h * scale, : w * scale]


class Compact(nn.Module):
    def __init__(self, width, blocks, scale):
        super().__init__()
        self.scale, layers, channels = scale, [], 3
        for _ in range(blocks + 1):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.PReLU(width)]
            channels = width
        self.body = nn.Sequential(*layers, nn.Conv2d(width, 3 * scale**2, 3, padding=1))

    def forward(self, x):
        return F.pixel_shuffle(self.body(x), self.scale) + F.interpolate(x, scale_factor=self.scale, mode="nearest")


def first_names(name):
    """As ESRGAN's own first release has them."""
    part = name.split(".")
    if part[0] == "body":
        part[:3] = ["RRDB_trunk", part[1], part[2].upper()]
    names = {"conv_body": "trunk_conv", "conv_hr": "HRconv", "conv_up1": "upconv1", "conv_up2": "upconv2", "conv_up3": "upconv3"}
    return ".".join([names.get(part[0], part[0])] + part[1:])


def numbered(name, net):
    """As torch.nn.Sequential numbers them in the models of before: a shortcut around the blocks is entry 1."""
    part, ups = name.split("."), net.ups
    numbers = {"conv_first": "0", "conv_body": f"1.sub.{len(net.body)}", "conv_hr": str(3 * ups + 2), "conv_last": str(3 * ups + 4)}
    numbers.update({f"conv_up{i + 1}": str(3 * (i + 1)) for i in range(ups)})
    if part[0] == "body":
        return f"model.1.sub.{part[1]}.{part[2].upper()}.{part[3]}.0.{part[4]}"
    return f"model.{numbers[part[0]]}.{part[1]}"


def write(path, tensors, half):
    header, data = {}, b""
    for name, t in tensors.items():
        a = t.numpy().astype(np.float16 if half else np.float32)
        header[name] = {"dtype": "F16" if half else "F32", "shape": list(a.shape), "data_offsets": [len(data), len(data) + a.nbytes]}
        data += a.tobytes()
    text = json.dumps(header).encode()
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + data)


def randomize(net, half):
    """So that signals keep their size, which the initial values of the layers do not."""
    for p in net.parameters():
        if p.dim() > 1:
            p.data = torch.randn(p.shape) * np.sqrt(1.5 / np.prod(p.shape[1:]))
        else:
            p.data = torch.randn(p.shape) * 0.1
        if half:
            p.data = p.data.half().float()
    return net.eval()


class Checks:
    def __init__(self, program, folder):
        self.program, self.folder, self.failed = program, folder, 0

    def path(self, name):
        return os.path.join(self.folder, name)

    def ours(self, model, x, scale, tile=192):
        with open(self.path("in"), "wb") as f:
            f.write(x.numpy().astype(np.float32).tobytes())
        h, w = x.shape[2:]
        args = [self.program, "upscale", model, str(w), str(h), self.path("in"), self.path("out"), str(tile)]
        done = subprocess.run(args, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{model}: {done.stderr}")
        return np.fromfile(self.path("out"), np.float32).reshape(3, h * scale, w * scale)

    def compare(self, what, net, names, scale, half=False, most=30):
        randomize(net, half)
        x = torch.rand(1, 3, random.randrange(9, most), random.randrange(9, most))
        tensors = {names(k): v for k, v in net.state_dict().items()}
        model = self.path("model.safetensors")
        write(model, tensors, half)
        want = net.double()(x.double())[0].numpy()
        error = np.abs(self.ours(model, x, scale) - want).max() / np.abs(want).max()
        ok = error <= (2e-2 if half else 1e-3) and np.ptp(want) > 0.1
        self.failed += not ok
        print(f"{'ok  ' if ok else 'FAIL'} {what:34} {tuple(x.shape[2:])} error {error:.1e}")
        return model


def main():
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(2**31)
    print(f"seed {seed}", flush=True)
    random.seed(seed)
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    same = lambda k: k
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        c = Checks(sys.argv[1], folder)
        c.compare("RealESRGAN x4", Rrdb(32, 16, 3, 2, 1), same, 4)
        c.compare("RealESRGAN x2", Rrdb(32, 16, 2, 2, 2), same, 2)
        c.compare("RealESRGAN x1", Rrdb(32, 16, 1, 2, 4), same, 1)
        c.compare("RealESRGAN x4, f16", Rrdb(64, 32, 2, 2, 1), same, 4, half=True)
        c.compare("ESRGAN x4, first names", Rrdb(24, 12, 2, 2, 1), first_names, 4)
        for ups in range(4):
            net = Rrdb(24, 12, 2, ups, 1)
            c.compare(f"ESRGAN x{2**ups}, numbered", net, lambda k: numbered(k, net), 2**ups)
        for scale in (1, 2, 3, 4):
            c.compare(f"compact x{scale}", Compact(32, 4, scale), same, scale)
        c.compare("compact x4, f16", Compact(64, 8, 4), same, 4, half=True)
        c.compare("RealESRGAN x4plus anime 6B", Rrdb(64, 32, 6, 2, 1), same, 4, most=12)  # at the real one's size
    print(f"{c.failed} failed")
    return 1 if c.failed else 0


if __name__ == "__main__":
    sys.exit(main())
