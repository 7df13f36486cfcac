#!/usr/bin/env python3
"""Whole pictures against PyTorch: picture.py PROGRAM MODELS VOCABULARY [SEED]

Runs `PROGRAM generate` (mysti_sd_worker) on a tiny model with random parameters, makes the same pictures from networks.py,
sample.py and clip_bpe.py alone, and compares: at least 40 dB of peak signal to noise, text to image and image to image."""
import json
import math
import os
import random
import struct
import subprocess
import sys
import tempfile
import zlib

import numpy as np
import torch

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
import clip_bpe
import make_tiny_models as tiny
import networks
import sample

LEAST_DB = 40.0


def read_safetensors(path):
    """The weights: F32 tensors."""
    with open(path, "rb") as f:
        header = json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))
        data = f.read()
    out = {}
    for name, t in header.items():
        if t.get("dtype") == "F32":
            a, b = t["data_offsets"]
            out[name] = torch.from_numpy(np.frombuffer(data[a:b], np.float32).reshape(t["shape"]).copy())
    return out


def read_png(path):
    """[h, w, 3]; 8 bit RGB without interlacing."""
    raw, at, body, head = open(path, "rb").read(), 8, b"", None
    while at < len(raw):
        n, kind = struct.unpack(">I4s", raw[at : at + 8])
        if kind == b"IHDR":
            head = struct.unpack(">IIBBBBB", raw[at + 8 : at + 8 + n])
        if kind == b"IDAT":
            body += raw[at + 8 : at + 8 + n]
        at += 12 + n
    w, h, depth, colour = head[:4]
    assert (depth, colour, head[6]) == (8, 2, 0)
    lines = np.frombuffer(zlib.decompress(body), np.uint8).reshape(h, 1 + 3 * w).astype(int)
    out = np.zeros((h + 1, 3 * w + 3), int)  # a row above and a pixel to the left
    for y in range(h):
        kind, line = lines[y, 0], lines[y, 1:]
        for i in range(3 * w):
            left, up, corner = out[y + 1, i], out[y, i + 3], out[y, i]
            p = left + up - corner
            paeth = min((left, up, corner), key=lambda v: abs(p - v))
            out[y + 1, i + 3] = (line[i] + (0, left, up, (left + up) // 2, paeth)[kind]) % 256
    return out[1:, 3:].reshape(h, w, 3)


def write_png(path, pixels):
    h, w, _ = pixels.shape
    rows = b"".join(b"\0" + pixels[y].astype(np.uint8).tobytes() for y in range(h))
    with open(path, "wb") as f:
        f.write(b"\x89PNG\r\n\x1a\n")
        for kind, data in ((b"IHDR", struct.pack(">IIBBBBB", w, h, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")):
            f.write(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)))


class Model:
    def __init__(self, path, vocabulary):
        u, v, c = tiny.UNET, tiny.VAE, tiny.CLIP
        self.unet = networks.UNet(u["width"], u["mult"], u["blocks"], u["attention"], u["context"], u["channels"])
        self.vae = networks.Vae(v["width"], v["mult"], v["blocks"], v["channels"])
        self.clip = networks.Clip(c["width"], c["layers"], max(1, c["width"] // 64), c["vocabulary"], c["positions"])
        tensors = read_safetensors(path)
        for module, prefix in ((self.unet, "model.diffusion_model."), (self.vae, "first_stage_model."),
                               (self.clip, "cond_stage_model.transformer.text_model.")):
            part = {k[len(prefix) :]: t for k, t in tensors.items() if k.startswith(prefix)}
            module.load_state_dict(part, strict=True)
            module.double().eval()
        self.words = clip_bpe.Vocabulary(vocabulary)

    def context(self, text):
        """A short prompt without attention syntax: one chunk."""
        ids = self.words.encode(text)
        assert len(ids) <= 75
        row = [clip_bpe.BOS] + ids + [clip_bpe.EOS] * (76 - len(ids))
        return self.clip(torch.tensor([row]))

    def picture(self, case, start=None):
        shape = (1, 4, case["height"] // 8, case["width"] // 8)
        n = int(np.prod(shape))
        sigmas = sample.schedule(case["scheduler"], case["steps"])
        draw = lambda k: sample.noise(case["rng"], case["seed"], n, k)
        positive, negative = self.context(case["prompt"]), self.context(case["negative"])

        def denoise(x, sigma):
            scaled = torch.from_numpy(x.reshape(shape)) / math.sqrt(sigma**2 + 1)
            t = torch.tensor([float(sample.to_timestep(sigma))], dtype=torch.float64)
            up, down = (network(self.unet, scaled, t, c) for c in (positive, negative))
            return x - sigma * (down + case["cfg"] * (up - down)).numpy().ravel()

        x = np.zeros(n)
        if start is not None:
            planes = torch.from_numpy(start / 127.5 - 1).permute(2, 0, 1)[None]
            x = self.vae.encode(planes, torch.zeros(shape, dtype=torch.float64)).numpy().ravel()
            run = int(min(case["strength"], 0.999) * case["steps"]) + 1
            sigmas = sigmas[case["steps"] - run :]
        x = sample.sample(case["sampler"], x + draw(0) * sigmas[0], sigmas, denoise, draw, 1.0)
        rgb = self.vae.decode(torch.from_numpy(x.reshape(shape)))[0].permute(1, 2, 0).numpy()
        return np.rint(np.clip((rgb + 1) * 127.5, 0, 255))


def network(unet, x, t, context):
    """UNet.forward in double (its own embedding of t is rounded to float), for sizes that cannot be halved, too."""
    emb = unet.time_embed(networks.timestep_embedding(t, unet.width).double())
    skips = []
    for stage in unet.input_blocks:
        x = stage(x, emb, context)
        skips.append(x)
    x = unet.middle_block(x, emb, context)
    for stage in unet.output_blocks:
        skip = skips.pop()
        x = torch.nn.functional.interpolate(x, skip.shape[-2:], mode="nearest")  # as A1111 does for odd sizes
        x = stage(torch.cat([x, skip], dim=1), emb, context)
    return unet.out(x)


def ours(program, model, case, folder, init):
    out = os.path.join(folder, "out.png")
    args = [program, "generate", "--model", model, "--threads", "1", "--output", out]
    names = {"prompt": "prompt", "negative": "negative", "width": "width", "height": "height", "steps": "steps",
             "cfg": "cfg-scale", "sampler": "sampler", "scheduler": "scheduler", "rng": "rng", "seed": "seed"}
    for key, option in names.items():
        args += ["--" + option, str(case[key])]
    if init:
        args += ["--init", init, "--strength", str(case["strength"])]
    done = subprocess.run(args, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return read_png(out)


def psnr(a, b):
    mse = np.mean((a - b) ** 2)
    return math.inf if mse == 0 else 10 * math.log10(255**2 / mse)


def random_case(rnd, sampler):
    words = "red fox snow tower lamp under a painting of quiet rivers, sunrise 1920s glass".split()
    return {"prompt": " ".join(rnd.choices(words, k=rnd.randrange(1, 12))), "negative": " ".join(rnd.choices(words, k=rnd.randrange(4))),
            "width": rnd.choice([64, 72, 104, 128]), "height": rnd.choice([64, 88]), "steps": rnd.randrange(2, 7), "cfg": rnd.choice([2.0, 5.0, 7.5]),
            "sampler": sampler, "scheduler": rnd.choice(sample.SCHEDULES), "rng": rnd.choice(["cuda", "cpu"]),
            "seed": rnd.randrange(2**32), "strength": rnd.choice([0.3, 0.75, 1.0])}


def main(program, models, vocabulary, seed):
    print("seed", seed)
    rnd = random.Random(seed)
    path = os.path.join(models, "tiny-sd1-f32.safetensors")
    model = Model(path, vocabulary)
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        for i, sampler in enumerate(sample.SAMPLERS):
            case = random_case(rnd, sampler)
            start, init = None, None
            if i % 2:
                start = np.random.default_rng(seed + i).integers(0, 256, (case["height"] // 8, case["width"] // 8, 3))
                start = np.kron(start, np.ones((8, 8, 1), int))
                init = os.path.join(folder, "init.png")
                write_png(init, start)
            want, got = model.picture(case, start), ours(program, path, case, folder, init)
            db = psnr(got, want)
            print("%-6s %s: %.1f dB, picture spans %d levels" % ("image" if init else "text", case, db, np.ptp(want)))
            if db < LEAST_DB or np.ptp(want) < 30:
                sys.exit("off: less than %g dB, or a picture without contrast" % LEAST_DB)


if __name__ == "__main__":
    if len(sys.argv) not in (4, 5):
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]) if len(sys.argv) > 4 else random.randrange(2**32))
