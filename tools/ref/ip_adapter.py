#!/usr/bin/env python3
"""IP-Adapters against PyTorch: ip_adapter.py PROGRAM [SEED]  (PROGRAM: tests/parity/adapter_run)

CLIP's image encoder (Radford et al. 2021), both projections and the decoupled cross-attention (Ye et al. 2023, equations 4
and 5) written from the papers over networks.py, with the parameter names of the published files; whole UNets, random weights,
pictures of odd sizes. Relative error at most 1e-3 in f32, 2e-2 in half precision."""
import os
import random
import subprocess
import sys
import tempfile

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
import make_tiny_models as tiny
import networks
from upscale import randomize

HEADS, MEAN, DEVIATION = 16, (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


# --- the picture's encoder --------------------------------------------------------------------------------------------


class VisionLayer(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.self_attn = networks.Half()
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            setattr(self.self_attn, name, nn.Linear(c, c))
        self.layer_norm1, self.layer_norm2 = nn.LayerNorm(c), nn.LayerNorm(c)
        self.mlp = networks.Half()
        self.mlp.fc1, self.mlp.fc2 = nn.Linear(c, 4 * c), nn.Linear(4 * c, c)

    def forward(self, x):
        a, h = self.self_attn, self.layer_norm1(x)
        x = x + a.out_proj(networks.attention(a.q_proj(h), a.k_proj(h), a.v_proj(h), HEADS))
        return x + self.mlp.fc2(F.gelu(self.mlp.fc1(self.layer_norm2(x))))


class Vision(nn.Module):
    def __init__(self, c=64, layers=3, patch=8, size=32, projected=48):
        super().__init__()
        self.size = size
        v = self.vision_model = networks.Half()
        v.embeddings = networks.Half()
        v.embeddings.class_embedding = nn.Parameter(torch.zeros(c))
        v.embeddings.patch_embedding = nn.Conv2d(3, c, patch, stride=patch, bias=False)
        v.embeddings.position_embedding = nn.Embedding((size // patch) ** 2 + 1, c)
        v.pre_layrnorm, v.post_layernorm = nn.LayerNorm(c), nn.LayerNorm(c)
        v.encoder = networks.Half()
        v.encoder.layers = nn.ModuleList(VisionLayer(c) for _ in range(layers))
        self.visual_projection = nn.Linear(c, projected, bias=False)

    def hidden(self, x, depth):
        e = self.vision_model.embeddings
        x = e.patch_embedding(x).flatten(2).transpose(1, 2)
        x = torch.cat([e.class_embedding.expand(1, 1, -1), x], dim=1) + e.position_embedding.weight
        x = self.vision_model.pre_layrnorm(x)
        for layer in self.vision_model.encoder.layers[:depth]:
            x = layer(x)
        return x

    def patches(self, x):
        return self.hidden(x, len(self.vision_model.encoder.layers) - 1)

    def whole(self, x):
        x = self.hidden(x, len(self.vision_model.encoder.layers))
        return self.visual_projection(self.vision_model.post_layernorm(x[:, 0]))

    def pixels(self, rgb):
        """rgb: [h, w, 3] of 0..255"""
        h, w = rgb.shape[:2]
        least = min(h, w)
        to = (int(self.size * h / least), int(self.size * w / least))
        x = torch.from_numpy(rgb).permute(2, 0, 1)[None].double()
        x = F.interpolate(x, to, mode="bicubic", antialias=True, align_corners=False).clamp(0, 255).round() / 255
        top, left = (to[0] - self.size) // 2, (to[1] - self.size) // 2
        x = x[:, :, top : top + self.size, left : left + self.size]
        mean, deviation = (torch.tensor(v, dtype=torch.float64).reshape(1, 3, 1, 1) for v in (MEAN, DEVIATION))
        return (x - mean) / deviation


# --- tokens -----------------------------------------------------------------------------------------------------------


class Projection(nn.Module):
    def __init__(self, image, context, tokens=4):
        super().__init__()
        self.proj, self.norm, self.shape = nn.Linear(image, tokens * context), nn.LayerNorm(context), (1, tokens, context)

    def forward(self, x):
        return self.norm(self.proj(x).reshape(self.shape))

    def both(self, vision, x):
        whole = vision.whole(x)
        return self(whole), self(torch.zeros_like(whole))


class Perceiver(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.heads, inner = heads, 64 * heads
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.to_q, self.to_kv = nn.Linear(dim, inner, bias=False), nn.Linear(dim, 2 * inner, bias=False)
        self.to_out = nn.Linear(inner, dim, bias=False)

    def forward(self, x, queries):
        x, queries = self.norm1(x), self.norm2(queries)
        k, v = self.to_kv(torch.cat([x, queries], dim=1)).chunk(2, dim=-1)
        return self.to_out(networks.attention(self.to_q(queries), k, v, self.heads))


class Resampler(nn.Module):
    def __init__(self, image, context, dim=96, depth=2, heads=2, tokens=6):
        super().__init__()
        self.latents = nn.Parameter(torch.zeros(1, tokens, dim))
        self.proj_in, self.proj_out, self.norm_out = nn.Linear(image, dim), nn.Linear(dim, context), nn.LayerNorm(context)
        feed = lambda: nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, 4 * dim, bias=False), nn.GELU(), nn.Linear(4 * dim, dim, bias=False))
        self.layers = nn.ModuleList(nn.ModuleList([Perceiver(dim, heads), feed()]) for _ in range(depth))

    def forward(self, x):
        x, y = self.proj_in(x), self.latents
        for attend, feed in self.layers:
            y = y + attend(x, y)
            y = y + feed(y)
        return self.norm_out(self.proj_out(y))

    def both(self, vision, x):
        return self(vision.patches(x)), self(vision.patches(torch.zeros_like(x)))


# --- attention --------------------------------------------------------------------------------------------------------


class Decoupled(nn.Module):
    """A cross-attention, and beside it one to the picture's tokens with keys and values of their own."""

    def __init__(self, text, context):
        super().__init__()
        c = text.to_q.out_features
        self.text, self.to_k_ip, self.to_v_ip = text, nn.Linear(context, c, bias=False), nn.Linear(context, c, bias=False)
        self.tokens, self.weight = None, 1.0

    def forward(self, x, context):
        t = self.text
        q = t.to_q(x)
        y = networks.attention(q, t.to_k(context), t.to_v(context), t.heads)
        y = y + self.weight * networks.attention(q, self.to_k_ip(self.tokens), self.to_v_ip(self.tokens), t.heads)
        return t.to_out(y)


def crosses(unet):
    """The transformer blocks in the order in which diffusers counts their attentions: down, up, middle."""
    for stages in (unet.input_blocks, unet.output_blocks, [unet.middle_block]):
        for stage in stages:
            for part in stage:
                if isinstance(part, networks.Transformer):
                    yield from part.transformer_blocks


# --- the checks -------------------------------------------------------------------------------------------------------


class Checks:
    def __init__(self, program, folder):
        self.program, self.folder, self.failed = program, folder, 0

    def path(self, name):
        return os.path.join(self.folder, name)

    def save(self, name, state, kind):
        tiny.write_safetensors(self.path(name), {k: v.numpy() for k, v in state.items()}, kind)

    def save_adapter(self, image, blocks, kind):
        layers = {f"{2 * i + 1}.{name}.weight": getattr(b.attn2, name).weight for i, b in enumerate(blocks) for name in ("to_k_ip", "to_v_ip")}
        if kind == "BIN":
            torch.save({"image_proj": image.state_dict(), "ip_adapter": layers}, self.path("adapter.bin"))
            return self.path("adapter.bin")
        parts = {**{"image_proj." + k: v for k, v in image.state_dict().items()}, **{"ip_adapter." + k: v for k, v in layers.items()}}
        self.save("adapter.safetensors", parts, kind)
        return self.path("adapter.safetensors")

    def compare(self, what, shape, projection, kind="F32"):
        half = kind not in ("F32", "BIN")
        unet, vision = randomize(networks.UNet(**shape), False), randomize(Vision(), half)
        image = randomize(projection(64 if projection is Resampler else 48, shape["context"]), half)
        self.save("unet.safetensors", {"model.diffusion_model." + k: v for k, v in unet.state_dict().items()}, "F32")
        self.save("vision.safetensors", vision.state_dict(), "F16" if half else "F32")
        h, w, weight = random.randrange(5, 12), random.randrange(5, 12), round(random.uniform(0.3, 1.5), 3)
        rgb = np.random.default_rng(random.randrange(2**32)).integers(0, 256, (random.randrange(20, 90), random.randrange(20, 90), 3))
        rgb = np.kron(rgb[::8, ::8], np.ones((8, 8, 1), int)).astype(np.float32)
        inputs = {"x": torch.randn(2, 4, h, w), "t": torch.rand(2) * 999, "context": torch.randn(2, 7, shape["context"])}
        if "label" in shape:
            inputs["label"] = torch.randn(2, shape["label"])
        told = [inputs[k].double() for k in ("x", "t", "context")] + [inputs["label"].double() if "label" in inputs else None]
        without = unet.double()(*told).numpy()
        blocks = list(crosses(unet.float()))
        for b in blocks:
            b.attn2 = Decoupled(b.attn2, shape["context"])
            randomize(b.attn2.to_k_ip, half), randomize(b.attn2.to_v_ip, half)
        adapter = self.save_adapter(image, blocks, kind)
        shown, blank = image.double().both(vision.double(), vision.pixels(rgb))
        for b in blocks:
            b.attn2.tokens, b.attn2.weight = torch.cat([shown, blank]), weight
        want = unet.double()(*told).numpy()
        self.save("in.safetensors", {**inputs, "rgb": torch.from_numpy(rgb)}, "F32")
        args = [self.path("unet.safetensors"), adapter, self.path("vision.safetensors"), self.path("in.safetensors"), str(weight), self.path("out")]
        done = subprocess.run([self.program, *args], capture_output=True, text=True)
        if done.returncode:
            sys.exit(what + ": " + done.stderr)
        ours = np.fromfile(self.path("out"), np.float32)
        tokens = torch.cat([shown, blank]).numpy()
        got_tokens, got = ours[: tokens.size].reshape(tokens.shape), ours[tokens.size :].reshape(want.shape)
        errors = [np.abs(a - b).max() / np.abs(b).max() for a, b in ((got_tokens, tokens), (got, want), (without, want))]
        most = 2e-2 if half else 1e-3
        ok = errors[0] <= most and errors[1] <= most and errors[2] > 10 * errors[1]
        self.failed += not ok
        print(f"{'ok  ' if ok else 'FAIL'} {what:30} {w}x{h} tokens {errors[0]:.1e}, UNet {errors[1]:.1e} (it changes {errors[2]:.1e})", flush=True)


SD1 = dict(width=32, mult=(1, 2, 2), blocks=2, attend=(0, 1), context=40)
SDXL = dict(width=32, mult=(1, 2, 4), blocks=2, attend=(1, 2), context=56, heads=None, linear=True, depth=[0, 1, 2], label=80)


def main():
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(2**31)
    print(f"seed {seed}", flush=True)
    random.seed(seed)
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        c = Checks(sys.argv[1], folder)
        c.compare("SD 1", SD1, Projection)
        c.compare("SD 1, plus", SD1, Resampler)
        c.compare("SDXL", SDXL, Projection)
        c.compare("SDXL, plus, PyTorch's file", SDXL, Resampler, "BIN")
        c.compare("SD 1, PyTorch's file", SD1, Projection, "BIN")
        c.compare("SD 1, plus, f16", SD1, Resampler, "F16")
    print(f"{c.failed} failed")
    return 1 if c.failed else 0


if __name__ == "__main__":
    sys.exit(main())
