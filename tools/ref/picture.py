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
    """The weights: F32 and F16 tensors."""
    with open(path, "rb") as f:
        header = json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))
        data = f.read()
    out = {}
    for name, t in header.items():
        if t.get("dtype") in ("F32", "F16"):
            a, b = t["data_offsets"]
            kind = np.float32 if t["dtype"] == "F32" else np.float16
            out[name] = torch.from_numpy(np.frombuffer(data[a:b], kind).reshape(t["shape"]).astype(np.float32))
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


def load(module, tensors, prefix):
    """Gives a network its weights, all of them and in double precision."""
    module.load_state_dict({k[len(prefix) :]: t for k, t in tensors.items() if k.startswith(prefix)}, strict=True)
    return module.double().eval()


def unet_of(u):
    """From an entry of make_tiny_models: SD 1 has eight heads, later ones have heads of 64 channels."""
    linear = u.get("linear_projections", False)
    return networks.UNet(u["width"], u["mult"], u["blocks"], u["attention"], u["context"], u["channels"],
                         heads=None if linear else 8, linear=linear, depth=u.get("depth", 1), label=u.get("label", 0),
                         down=u.get("down"), up=u.get("up"), middle=u.get("middle", "whole"))


def clip_of(c, tensors, prefix, kind=networks.Clip):
    """A text encoder from an entry of make_tiny_models."""
    more = {"pooled": c["pooled"]} if "pooled" in c else {}
    clip = kind(c["width"], c["layers"], max(1, c["width"] // 64), c["vocabulary"], c["positions"], **more)
    return load(clip, {k: t for k, t in tensors.items() if not k.endswith(("position_ids", "logit_scale"))}, prefix)


class Model:
    """Stable Diffusion 1; what differs in others is overridden. `file` is what the program is given."""

    name, unet, predicts, scale = "tiny-sd1-f32.safetensors", tiny.UNET, "eps", 0.18215
    table, ays = sample.TABLE, sample.AYS

    def __init__(self, models, words):
        self.words, self.file = words, os.path.join(models, self.name)
        tensors, v = read_safetensors(self.file), tiny.VAE
        self.net = load(unet_of(self.unet), tensors, "model.diffusion_model.")
        self.vae = load(networks.Vae(v["width"], v["mult"], v["blocks"], v["channels"], self.scale), tensors, "first_stage_model.")
        self.load_text(tensors)

    def load_text(self, tensors):
        self.clip = clip_of(tiny.CLIP, tensors, "cond_stage_model.transformer.text_model.")

    def encoders(self):
        """{what LoRAs call it: module}"""
        return {"te": self.clip}

    def tokens(self, text, chunks):
        """A prompt without attention syntax and commas, in at least this many chunks: [chunks, 77]."""
        ids = self.words.encode(text)
        rows = []
        while ids or len(rows) < chunks:
            body, ids = ids[:75], ids[75:]
            rows.append([clip_bpe.BOS] + body + [clip_bpe.EOS] * (76 - len(body)))
        return torch.tensor(rows)

    def context(self, text, chunks=1):
        """[1, 77 * chunks, width]"""
        z = self.clip(self.tokens(text, chunks))
        return z.reshape(1, -1, z.shape[-1])

    def label(self, text, case, is_negative):
        """What the network is told beside the text: [1, width], or None."""
        return None

    def is_silent(self, parts):
        """Whether a negative prompt of this is zeros."""
        return False

    def told(self, parts, case, is_negative):
        """[(weight, {text: (context, label)}, texts by call)]"""
        out = []
        for weight, contexts, says in self.contexts(parts):
            both = {text: (c, self.label(text, case, is_negative)) for text, c in contexts.items()}
            if is_negative and self.is_silent(parts):
                both = {text: (torch.zeros_like(c), self.without_text(label)) for text, (c, label) in both.items()}
            out.append((weight, both, says))
        return out

    def contexts(self, parts):
        """[(weight, {text: context}, texts by call)]; as many chunks for all of a part, as many rows for all parts."""
        out = []
        for weight, says in parts:
            chunks = max(1, *(-(-len(self.words.encode(text)) // 75) for text in says))
            out.append((weight, {text: self.context(text, chunks) for text in set(says)}, says))
        rows = max(c.shape[1] for _, said, _ in out for c in said.values())
        for _, said, _ in out:
            for text, c in said.items():
                said[text] = torch.cat([c, c[:, -1:].expand(-1, rows - c.shape[1], -1)], dim=1)
        return out

    def denoised(self, x, out, sigma):
        if self.predicts == "v":
            return x / (sigma**2 + 1) - out * sigma / math.sqrt(sigma**2 + 1)
        return x - sigma * out

    def predict(self, x, t, told, case, call, question):
        """What the network answers, in this call, to question -1 (the negative prompt), 0, 1, ... (parts of the positive one)."""
        return self.net(x, t, *told)

    def picture(self, case, start=None):
        sample.TABLE, sample.AYS = self.table, self.ays
        shape = (1, 4, case["height"] // 8, case["width"] // 8)
        n = int(np.prod(shape))
        sigmas = sample.sampler_sigmas(case["sampler"], case["scheduler"], case["steps"]).astype(np.float32).astype(float)
        draw = lambda k: sample.noise(case["rng"], case["seed"], n, k)
        positive, negative = (self.told(case[p].parts, case, p == "negative") for p in ("prompt", "negative"))
        calls = iter(range(10**6))

        def denoise(x, sigma):
            scaled = torch.from_numpy(x.reshape(shape)) / math.sqrt(sigma**2 + 1)
            t = torch.tensor([float(sample.to_timestep(sigma))], dtype=torch.float64)
            call = next(calls)
            answer = lambda i, part: self.predict(scaled, t, part[1][part[2][call]], case, call, i)
            down = answer(-1, negative[0])
            out = down + case["cfg"] * sum(part[0] * (answer(i, part) - down) for i, part in enumerate(positive))
            return [self.denoised(x, o.numpy().ravel(), sigma) for o in (out, down)]

        x = np.zeros(n)
        if start is not None:
            planes = torch.from_numpy(start / 127.5 - 1).permute(2, 0, 1)[None]
            x = self.vae.encode(planes, torch.zeros(shape, dtype=torch.float64)).numpy().ravel()
            run = int(min(case["strength"], 0.999) * case["steps"]) + 1
            sigmas = sigmas[case["steps"] - run :]
        tree = sample.Tree(case["rng"], case["seed"], n, sigmas[-2], sigmas[0])
        eta = sample.ETA.get(case["sampler"], 0.0)
        x = sample.sample(case["sampler"], x + draw(0) * sigmas[0], sigmas, denoise, draw, tree, eta)
        rgb = self.vae.decode(torch.from_numpy(x.reshape(shape)))[0].permute(1, 2, 0).numpy()
        return np.rint(np.clip((rgb + 1) * 127.5, 0, 255))


class Sd2(Model):
    """Predicts v, as its weights tell."""

    name, unet, predicts = "tiny-sd2-f32.safetensors", tiny.SD2_UNET, "v"

    def load_text(self, tensors):
        self.clip = clip_of(tiny.SD2_CLIP, tensors, "cond_stage_model.model.", networks.OpenClip)

    def tokens(self, text, chunks):
        return networks.padded(super().tokens(text, chunks))


class Bk(Model):
    """SD 1 with fewer blocks and no middle."""

    name, unet = "tiny-bk-f32.safetensors", tiny.BK_UNET


class Sdxl(Model):
    """Two text encoders, their layers before the last, as they are; and a label."""

    name, unet, scale, ays = "tiny-sdxl-f32.safetensors", tiny.SDXL_UNET, 0.13025, sample.AYS_XL

    def load_text(self, tensors):
        self.clip = clip_of(tiny.SDXL_CLIP_L, tensors, "conditioner.embedders.0.transformer.text_model.")
        self.clip_g = clip_of(tiny.SDXL_CLIP_G, tensors, "conditioner.embedders.1.model.", networks.OpenClip)

    def encoders(self):
        return {"te1": self.clip, "te2": self.clip_g}

    def context(self, text, chunks=1):
        tokens = self.tokens(text, chunks)
        both = self.clip.hidden(tokens, 2), self.clip_g.hidden(networks.padded(tokens), 2)
        return torch.cat([z.reshape(1, -1, z.shape[-1]) for z in both], dim=-1)

    def numbers(self, case, is_negative):
        h, w = case["height"], case["width"]
        return [h, w, 0, 0, h, w]

    def label(self, text, case, is_negative):
        pooled = self.clip_g.pooled(networks.padded(self.tokens(text, 1)))
        return torch.cat([pooled, networks.size_label(self.numbers(case, is_negative)).double()], dim=-1)

    def is_silent(self, parts):
        return all(text == "" for _, says in parts for text in says)

    def without_text(self, label):
        width = self.clip_g.text_projection.shape[1]
        return torch.cat([torch.zeros_like(label[:, :width]), label[:, width:]], dim=-1)


class SdxlV(Sdxl):
    """Predicts v; no signal is left at the last step. The file says so."""

    name, predicts, table = "tiny-sdxl-v.safetensors", "v", sample.without_terminal_signal(sample.TABLE)


class Refiner(Sdxl):
    name, unet = "tiny-sdxl-refiner-f32.safetensors", tiny.REFINER_UNET

    def load_text(self, tensors):
        self.clip_g = clip_of(tiny.REFINER_CLIP, tensors, "conditioner.embedders.0.model.", networks.OpenClip)

    def context(self, text, chunks=1):
        z = self.clip_g.hidden(networks.padded(self.tokens(text, chunks)), 2)
        return z.reshape(1, -1, z.shape[-1])

    def numbers(self, case, is_negative):
        return [case["height"], case["width"], 0, 0, 2.5 if is_negative else 6.0]


class Ssd(Sdxl):
    """SDXL with fewer blocks."""

    name, unet = "tiny-ssd-f32.safetensors", tiny.SSD_UNET


class Vega(Sdxl):
    """SDXL with fewer still."""

    name, unet = "tiny-vega-f32.safetensors", tiny.VEGA_UNET


def ours(program, model, case, folder, init, more=(), threads=1):
    out = os.path.join(folder, "out.png")
    args = [program, "generate", "--model", model, "--threads", str(threads), "--precision", "f32", "--output", out, *more]
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


class Prompt:
    """A random prompt: `text` as it is written, `parts` as what it says: (weight, [text at each call, and one call on]).
    The last one is never asked for, but A1111 encodes it with the others, and it counts for their number of chunks."""

    def __init__(self, rnd, calls, longest, composed):
        self.rnd, self.calls, self.parts, texts = rnd, calls, [], []
        for _ in range(rnd.choice([1, 1, 2, 3]) if composed else 1):
            text, says = self.phrases(longest, 2)
            weight = 1.0
            if composed:
                weight = rnd.choice([1.0, 0.5, -0.25, 1.5])
                text += " :%g" % weight
            self.parts.append((weight, says))
            texts.append(text)
        self.text = " AND ".join(texts)
        if len(texts) == 1 and composed:
            self.text, self.parts = self.text.rsplit(" :", 1)[0], [(1.0, self.parts[0][1])]

    def __str__(self):
        return self.text

    def phrases(self, longest, depth):
        """Some words and brackets: the text, and what it says at each call."""
        text, says = "", [""] * (self.calls + 1)
        for _ in range(self.rnd.randrange(1, 4)):
            piece, said = self.bracket(longest, depth) if depth and self.rnd.random() < 0.4 else self.words(longest)
            text, says = text + " " + piece, [a + " " + b for a, b in zip(says, said)]
        return text, says

    def words(self, longest):
        words = "red fox snow tower lamp under a painting of quiet rivers sunrise 1920s glass".split()
        text = " ".join(self.rnd.choices(words, k=self.rnd.randrange(longest)))
        return text, [text] * (self.calls + 1)

    def bracket(self, longest, depth):
        """[a:b:when], its shorter forms, or [a|b|c]. Call k, from 0, is the step k or, for the first, 1."""
        said = [self.phrases(longest, depth - 1) for _ in range(3)]
        if self.rnd.random() < 0.3:
            turns = "[" + "|".join(text for text, _ in said) + "]"
            return turns, [said[(max(k, 1) - 1) % 3][1][k] for k in range(self.calls + 1)]
        share = self.rnd.choice([0.0, 0.2, 0.5, 0.75, 1.0])
        number = self.rnd.randrange(self.calls + 2)
        when, at = self.rnd.choice([("%.2f" % share, int(share * self.calls)), (str(number), number)])
        (a, first), (b, second) = said[:2]
        form = self.rnd.randrange(3)
        if form == 1:
            a, first = "", [""] * (self.calls + 1)
        if form == 2:
            b, second = "", [""] * (self.calls + 1)
        text = "[" + (b if form == 1 else a + ":" + b) + ":" + when + "]"
        return text, [first[k] if max(k, 1) <= at else second[k] for k in range(self.calls + 1)]


class Plain:
    """A prompt that says one thing; nothing, too."""

    def __init__(self, text, steps):
        self.text, self.parts = text, [(1.0, [text] * (2 * steps + 1))]

    def __str__(self):
        return self.text


def random_case(rnd, sampler, steps=None):
    steps = steps or rnd.randrange(2, 7)
    calls = steps * (2 if sampler in sample.TWICE else 1)
    return {"prompt": Prompt(rnd, calls, rnd.choice([4, 4, 40]), True), "negative": Prompt(rnd, calls, 4, False),
            "width": rnd.choice([64, 72, 104, 128]), "height": rnd.choice([64, 88]), "steps": steps,
            "cfg": rnd.choice([1.2, 1.6] if sampler.endswith("cfg_pp") else [2.0, 5.0, 7.5]),
            "sampler": sampler, "scheduler": rnd.choice([s for s in sample.SCHEDULES if s != "gits"]), "rng": rnd.choice(["cuda", "cpu"]),
            "seed": rnd.randrange(2**32), "strength": rnd.choice([0.3, 0.75, 1.0])}


def check(model, case, seed, program, folder, from_picture, more=()):
    start, init = None, None
    if from_picture:
        start = np.random.default_rng(seed).integers(0, 256, (case["height"] // 8, case["width"] // 8, 3))
        start = np.kron(start, np.ones((8, 8, 1), int))
        init = os.path.join(folder, "init.png")
        write_png(init, start)
    want, got = model.picture(case, start), ours(program, model.file, case, folder, init, more)
    db, kind, told = psnr(got, want), "image" if init else "text", {k: str(v) for k, v in case.items()}
    print("%s %-6s %s: %.1f dB, picture spans %d levels" % (model.name, kind, told, db, np.ptp(want)), flush=True)
    if db < LEAST_DB or np.ptp(want) < 30:
        sys.exit("off: less than %g dB, or a picture without contrast" % LEAST_DB)


def main(program, models, vocabulary, seed):
    print("seed", seed)
    rnd, words = random.Random(seed), clip_bpe.Vocabulary(vocabulary)
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        sd1 = Model(models, words)
        for i, sampler in enumerate(["euler", "euler_a", "heun", "dpm++2m"] + rnd.sample(sample.SAMPLERS, 4)):
            check(sd1, random_case(rnd, sampler), seed + i, program, folder, i % 2)
        for family in (Sd2, Sdxl, SdxlV, Refiner, Ssd, Vega, Bk):
            model = family(models, words)
            for i in range(2):
                case = random_case(rnd, rnd.choice(sample.SAMPLERS), 10)
                if i == 0 and family is Sdxl:
                    case["negative"] = Plain("", case["steps"])
                check(model, case, seed + i, program, folder, i % 2)


if __name__ == "__main__":
    if len(sys.argv) not in (4, 5):
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]) if len(sys.argv) > 4 else random.randrange(2**32))
