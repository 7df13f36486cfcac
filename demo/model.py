"""The demo image model: Stable Diffusion 1.x's topology at small widths, and what its trainings share.

Pictures are 128x128, latents 16x16 with 4 channels, texts 77 CLIP tokens. Everything runs on a CPU (with fast.py) or
on CUDA."""
import json
import math
import os
import struct
import sys
import time

import torch

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "tools", "ref")]
import networks  # noqa: E402
from fast import speed_up  # noqa: E402
from team import Team  # noqa: E402

PIXELS, LATENT, CHANNELS, TOKENS = 128, 16, 4, 77
TEXT_WIDTH = 128
SCALE = 0.18215  # of latents, as in Stable Diffusion 1.x
TOKEN_EMBEDDING = "embeddings.token_embedding.weight"
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class Vae(networks.Vae):
    """Few channels at full resolution, where they cost most, but more before the last norm: its 32 groups of one or two
    channels would take the plain colours of a picture away, as they take each group's mean and scale."""

    def __init__(self):
        super().__init__(32, (1, 2, 3, 4), 2, CHANNELS, SCALE)
        last = 96
        self.decoder.up[0].block[2] = networks.VaeResnet(32, last)
        self.decoder.norm_out = torch.nn.GroupNorm(32, last, eps=1e-6)
        self.decoder.conv_out = torch.nn.Conv2d(last, 3, 3, padding=1)
        keep_size(self)
        for part in self.modules():
            if isinstance(part, networks.VaeResnet):
                start_at_zero(part.conv2)
            elif isinstance(part, networks.VaeAttention):
                start_at_zero(part.proj_out)


def keep_size(module):
    """Convolutions that neither shrink nor grow what goes through them."""
    for part in module.modules():
        if isinstance(part, torch.nn.Conv2d):
            torch.nn.init.normal_(part.weight, std=part.weight[0].numel() ** -0.5)
            torch.nn.init.zeros_(part.bias)


def start_at_zero(*layers):
    """The last layer of a branch: the branch joins in as it learns."""
    for layer in layers:
        torch.nn.init.zeros_(layer.weight)


def clip():
    text = networks.Clip(TEXT_WIDTH, layers=4, heads=max(1, TEXT_WIDTH // 64))
    torch.nn.init.normal_(text.embeddings.token_embedding.weight, std=0.3)
    torch.nn.init.normal_(text.embeddings.position_embedding.weight, std=0.1)
    return text


def unet():
    net = networks.UNet(32, (2, 3, 3, 3), blocks=2, attend=(0, 1, 2), context=TEXT_WIDTH)
    keep_size(net)
    start_at_zero(net.out[2])
    for part in net.modules():
        if isinstance(part, networks.UNetResnet):
            start_at_zero(part.out_layers[3])
        elif isinstance(part, networks.Transformer):
            start_at_zero(part.proj_out)
    return net


def prepare(module):
    """On its device, in its fastest form."""
    module = module.to(DEVICE, memory_format=torch.channels_last)
    return speed_up(module) if DEVICE == "cpu" else module


def autocast():
    return torch.autocast(DEVICE, dtype=torch.bfloat16)


def team():
    """A process for each core, as long as every one gets a whole picture; with CUDA one does it all."""
    return Team(1 if DEVICE == "cuda" else min(os.cpu_count(), 8))


def rate(step, steps, peak, warmup=200, least=0.03):
    """Learning rate: linear warm-up, then half a cosine down to `least` of the peak."""
    if step < warmup:
        return peak * (step + 1) / warmup
    along = min(1.0, (step - warmup) / max(1, steps - warmup))
    return peak * (least + (1 - least) * 0.5 * (1 + math.cos(math.pi * along)))


def save(path, state):
    """Whole or not at all: a killed training goes on from the last one."""
    torch.save(state, path + ".new")
    os.replace(path + ".new", path)


F8 = torch.tensor([((i & 7) / 8 + (i > 7)) * 2.0 ** (max(i >> 3, 1) - 7) for i in range(127)])  # E4M3, without sign


def f8_codes(x):
    """uint8 of x's shape: the nearest of FP8 E4M3's numbers (Micikevicius et al. 2022), to be saved as F8_E4M3."""
    codes = torch.searchsorted((F8[1:] + F8[:-1]) / 2, x.abs().contiguous())
    return (codes + 128 * (x < 0)).to(torch.uint8)


def f8_values(codes):
    """What f8_codes() stands for, float32."""
    codes = codes.long()
    return F8[codes & 127] * (1 - 2 * (codes >> 7)).float()


PREFIXES = {"vae": "first_stage_model.", "text": "cond_stage_model.transformer.text_model.",
            "unet": "model.diffusion_model."}


DTYPES = {"F16": torch.float16, "F8_E4M3": torch.uint8}


def read_checkpoint(path):
    """The weights of each part of a checkpoint that export.py wrote: part -> name -> float tensor."""
    with open(path, "rb") as file:
        size, = struct.unpack("<Q", file.read(8))
        header, data = json.loads(file.read(size)), file.read()
    header.pop("__metadata__", None)
    parts = {part: {} for part in PREFIXES}
    for name, entry in header.items():
        part = next(part for part, prefix in PREFIXES.items() if name.startswith(prefix))
        first, end = entry["data_offsets"]
        values = torch.frombuffer(bytearray(data[first:end]), dtype=DTYPES[entry["dtype"]]).view(entry["shape"])
        values = f8_values(values) if values.dtype == torch.uint8 else values.float()
        parts[part][name[len(PREFIXES[part]) :]] = values
    return parts


def read_scenes(path):
    """The scenes beside a picture file, in its order."""
    import scene
    with open(os.path.splitext(path)[0] + ".jsonl") as lines:
        return [scene.Scene.from_dict(json.loads(line)) for line in lines]


class Log:
    """Running means, printed every `every` seconds."""

    def __init__(self, every=20):
        self.every, self.last, self.sums, self.count = every, time.time(), {}, 0

    def add(self, step, **values):
        self.count += 1
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + float(value)
        now = time.time()
        if now - self.last >= self.every:
            figures = "  ".join(f"{name} {total / self.count:.4g}" for name, total in self.sums.items())
            print(f"step {step}  {figures}  {(now - self.last) / self.count:.2f} s/step", flush=True)
            self.last, self.sums, self.count = now, {}, 0
