#!/usr/bin/env python3
"""Parity vectors for src/diffusion/model and src/diffusion/text: what PyTorch makes of random networks and inputs.

  parity.py --record DIR VOCABULARY [SEED]      the recorded vectors (tests/parity/vectors) and their manifest.json
  parity.py --check PROGRAM VOCABULARY [SEED]   fresh ones, given to build/tests/parity_check at once; prints the seed

A vector file (safetensors) holds inputs ("in.*"), results ("out.*") and, as metadata, the case, its settings and the
names and shapes of the weights. The weights themselves follow from seed and name by `weight()`, which the C program has,
too: so a file is small although the network is whole.
"""
import hashlib
import json
import os
import random
import struct
import subprocess
import sys
import tempfile

import numpy as np
import torch
import torch.nn.functional as F

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
import clip_bpe
import loras
import networks

# --- weights and files ------------------------------------------------------------------------------------------------


def fnv1a(data, seed):
    h = seed ^ 0xCBF29CE484222325
    for b in data:
        h = ((h ^ b) * 0x100000001B3) % 2**64
    return h


def weight(name, shape, seed):
    """SplitMix64 (Steele et al. 2014) keyed by seed and name, uniform, scaled so that signals keep their size."""
    n = int(np.prod(shape))
    with np.errstate(over="ignore"):
        z = np.uint64(fnv1a(name.encode(), seed)) + np.arange(1, n + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    u = (z >> np.uint64(40)).astype(np.float64) / 2**23 - 1
    if len(shape) == 1:
        u = u * 0.1 + (0.0 if name.endswith("bias") else 1.0)
    elif "embedding" in name:
        u = u * 0.5
    else:
        u = u * np.sqrt(3.0 / np.prod(shape[1:]))
    return u.astype(np.float32).reshape(shape)


def write(path, tensors, metadata):
    header, data, at = {"__metadata__": metadata}, [], 0
    for name, a in tensors.items():
        a = np.ascontiguousarray(a)
        kind = {"float32": "F32", "int32": "I32"}[str(a.dtype)]
        header[name] = {"dtype": kind, "shape": list(a.shape), "data_offsets": [at, at + a.nbytes]}
        data.append(a.tobytes())
        at += a.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        f.writelines(data)


class Maker:
    """Collects the cases of one run. All randomness comes from one seed."""

    def __init__(self, folder, seed):
        self.folder, self.seed, self.files = folder, seed, []
        self.rng = np.random.default_rng(seed)

    def randn(self, *shape):
        return self.rng.standard_normal(shape, dtype=np.float32)

    def network(self, module, prefix, half):
        """Gives the module its weights and returns their description for the file."""
        state, listing = {}, []
        for name, t in module.state_dict().items():
            a = weight(prefix + name, tuple(t.shape), self.seed)
            if half and a.ndim > 1:
                a = a.astype(np.float16).astype(np.float32)
            state[name] = torch.from_numpy(a)
            listing.append([prefix + name, list(t.shape)])
        module.load_state_dict(state, strict=True)
        module.eval()
        return {"weights": json.dumps(listing), "seed": str(self.seed), "half": str(int(half))}

    def save(self, file, case, inputs, outputs, **settings):
        tensors = {"in." + k: v for k, v in inputs.items()}
        tensors.update({"out." + k: (v.detach().numpy() if torch.is_tensor(v) else v) for k, v in outputs.items()})
        path = os.path.join(self.folder, file + ".safetensors")
        write(path, tensors, {"case": case, **{k: str(v) for k, v in settings.items()}})
        self.files.append(path)


def tt(a):
    return torch.from_numpy(a)


# --- cases: layers ----------------------------------------------------------------------------------------------------


def layers(m):
    """The layers of nn.h; their weights are inputs."""
    # stride, padding, kernel, in, out, h, w, n: 1x1, ragged sizes, several segments of a row, a batch
    for i, (s, p, k, ci, co, h, w, n) in enumerate([(1, 1, 3, 5, 7, 9, 11, 1), (2, 1, 3, 8, 6, 10, 14, 2),
                                                    (1, 0, 1, 9, 4, 6, 5, 3), (1, 1, 3, 3, 4, 5, 150, 1),
                                                    (2, 0, 3, 4, 4, 9, 9, 1), (1, 2, 5, 3, 5, 8, 70, 1)]):
        x, wt, b = m.randn(n, ci, h, w), m.randn(co, ci, k, k), m.randn(co)
        m.save(f"conv{i}", "conv", {"x": x, "weight": wt, "bias": b},
               {"y": F.conv2d(tt(x), tt(wt), tt(b), stride=s, padding=p)}, stride=s, pad=p)
    x, wt, b = m.randn(1, 6, 8, 12), m.randn(6, 6, 3, 3), m.randn(6)
    m.save("downsample", "downsample", {"x": x, "weight": wt, "bias": b},
           {"y": F.conv2d(F.pad(tt(x), (0, 1, 0, 1)), tt(wt), tt(b), stride=2)})
    m.save("upsample", "upsample", {"x": x}, {"y": F.interpolate(tt(x), scale_factor=2, mode="nearest")})
    x, wt, b = m.randn(2, 96, 5, 7) * 3 + 1, m.randn(96), m.randn(96)
    m.save("group_norm", "group_norm", {"x": x, "weight": wt, "bias": b},
           {"y": F.group_norm(tt(x), 32, tt(wt), tt(b), eps=1e-5)})
    # a mean far from zero, where a careless variance loses its digits
    x, wt, b = m.randn(1, 32, 17, 19) * 0.5 + 300, m.randn(32), m.randn(32)
    m.save("group_norm_far", "group_norm", {"x": x, "weight": wt, "bias": b},
           {"y": F.group_norm(tt(x).double(), 32, tt(wt).double(), tt(b).double(), eps=1e-5).float()})
    x, wt, b = m.randn(3, 11, 40) * 2 - 1, m.randn(40), m.randn(40)
    m.save("layer_norm", "layer_norm", {"x": x, "weight": wt, "bias": b}, {"y": F.layer_norm(tt(x), (40,), tt(wt), tt(b))})
    x, wt, b = m.randn(3, 5, 40), m.randn(24, 40), m.randn(24)
    m.save("linear", "linear", {"x": x, "weight": wt, "bias": b}, {"y": F.linear(tt(x), tt(wt), tt(b))})
    x = m.randn(2, 9, 48) * 3
    a, gate = tt(x).chunk(2, dim=-1)
    m.save("geglu", "geglu", {"x": x}, {"y": a * F.gelu(gate)})
    m.save("gelu_quick", "gelu_quick", {"x": x}, {"y": tt(x) * torch.sigmoid(1.702 * tt(x))})
    m.save("silu", "silu", {"x": x}, {"y": F.silu(tt(x))})
    t = np.array([0, 1, 500.25, 999], np.float32)
    m.save("timestep", "timestep", {"t": t}, {"y": networks.timestep_embedding(tt(t), 64)}, dim=64)
    # heads, channels, queries, keys, batch, causal: heads of 4, 12, 40 and 160 channels, one wide head, text, causal
    for i, (heads, c, tq, tk, n, causal) in enumerate([(8, 32, 70, 70, 2, 0), (8, 96, 33, 77, 1, 0),
                                                       (8, 320, 66, 9, 1, 0), (8, 1280, 3, 5, 1, 0),
                                                       (1, 64, 70, 66, 1, 0), (3, 48, 77, 77, 1, 1), (1, 24, 77, 77, 2, 1)]):
        q, k, v = m.randn(n, tq, c) * 2, m.randn(n, tk, c), m.randn(n, tk, c)
        m.save(f"attention{i}", "attention", {"q": q, "k": k, "v": v},
               {"y": networks.attention(tt(q), tt(k), tt(v), heads, bool(causal))}, heads=heads, causal=causal)


# --- cases: blocks and networks ---------------------------------------------------------------------------------------


SMALL = np.float32(0.002)  # a variance near the norms' epsilons, so that a wrong epsilon shows


def transformer(m, tag, width, net, context, half=False):
    about = m.network(net, "block.", half)
    for name, scale in (("", 1), ("small_", SMALL)):
        x, c = m.randn(2, width, 4, 6) * scale, m.randn(2, 9, context)
        m.save(f"unet_transformer_{name}{tag}", "unet_transformer", {"x": x, "context": c}, {"y": net(tt(x), tt(c))},
               channels=width, **about)


def blocks(m, tag, width, context, half=False):
    out = 2 * width
    for name, i, o in (("same", width, width), ("wider", width, out)):
        net = networks.UNetResnet(i, o, 4 * width)
        about = m.network(net, "block.", half)
        x, emb = m.randn(2, i, 4, 6) * (SMALL if name == "same" else 1), m.randn(2, 4 * width)
        m.save(f"unet_resnet_{name}_{tag}", "unet_resnet", {"x": x, "emb": F.silu(tt(emb)).numpy()},
               {"y": net(tt(x), tt(emb))}, channels=i, **about)
    transformer(m, tag, width, networks.Transformer(width, context, 8, depth=2), context, half)
    for name, i, o in (("same", width, width), ("wider", width, out)):
        net = networks.VaeResnet(i, o)
        about = m.network(net, "block.", half)
        x = m.randn(1, i, 5, 7) * (SMALL if name == "same" else 1)
        m.save(f"vae_resnet_{name}_{tag}", "vae_resnet", {"x": x}, {"y": net(tt(x))}, channels=i, out=o, **about)
    net = networks.VaeMiddle(width)
    about = m.network(net, "block.mid.", half)
    x = m.randn(1, width, 5, 7)
    m.save(f"vae_middle_{tag}", "vae_middle", {"x": x}, {"y": net(tt(x))}, channels=width, **about)


def unet(m, tag, h, w, tokens, half=False, **shape):
    net = networks.UNet(**shape)
    about = m.network(net, "model.diffusion_model.", half)
    x, c = m.randn(2, shape.get("channels", 4), h, w), m.randn(2, tokens, shape["context"])
    t = m.rng.uniform(0, 999, 2).astype(np.float32)
    inputs, label = {"x": x, "t": t, "context": c}, None
    if "label" in shape:
        inputs["label"] = m.randn(2, shape["label"])
        label = tt(inputs["label"])
    m.save(f"unet_{tag}", "unet", inputs, {"y": net(tt(x), tt(t), tt(c), label)}, **about)


def vae(m, tag, h, w, half=False, **shape):
    net = networks.Vae(**shape)
    about = m.network(net, "first_stage_model.", half)
    z = m.randn(1, 4, h, w)
    m.save(f"vae_decode_{tag}", "vae_decode", {"z": z}, {"rgb": net.decode(tt(z))[0]}, **about)
    f = 2 ** (len(shape["mult"]) - 1)
    rgb, noise = m.rng.uniform(-1, 1, (3, h * f, w * f)).astype(np.float32), m.randn(1, 4, h, w)
    m.save(f"vae_encode_{tag}", "vae_encode", {"rgb": rgb, "noise": noise},
           {"z": net.encode(tt(rgb)[None], tt(noise)), "mean": net.encode(tt(rgb)[None], 0 * tt(noise))}, **about)


def emphasized(z, weights):
    """A1111's original emphasis: multiply, then restore the chunk's mean."""
    out = []
    for chunk, w in zip(z, weights):
        y = chunk * w[:, None]
        out.append(y * (chunk.double().mean() / y.double().mean()).float())
    return torch.stack(out)


def emphasized_chunks(draw, encode):
    """draw(): tokens and weights [chunks, 77]; encode: tokens -> [chunks, 77, width]. Returns tokens, weights and the
    emphasized rows. Drawn anew where a mean is so near 0 that rounding decides on what restores it."""
    while True:
        tokens, weights = draw()
        z = encode(tt(tokens).long())
        drawn = torch.cat([z, z * tt(weights)[..., None]]).double()
        if (drawn.mean((1, 2)).abs() > 2e-3 * drawn.abs().mean((1, 2))).all():
            return tokens, weights, emphasized(z, tt(weights))


def from_empty(encode, tokens, weights):
    """ComfyUI's: each row along the line from the same row of an empty text. encode: [chunks, 77] -> [chunks, 77, width]"""
    z, empty = encode(tokens), encode(torch.tensor([[clip_bpe.BOS] + [clip_bpe.EOS] * 76]))
    return (z - empty) * weights[..., None] + empty


def comfy_clips(m):
    """Its way of weights, for each kind of encoder."""
    for form, net, place in (("sd1", networks.Clip(48, 3, 1), "cond_stage_model.transformer.text_model."),
                             ("sd2", networks.OpenClip(64, 3, 1), "cond_stage_model.model."),
                             ("sdxl_g", networks.OpenClip(64, 3, 1, pooled=24), "conditioner.embedders.1.model.")):
        about = m.network(net, place, False)
        tokens, weights = ending_chunks(m, 2)
        encode = {"sd1": lambda x: net(x), "sd2": lambda x: net(networks.padded(x)),
                  "sdxl_g": lambda x: net.hidden(networks.padded(x), 2)}[form]
        outputs = {"z": from_empty(encode, tt(tokens).long(), tt(weights)).reshape(2 * 77, -1)}
        if form == "sdxl_g":
            outputs["pooled"] = net.pooled(networks.padded(tt(tokens).long()))
        m.save(f"clip_comfy_{form}", "clip", {"tokens": tokens, "weights": weights}, outputs, skip=1, form=form, emphasis="comfy", **about)


def clip(m, tag, width, layers, heads, skip, chunks, half=False):
    net = networks.Clip(width, layers, heads)
    about = m.network(net, "cond_stage_model.transformer.text_model.", half)
    tokens, weights, z = emphasized_chunks(lambda: full_chunks(m, chunks), lambda tokens: net(tokens, skip))
    m.save(f"clip_{tag}", "clip", {"tokens": tokens, "weights": weights}, {"z": z.reshape(chunks * 77, width)},
           skip=skip, form="sd1", **about)


def drawn_weights(m, chunks):
    return np.where(m.rng.random((chunks, 77)) < 0.2, m.rng.uniform(0.5, 1.6, (chunks, 77)), 1.0).astype(np.float32)


def full_chunks(m, chunks):
    """Chunks of any tokens; and weights."""
    tokens = m.rng.integers(0, 49408, (chunks, 77)).astype(np.int32)
    tokens[:, 0] = clip_bpe.BOS
    return tokens, drawn_weights(m, chunks)


def ending_chunks(m, chunks):
    """Chunks that end somewhere, and one that is full; and weights."""
    tokens = m.rng.integers(0, 49406, (chunks, 77)).astype(np.int32)
    tokens[:, 0] = clip_bpe.BOS
    for row in tokens:
        row[m.rng.integers(1, 77) :] = clip_bpe.EOS
    tokens[-1, 1:76] = m.rng.integers(0, 49406, 75)
    return tokens, drawn_weights(m, chunks)


def open_clip(m, tag, width, layers, skip, chunks, half=False):
    net = networks.OpenClip(width, layers, max(1, width // 64))
    about = m.network(net, "cond_stage_model.model.", half)
    tokens, weights, z = emphasized_chunks(lambda: ending_chunks(m, chunks),
                                           lambda tokens: net(networks.padded(tokens), max(skip, 2)))
    m.save(f"clip_sd2_{tag}", "clip", {"tokens": tokens, "weights": weights}, {"z": z.reshape(chunks * 77, width)},
           skip=skip, form="sd2", **about)


def sdxl_clip(m, tag, width, layers, skip, chunks, pooled=0, half=False):
    """pooled: of the second text encoder's vector; 0 takes the first one. The rows are of the layer before the last, plain."""
    heads = max(1, width // 64)
    net = networks.OpenClip(width, layers, heads, pooled=pooled) if pooled else networks.Clip(width, layers, heads)
    place = "1.model." if pooled else "0.transformer.text_model."
    about = m.network(net, "conditioner.embedders." + place, half)
    read = networks.padded if pooled else lambda tokens: tokens
    tokens, weights, z = emphasized_chunks(lambda: ending_chunks(m, chunks),
                                           lambda tokens: net.hidden(read(tokens), max(skip, 2)))
    outputs = {"z": z.reshape(chunks * 77, width)}
    if pooled:
        outputs["pooled"] = net.pooled(read(tt(tokens).long()))
    m.save(f"clip_sdxl_{tag}", "clip", {"tokens": tokens, "weights": weights}, outputs, skip=skip,
           form="sdxl_g" if pooled else "sdxl_l", **about)


def far_vae(m):
    """Numbers beyond F16's range in the autoencoder's residual stream, with F16 weights."""
    net = networks.VaeResnet(64, 32)
    about = m.network(net, "block.", True)
    x = m.randn(1, 64, 9, 7) * np.float32(2e5)
    m.save("vae_resnet_far_half", "vae_resnet", {"x": x}, {"y": net(tt(x))}, channels=64, out=32, **about)


def sdxl(m):
    """SDXL's depths and label, the refiner's four levels, and what is distilled from SDXL and from SD 1."""
    base = dict(heads=None, linear=True)
    unet(m, "sdxl", 8, 12, 77, width=32, mult=(1, 2, 4), blocks=2, attend=(1, 2), depth=(0, 1, 3), context=40, label=56, **base)
    unet(m, "refiner", 9, 8, 77, width=32, mult=(1, 2, 3, 3), blocks=1, attend=(1, 2), depth=2, context=24, label=48, **base)
    unet(m, "ssd", 8, 8, 100, width=32, mult=(1, 2, 4), blocks=2, attend=(), context=40, label=56, down=(0, 0, 1, 1, 2, 2),
         up=(2, 3, 1, 1, 2, 1, 0, 0, 0), middle="resnet", **base)
    unet(m, "sdxl_half", 8, 8, 77, half=True, width=64, mult=(1, 2), blocks=1, attend=(1,), depth=2, context=48, label=64, **base)
    unet(m, "tiny_sd", 8, 12, 77, width=32, mult=(1, 2, 4), blocks=1, attend=(0, 1, 2), context=32, middle="none")
    sdxl_clip(m, "l", 48, 3, 1, 2)
    sdxl_clip(m, "l_skip", 128, 4, 3, 1)
    sdxl_clip(m, "g", 64, 3, 2, 2, pooled=24)
    sdxl_clip(m, "g_skip", 128, 4, 4, 1, pooled=160)
    sdxl_clip(m, "g_half", 64, 3, 1, 1, pooled=64, half=True)


# --- cases: networks with LoRAs ---------------------------------------------------------------------------------------


def with_lora(m, module, about, file, component, half):
    """Merges a random file into the module, in float64 and rounded once; what the vector has to say of it."""
    state = {k: v.numpy() for k, v in module.state_dict().items()}
    name, path = f"loras/{component}_{file}.safetensors", os.path.join(m.folder, "loras")
    os.makedirs(path, exist_ok=True)
    tensors = loras.make(m.rng, file, {component: {k: v.shape for k, v in state.items()}})
    loras.write(os.path.join(m.folder, name), tensors)
    by = round(m.rng.uniform(0.3, 1.2), 2)
    state, count = loras.merged(os.path.join(m.folder, name), loras.FILES[file][0], component, state, by)
    assert count
    rounded = {k: torch.from_numpy(v.astype(np.float16 if half and v.ndim > 1 else np.float32)).float() for k, v in state.items()}
    module.load_state_dict(rounded, strict=True)
    return {**about, "lora": name, f"lora_{component}": by, "lora_te" if component == "unet" else "lora_unet": 0}


SMALL_FILES = ("lora", "locon", "ldm", "diffusers", "processor")  # small enough to be recorded


def networks_with_loras(m, files):
    for i, file in enumerate(files):
        half = i % 4 == 3
        net = networks.UNet(width=32, mult=(1, 2), blocks=1, attend=(0, 1), context=24)
        about = with_lora(m, net, m.network(net, "model.diffusion_model.", half), file, "unet", half)
        x, c, t = m.randn(1, 4, 6, 8), m.randn(1, 77, 24), m.rng.uniform(0, 999, 1).astype(np.float32)
        m.save(f"unet_lora_{file}", "unet", {"x": x, "t": t, "context": c}, {"y": net(tt(x), tt(t), tt(c))}, **about)
    for file in ("lora", "loha", "lokr", "peft-dora", "full"):
        net = networks.Clip(32, 2, 1)
        about = with_lora(m, net, m.network(net, "cond_stage_model.transformer.text_model.", False), file, "te", False)
        tokens = m.rng.integers(0, 49408, (1, 77)).astype(np.int32)
        m.save(f"clip_lora_{file}", "clip", {"tokens": tokens, "weights": np.ones((1, 77), np.float32)},
               {"z": net(tt(tokens).long()).reshape(77, 32)}, skip=1, form="sd1", **about)


def make(folder, seed, lora_files=tuple(loras.FILES)):
    """New cases go to the end: then the recorded ones before them stay as they are."""
    m = Maker(folder, seed)
    with torch.no_grad():
        layers(m)
        blocks(m, "tiny", 32, 32)
        blocks(m, "ragged", 96, 40)
        blocks(m, "half", 64, 48, half=True)
        unet(m, "tiny", 8, 16, 77, width=32, mult=(1, 1, 2, 2), blocks=2, attend=(0, 1, 2), context=32)
        unet(m, "ragged", 12, 8, 100, width=96, mult=(1, 2, 3), blocks=1, attend=(1, 2), context=40, channels=9, depth=2)
        unet(m, "half", 8, 8, 77, half=True, width=64, mult=(1, 2, 4), blocks=2, attend=(0, 1), context=48)
        vae(m, "tiny", 3, 4, width=32, mult=(1, 1, 2, 2), blocks=2)
        vae(m, "ragged", 5, 7, width=96, mult=(1, 2), blocks=1)
        vae(m, "half", 4, 4, half=True, width=64, mult=(1, 2, 2), blocks=2)
        clip(m, "tiny", 32, 2, 1, 1, 1)
        clip(m, "skip", 80, 4, 1, 2, 2)
        clip(m, "heads", 128, 3, 2, 1, 1)
        clip(m, "half", 64, 3, 1, 1, 1, half=True)
        transformer(m, "linear", 192, networks.Transformer(192, 40, 3, depth=2, linear=True), 40)
        unet(m, "sd2", 8, 12, 77, width=64, mult=(1, 2, 3), blocks=2, attend=(0, 1), context=56, heads=None, linear=True)
        open_clip(m, "tiny", 32, 3, 1, 2)
        open_clip(m, "skip", 128, 4, 3, 1)
        open_clip(m, "half", 64, 3, 2, 1, half=True)
        with_loras = Maker(folder, seed + 1)
        networks_with_loras(with_loras, lora_files)
        xl = Maker(folder, seed + 2)
        sdxl(xl)
        far = Maker(folder, seed + 3)
        far_vae(far)
        comfy = Maker(folder, seed + 4)
        comfy_clips(comfy)
    m.files += with_loras.files + xl.files + far.files + comfy.files
    return m


# --- the tokenizer ----------------------------------------------------------------------------------------------------

WORDS = """a the of photo portrait masterpiece astronaut riding horse ultra-detailed 8k don't I'LL we're they'd 'sam
rock'n'roll naïve Ünïcode 日本語 Ελλάδα русский текст 😀🎉 👩‍🚀 ½ Ⅷ ９９ İstanbul ((())) !!! ... <lora:x:1> <|endoftext|>
supercalifragilisticexpialidocious &amp; __init__ $100 50% #tag @user e=mc² C++ ﬁne""".split()


def random_prompt(r):
    ranges = [(0x20, 0x7E), (0xA1, 0x24F), (0x391, 0x3A1), (0x3B1, 0x3C9), (0x400, 0x52F), (0x5D0, 0x5EA),
              (0x3041, 0x30FF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0x1F300, 0x1F6FF), (0xE000, 0xFFFF)]
    out = ""
    for _ in range(r.randint(0, 20)):
        kind = r.random()
        if kind < 0.5:
            out += r.choice(WORDS)
        elif kind < 0.75:
            out += "".join(chr(r.randint(*r.choice(ranges))) for _ in range(r.randint(1, 6)))
        else:
            out += "".join(r.choice("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ,.'\"-") for _ in range(r.randint(1, 14)))
        out += r.choice(["", " ", " ", "  ", "\t", "\u3000"])
    return out.replace("\n", " ")


def tokenizer_vectors(vocabulary, seed, count):
    v, r = clip_bpe.Vocabulary(vocabulary), random.Random(seed)
    return [(p, v.encode(p)) for p in (random_prompt(r) for _ in range(count))]


def check_tokenizer(program, vocabulary, seed):
    vectors = tokenizer_vectors(vocabulary, seed, 3000)
    text = "".join(p + "\n" for p, _ in vectors).encode()
    out = subprocess.run([program, "--tokenize"], input=text, stdout=subprocess.PIPE, check=True).stdout.decode()
    wrong = 0
    for (prompt, want), line in zip(vectors, out.split("\n")):
        got = [int(t) for t in line.split()]
        if got != want:
            wrong += 1
            print(f"tokenizer: {prompt!r}\n  expected {want}\n  got      {got}")
    print(f"tokenizer: {len(vectors)} prompts, {wrong} differ")
    return wrong == 0


# --- main -------------------------------------------------------------------------------------------------------------


def record(folder, seed, vocabulary):
    m = make(folder, seed, SMALL_FILES)
    with open(os.path.join(folder, "tokens.txt"), "w", encoding="utf-8") as f:
        for prompt, tokens in tokenizer_vectors(vocabulary, seed, 200):
            f.write(prompt + "\n" + " ".join(map(str, tokens)) + "\n")
    files = {os.path.basename(p): hashlib.sha256(open(p, "rb").read()).hexdigest() for p in sorted(m.files)}
    with open(os.path.join(folder, "manifest.json"), "w", encoding="utf-8") as f:
        json.dump({"made_by": "tools/ref/parity.py --record", "seed": seed, "python": sys.version.split()[0],
                   "torch": torch.__version__, "numpy": np.__version__, "sha256": files}, f, indent=1)
        f.write("\n")


def check(program, vocabulary, seed):
    print(f"seed {seed}", flush=True)
    ok = check_tokenizer(program, vocabulary, seed)
    with tempfile.TemporaryDirectory() as folder:
        m = make(folder, seed)
        ok = subprocess.run([program, *m.files], check=False).returncode == 0 and ok
    sys.exit(0 if ok else 1)


def main():
    torch.set_num_threads(2)
    args = sys.argv[1:]
    if len(args) in (3, 4) and args[0] == "--record":
        record(args[1], int(args[3]) if len(args) == 4 else 1, args[2])
    elif len(args) in (3, 4) and args[0] == "--check":
        check(args[1], args[2], int(args[3]) if len(args) == 4 else random.SystemRandom().getrandbits(32))
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
