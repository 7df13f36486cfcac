#!/usr/bin/env python3
"""ControlNets and Canny against a reference: controlnet.py PROGRAM [SEED]  (PROGRAM: tests/parity/control_run)

The network is written from the paper (Zhang et al. 2023, section 3) over networks.py's blocks, with the original parameter
names; whole ControlNets with whole UNets, random weights, odd sizes, all namings and file types (the reference has the numbers
that the file can hold). Relative error at most 1e-3. Canny, after OpenCV's definition of it, must be the same to the pixel."""
import os
import random
import subprocess
import sys
import tempfile

import numpy as np
import torch
import torch.nn as nn

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
import make_tiny_models as tiny
import networks
from upscale import randomize


class ControlNet(nn.Module):
    """A copy of the UNet's first half and middle; a picture in 0..1 enters behind the first convolution."""

    def __init__(self, unet, hint=tiny.HINT_WIDTHS):
        super().__init__()
        self.width, self.time_embed = unet.width, unet.time_embed
        self.input_blocks, self.middle_block = unet.input_blocks, unet.middle_block
        if hasattr(unet, "label_emb"):
            self.label_emb = unet.label_emb
        layers, c = [], 3
        for i, o in enumerate((*hint, unet.width)):
            layers += [nn.Conv2d(c, o, 3, padding=1, stride=2 if i in (2, 4, 6) else 1), nn.SiLU()]
            c = o
        self.input_hint_block = nn.Sequential(*layers[:-1])
        widths = self.probe()
        self.zero_convs = nn.ModuleList(nn.Sequential(nn.Conv2d(c, c, 1)) for c in widths[:-1])
        self.middle_block_out = nn.Sequential(nn.Conv2d(widths[-1], widths[-1], 1))

    def probe(self):
        """Channels that each entry leaves, and the middle."""
        out, c = [], self.width
        for stage in [*self.input_blocks, self.middle_block]:
            for part in stage:
                if isinstance(part, networks.UNetResnet):
                    c = part.out_layers[3].out_channels
            out.append(c)
        return out

    def forward(self, x, hint, t, context, label=None):
        emb = self.time_embed(networks.timestep_embedding(t, self.width).to(x.dtype))
        if label is not None:
            emb = emb + self.label_emb(label)
        hint, out = self.input_hint_block(hint), []
        for i, (stage, zero) in enumerate(zip(self.input_blocks, self.zero_convs)):
            x = stage(x, emb, context)
            if i == 0:
                x = x + hint
            out.append(zero(x))
        return out + [self.middle_block_out(self.middle_block(x, emb, context))]


def controlled(unet, added, x, t, context, label=None):
    """The UNet with what ControlNets add to its skip connections and its middle."""
    emb = unet.time_embed(networks.timestep_embedding(t, unet.width).to(x.dtype))
    if label is not None:
        emb = emb + unet.label_emb(label)
    skips = []
    for stage in unet.input_blocks:
        x = stage(x, emb, context)
        skips.append(x)
    added = list(added)
    x = unet.middle_block(x, emb, context) + added.pop()
    for stage in unet.output_blocks:
        skip = skips.pop() + added.pop()
        if x.shape[-2:] != skip.shape[-2:]:
            x = torch.nn.functional.interpolate(x, skip.shape[-2:], mode="nearest")
        x = stage(torch.cat([x, skip], dim=1), emb, context)
    return unet.out(x)


# --- files ------------------------------------------------------------------------------------------------------------


def f8_values():
    """What the 256 bytes of E4M3 (Micikevicius et al. 2022) mean; not-a-number as infinite, so that nothing rounds to it."""
    out = []
    for byte in range(256):
        sign, exponent, rest = -1.0 if byte & 128 else 1.0, (byte >> 3) & 15, byte & 7
        value = rest / 8 * 2.0**-6 if exponent == 0 else (1 + rest / 8) * 2.0 ** (exponent - 7)
        out.append(np.inf if byte & 127 == 127 else sign * value)
    return np.array(out)


def to_f8(a):
    """The nearest one's byte."""
    values = f8_values()
    order = np.argsort(values)
    middles = (values[order][1:] + values[order][:-1]) / 2
    return order[np.searchsorted(middles, a)].astype(np.uint8)


def rounded(net, kind):
    """The module's numbers become those that the file can hold."""
    for p in net.parameters():
        if kind == "F16":
            p.data = p.data.half().float()
        elif kind == "BF16":
            p.data = p.data.bfloat16().float()
        elif kind == "F8" and p.dim() > 1:
            p.data = torch.from_numpy(f8_values()[to_f8(p.data.numpy())]).float()


def write(path, state, kind):
    arrays = {k: v.numpy() for k, v in state.items()}
    if kind == "PTH":
        torch.save({"state_dict": {k: v.half() for k, v in state.items()}}, path)
    elif kind == "F8":
        header, data = {}, b""
        for name, a in arrays.items():
            raw = to_f8(a).tobytes() if a.ndim > 1 else a.astype(np.float32).tobytes()
            header[name] = {"dtype": "F8_E4M3" if a.ndim > 1 else "F32", "shape": list(a.shape),
                            "data_offsets": [len(data), len(data) + len(raw)]}
            data += raw
        text = tiny.json.dumps(header).encode()
        with open(path, "wb") as f:
            f.write(tiny.struct.pack("<Q", len(text)) + text + data)
    else:
        tiny.write_safetensors(path, arrays, kind)


NAMINGS = {"original": lambda k, blocks: "control_model." + k, "bare": lambda k, blocks: k,
           "diffusers": tiny.control_diffusers_name}
LIMIT = 1e-3


# --- Canny ------------------------------------------------------------------------------------------------------------


def canny(img, low, high):
    """img: [h, w, c] bytes. Whole arrays at a time; the edges grow from the strong ones until nothing is added."""
    a = np.pad(img.astype(np.int64), ((1, 1), (1, 1), (0, 0)), mode="edge")
    smooth = lambda v, axis: v.take(range(v.shape[axis] - 2), axis) + 2 * v.take(range(1, v.shape[axis] - 1), axis) + v.take(
        range(2, v.shape[axis]), axis)
    slope = lambda v, axis: v.take(range(2, v.shape[axis]), axis) - v.take(range(v.shape[axis] - 2), axis)
    dx, dy = slope(smooth(a, 0), 1), slope(smooth(a, 1), 0)
    best = (abs(dx) + abs(dy)).argmax(axis=2)[..., None]
    dx, dy = (np.take_along_axis(v, best, 2)[..., 0] for v in (dx, dy))
    size = np.pad(abs(dx) + abs(dy), 1)
    h, w = dx.shape
    at = lambda y, x: size[1 + y:1 + y + h, 1 + x:1 + x + w]
    m = at(0, 0)
    tan22 = 13573 / 2**15
    flat, steep = abs(dy) < tan22 * abs(dx), abs(dy) > (tan22 + 2) * abs(dx)
    rising = (dx < 0) != (dy < 0)  # the gradient points up to the right, or down to the left
    keep = np.where(flat, (m > at(0, -1)) & (m >= at(0, 1)),
                    np.where(steep, (m > at(-1, 0)) & (m >= at(1, 0)),
                             np.where(rising, (m > at(-1, 1)) & (m > at(1, -1)), (m > at(-1, -1)) & (m > at(1, 1)))))
    weak, edges = keep & (m > low), keep & (m > high)
    while True:
        wide = np.pad(edges, 1)
        grown = weak & np.any([wide[y:y + h, x:x + w] for y in range(3) for x in range(3)], axis=0)
        if (grown == edges).all():
            return np.where(edges, 255, 0).astype(np.uint8)
        edges = grown


def scene(rng, h, w, channels):
    """Shapes, slopes and grain: edges of every direction and strength."""
    y, x = np.mgrid[:h, :w].astype(np.float64)
    out = np.zeros((h, w, channels))
    for c in range(channels):
        a = 60 * np.sin(x * rng.uniform(0.02, 0.3) + y * rng.uniform(-0.3, 0.3)) + 128
        a[(x - rng.uniform(0, w)) ** 2 + (y - rng.uniform(0, h)) ** 2 < (min(h, w) / 3) ** 2] += rng.uniform(-90, 90)
        a[rng.integers(h):, rng.integers(w):] += rng.uniform(-60, 60)
        out[..., c] = a + rng.normal(0, rng.choice([0, 2, 12]), (h, w))
    return out.clip(0, 255).astype(np.uint8)


# --- the checks -------------------------------------------------------------------------------------------------------


class Checks:
    def __init__(self, program, folder, rng):
        self.program, self.folder, self.rng, self.failed = program, folder, rng, 0

    def path(self, name):
        return os.path.join(self.folder, name)

    def run(self, *args):
        done = subprocess.run([self.program, *map(str, args)], capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{args}: {done.stderr}")

    def said(self, ok, what, result):
        self.failed += not ok
        print(f"{'ok  ' if ok else 'FAIL'} {what:34} {result}", flush=True)

    def compare(self, what, shape, files, n=2):
        """files: naming and type of each ControlNet."""
        unet = randomize(networks.UNet(**shape), False)
        h, w = (self.rng.integers(5, 13, 2) if "label" not in shape else self.rng.integers(4, 9, 2)).tolist()
        inputs = {"x": torch.randn(n, 4, h, w), "t": torch.rand(n) * 999, "context": torch.randn(n, 7, shape["context"])}
        if "label" in shape:
            inputs["label"] = torch.randn(n, shape["label"])
        args, sums, blocks = [], None, shape["blocks"]
        for i, (naming, kind) in enumerate(files):
            net = randomize(ControlNet(networks.UNet(**shape)), False)
            rounded(net, "F16" if kind == "PTH" else kind)
            path, weight = self.path(f"control{i}.{'pth' if kind == 'PTH' else 'safetensors'}"), round(random.uniform(0.3, 1.5), 3)
            write(path, {NAMINGS[naming](k, blocks): v for k, v in net.state_dict().items()}, kind)
            hint = torch.rand(1, 3, 8 * h, 8 * w)
            added = net.double()(inputs["x"].double(), hint.double(), inputs["t"], inputs["context"].double(),
                                 inputs["label"].double() if "label" in inputs else None)
            added = [weight * v for v in added]
            sums = added if sums is None else [a + b for a, b in zip(sums, added)]
            inputs[f"hint{i}"] = hint
            args += [path, weight]
        tiny.write_safetensors(self.path("unet.safetensors"), tiny.prefixed("model.diffusion_model.", {
            k: v.numpy() for k, v in unet.state_dict().items()}), "F32")
        tiny.write_safetensors(self.path("in.safetensors"), {k: v.numpy() for k, v in inputs.items()}, "F32")
        self.run("unet", self.path("unet.safetensors"), self.path("in.safetensors"), self.path("out"), *args)
        ours = np.fromfile(self.path("out"), np.float32).reshape(n, 4, h, w)
        told = [inputs[k].double() for k in ("x", "t", "context")] + [inputs["label"].double() if "label" in inputs else None]
        want = controlled(unet.double(), sums, *told).numpy()
        without = unet(*told).numpy()
        error, effect = (np.abs(a - want).max() / np.abs(want).max() for a in (ours, without))
        self.said(error <= LIMIT and effect > 10 * LIMIT, what, f"{w}x{h} error {error:.1e} (it changes {effect:.1e})")

    def edges(self, h, w, channels, low, high):
        img = scene(self.rng, h, w, channels)
        img.tofile(self.path("pixels"))
        self.run("canny", low, high, w, h, channels, self.path("pixels"), self.path("edges"))
        ours, want = np.fromfile(self.path("edges"), np.uint8).reshape(h, w), canny(img, low, high)
        self.said((ours == want).all(), f"canny {w}x{h}x{channels} {low}..{high}",
                  f"{(ours != want).sum()} of {ours.size} differ, {(want > 0).sum()} on edges")
        return int((want > 0).sum())


SD1 = dict(width=32, mult=(1, 2, 2), blocks=2, attend=(0, 1), context=40)
SD2 = dict(width=64, mult=(1, 2), blocks=1, attend=(0, 1), context=48, heads=None, linear=True)
SDXL = dict(width=32, mult=(1, 2, 4), blocks=2, attend=(1, 2), context=56, heads=None, linear=True, depth=[0, 1, 2], label=80)


def main():
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(2**31)
    print(f"seed {seed}", flush=True)
    random.seed(seed)
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        c = Checks(sys.argv[1], folder, np.random.default_rng(seed))
        edges = sum(c.edges(*c.rng.integers(3, 90, 2).tolist(), channels, low, high) for channels in (1, 3, 4)
                    for low, high in ((100, 200), (20, 60), (0, 2040), (50, 50)))
        edges += c.edges(1, 40, 3, 10, 50) + c.edges(40, 1, 3, 10, 50) + c.edges(1, 1, 3, 0, 0)
        c.said(edges > 100, "canny found edges", edges)
        c.compare("SD 1, original names", SD1, [("original", "F32")])
        c.compare("SD 1, bare names, two at once", SD1, [("bare", "F32"), ("diffusers", "F32")])
        c.compare("SD 2, diffusers' names", SD2, [("diffusers", "F32")], n=1)
        c.compare("SDXL, diffusers' names", SDXL, [("diffusers", "F32")])
        c.compare("SDXL, original names", SDXL, [("original", "F32")], n=1)
        for kind in ("F16", "BF16", "PTH", "F8"):
            c.compare(f"SD 1, {kind}", SD1, [("original", kind)], n=1)
    print(f"{c.failed} failed")
    return 1 if c.failed else 0


if __name__ == "__main__":
    sys.exit(main())
