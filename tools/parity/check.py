#!/usr/bin/env python3
"""Runs a checkpoint in the image engine and in PyTorch, and compares: text encoders, UNet, VAE, and a whole picture.

The engine's answers may be off by 1e-3 of the largest number (2e-2 for weights in half precision), and the picture by 40 dB
of peak signal to noise. Exit code 0 within these limits, 1 beyond, 2 when there is nothing to compare (README.md)."""
import argparse
import os
import random
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "ref"))
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
try:
    import numpy as np
    import torch
except ImportError as missing:
    sys.exit("%s (apt install python3-torch python3-numpy)" % missing)
import checkpoint
import clip_bpe
import edits
import parity
import picture
import sample

PARTS = ("text", "unet", "vae", "picture")


class Tools:
    """What a build has made."""

    def __init__(self, build, vocabulary):
        self.parity_check = os.path.join(build, "tests", "parity_check")
        self.worker = os.path.join(build, "bin", "mysti_sd_worker")
        self.vocabulary = vocabulary
        for path in (self.parity_check, self.worker, self.vocabulary):
            if not os.path.exists(path):
                raise checkpoint.Unfit("'%s' is missing: build with tests first (scripts/setup.sh --test; README.md)" % path)


# --- single networks --------------------------------------------------------------------------------------------------


class Maker(parity.Maker):
    """Vectors from the checkpoint's own weights instead of random ones."""

    def __init__(self, folder, seed, c, model):
        super().__init__(folder, seed)
        self.checkpoint, self.model = c, model

    def network(self, module, prefix, half):
        place = prefix
        if prefix.startswith("conditioner.embedders.1."):
            place = self.checkpoint.open_clip_prefix()
        elif prefix == "cond_stage_model.transformer.text_model.":
            place = self.checkpoint.clip_prefix()
        self.checkpoint.fill(module, place)
        is_rounded = self.model != self.checkpoint.path or self.checkpoint.is_half(place)
        return {"model": os.path.abspath(self.model), "half": int(is_rounded)}


def text_vectors(m):
    c, family = m.checkpoint, m.checkpoint.family
    if family == "sd1":
        parity.clip(m, "l", **c.clip_shape(), skip=1, chunks=2)
    elif family == "sd2":
        shape = c.open_clip_shape()
        parity.open_clip(m, "h", shape["width"], shape["layers"], skip=1, chunks=2)
    else:
        parity.sdxl_clip(m, "g", **c.open_clip_shape(), skip=1, chunks=2)
    if family == "sdxl":
        shape = c.clip_shape()
        parity.sdxl_clip(m, "l", shape["width"], shape["layers"], skip=1, chunks=2)


def unet_vectors(m, side):
    shape = m.checkpoint.unet_shape()
    if not shape["label"]:
        del shape["label"]
    parity.unet(m, "own", side, side, 77, **shape)


def vae_vectors(m, side):
    parity.vae(m, "own", side, side, **m.checkpoint.vae_shape())


def compare_networks(tools, m):
    """Prints a line for each result; true when all are within their limits."""
    done = subprocess.run([tools.parity_check, *m.files], check=False)
    if done.returncode > 1 or done.returncode < 0:
        raise checkpoint.Unfit("the engine cannot run it")
    return done.returncode == 0


# --- the picture ------------------------------------------------------------------------------------------------------


class Single:
    """A network in single precision among doubles."""

    def __init__(self, net):
        self.net = net

    def __call__(self, *args):
        return self.run(self.net, args)

    def __getattr__(self, name):
        value = getattr(self.net, name)
        return value if torch.is_tensor(value) else lambda *args: self.run(value, args)

    def run(self, call, args):
        return call(*(a.float() if torch.is_tensor(a) and a.is_floating_point() else a for a in args)).double()


class Own:
    """A model of picture.py whose networks are the checkpoint's, and in memory only for their phase."""

    def __init__(self, c, file, words, predicts):
        self.checkpoint, self.file, self.words, self.predicts = c, file, words, predicts
        self.table = sample.without_terminal_signal(sample.TABLE) if c.has_zero_snr() else sample.TABLE
        self.held = {}

    def part(self, phase, name, build):
        if self.held.get("phase") != phase:
            self.held = {"phase": phase}
        if name not in self.held:
            self.held[name] = Single(build())
        return self.held[name]

    clip_l = property(lambda self: self.part("text", "clip_l", self.checkpoint.clip))
    clip_g = property(lambda self: self.part("text", "clip_g", self.checkpoint.open_clip))
    clip = property(lambda self: self.clip_g if self.checkpoint.family == "sd2" else self.clip_l)
    net = property(lambda self: self.part("unet", "net", self.checkpoint.unet))
    vae = property(lambda self: self.part("vae", "vae", lambda: self.checkpoint.vae(self.scale)))


def model_of(c, file, words, predicts):
    family = {"sd1": picture.Model, "sd2": picture.Sd2, "sdxl": picture.Sdxl, "sdxl-refiner": picture.Refiner}[c.family]
    channels = c.unet_shape()["channels"]
    role = {4: (), 9: (edits.Inpainter,), 8: (edits.Editor,)}.get(channels)
    if role is None or role and c.family == "sdxl-refiner":
        raise checkpoint.Unfit("the reference makes no picture with a %s UNet of %d input channels" % (c.family, channels))
    return type("OwnModel", (Own, *role, family), {})(c, file, words, predicts)


def case_of(o):
    more = {"prompt": o.prompt, "negative": o.negative, "width": o.size, "height": o.size, "steps": o.steps, "cfg": 5.0,
            "image_cfg": 1.5, "sampler": "euler", "scheduler": "discrete", "rng": "cuda", "seed": o.seed, "strength": 1.0}
    return edits.basic(random.Random(o.seed), **more)


def reference_picture(model, case, rgb):
    if rgb is not None:
        return edits.from_picture(model, case, rgb, None)[0]
    if isinstance(model, edits.Inpainter):
        return edits.from_text(model, case)[0]
    prompts = {k: picture.Plain(case[k], case["steps"]) for k in ("prompt", "negative")}
    return model.picture({**case, **prompts})


def compare_pictures(tools, c, o, folder):
    predicts = o.prediction or c.prediction()
    model = model_of(c, o.model, clip_bpe.Vocabulary(tools.vocabulary), predicts)
    case, rgb, more = case_of(o), None, ["--prediction", predicts]
    if isinstance(model, edits.Editor):
        rgb = edits.random_picture(random.Random(o.seed), o.size, o.size)
        more += edits.options(case, folder, rgb, None)
    sample.TABLE = model.table
    want = reference_picture(model, case, rgb)
    got = picture.ours(tools.worker, o.model, case, folder, os.path.join(folder, "init.png") if rgb is not None else None, more, o.threads)
    db = picture.psnr(got, want)
    ok = db >= picture.LEAST_DB and np.ptp(want) >= 30
    print("%-4s picture, %d steps, %dx%d, %s: %.1f dB (limit %g dB), spans %d levels" %
          ("ok" if ok else "FAIL", o.steps, o.size, o.size, predicts, db, picture.LEAST_DB, np.ptp(want)), flush=True)
    return ok


# --- main -------------------------------------------------------------------------------------------------------------


def options():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("model", help="what the engine runs: a single file that it can load")
    p.add_argument("--reference", metavar="FILE", help="what PyTorch runs, a checkpoint as safetensors; default: the same file")
    p.add_argument("--only", default=",".join(PARTS), metavar="PARTS", help="some of %(default)s")
    p.add_argument("--size", type=int, default=256, help="of the picture and of what the networks get; default %(default)s")
    p.add_argument("--steps", type=int, default=4, help="of the picture; default %(default)s")
    p.add_argument("--prompt", default="a lighthouse at night, oil on canvas")
    p.add_argument("--negative", default="blurred")
    p.add_argument("--prediction", choices=("eps", "v"), help="default: as the file tells")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--threads", type=int, default=2)
    build = os.path.normpath(os.path.join(HERE, "..", "..", "build"))
    p.add_argument("--build", default=build, metavar="DIR", help="where the programs were built")
    p.add_argument("--vocabulary", default=os.path.join(build, "_deps", "clip", "bpe_simple_vocab_16e6.js"), metavar="FILE",
                   help="CLIP's, as scripts/setup.sh fetches it")
    o = p.parse_args()
    o.only = o.only.split(",")
    unknown = [x for x in o.only if x not in PARTS]
    if unknown or o.size < 64 or o.size % 64 or not 1 <= o.steps <= 200:
        p.error("--only: %s is none of %s" % (unknown[0], ", ".join(PARTS)) if unknown else
                "--size: a multiple of 64 is needed; --steps: 1 to 200")
    return o


def check(o):
    tools, c = Tools(o.build, o.vocabulary), checkpoint.Checkpoint(o.reference or o.model)
    print("%s, predicts %s" % (c.family, o.prediction or c.prediction()), flush=True)
    make = {"text": text_vectors, "unet": lambda m: unet_vectors(m, o.size // 8), "vae": lambda m: vae_vectors(m, o.size // 8)}
    ok = True
    for part in [x for x in PARTS if x in o.only]:
        with tempfile.TemporaryDirectory() as folder:
            if part == "picture":
                ok = compare_pictures(tools, c, o, folder) and ok
                continue
            m = Maker(folder, o.seed, c, o.model)
            make[part](m)
            ok = compare_networks(tools, m) and ok
    print("within the limits" if ok else "beyond the limits")
    return 0 if ok else 1


def main():
    o = options()
    torch.set_num_threads(o.threads)
    try:
        with torch.no_grad():
            return check(o)
    except (checkpoint.Unfit, OSError, KeyError, ValueError) as e:
        print("%s: %s" % (o.reference or o.model, e), file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
