#!/usr/bin/env python3
"""Whole pictures with an IP-Adapter against PyTorch: ip_adapter_picture.py PROGRAM MODELS VOCABULARY [SEED]

Runs `PROGRAM generate` (mysti_sd_worker) on tiny models with random parameters and makes the same pictures from picture.py
and ip_adapter.py alone: weight and part of the run, both kinds; text to image and image to image. At least 60 dB."""
import os
import random
import sys
import tempfile

import numpy as np
import torch

import clip_bpe
import controlnet
import ip_adapter
import make_tiny_models as tiny
import picture
from control_picture import LEAST_DB, ONE_CALL


class Shown:
    """In place of a UNet: asked twice a step, for the negative prompt first, which is shown no picture."""

    def __init__(self, unet, tokens, unit, steps):
        self.unet, self.tokens, self.unit, self.steps, self.calls = unet, tokens, unit, steps, 0

    def __call__(self, x, t, context, label):
        step, is_negative = self.calls // 2, self.calls % 2 == 0
        self.calls += 1
        counts = self.unit["start"] * self.steps - 1e-9 <= step and step + 1 <= self.unit["end"] * self.steps + 1e-9
        for block in ip_adapter.crosses(self.unet):
            block.attn2.tokens = self.tokens[is_negative]
            block.attn2.weight = self.unit["weight"] if counts else 0.0
        return self.unet(x, t, context, label)


def load(module, tensors, prefix):
    module.load_state_dict({k: tensors[prefix + k] for k in module.state_dict()}, strict=True)
    return module.double().eval()


def adapter_of(path, unet, shape, vision):
    """Its projection; the UNet's cross-attentions take its keys and values."""
    tensors, context = picture.read_safetensors(path), shape["context"]
    if "image_proj.latents" in tensors:
        tokens, dim = tensors["image_proj.latents"].shape[1:]
        image = ip_adapter.Resampler(vision["width"], context, dim, 2, 2, tokens)
    else:
        image = ip_adapter.Projection(vision["projected"], context)
    for i, block in enumerate(ip_adapter.crosses(unet)):
        block.attn2 = ip_adapter.Decoupled(block.attn2, context)
        for name in ("to_k_ip", "to_v_ip"):
            load(getattr(block.attn2, name), tensors, f"ip_adapter.{2 * i + 1}.{name}.")
    return load(image, tensors, "image_proj.")


def check(model, image, vision, files, rnd, rng, program, folder, from_picture):
    case = picture.random_case(rnd, rnd.choice(ONE_CALL), rnd.choice([4, 5, 8]))
    case.update(prompt=picture.Plain("a red fox", case["steps"]), negative=picture.Plain("fog", case["steps"]))
    shown = controlnet.scene(rng, rnd.randrange(20, 120), rnd.randrange(20, 120), 3)
    unit = {"weight": rnd.choice([0.5, 1.0, 1.75]), "start": rnd.choice([0.0, 0.0, 0.25]), "end": rnd.choice([0.5, 1.0, 1.0])}
    more = ["--ip-adapter", files[0], "--clip-vision", files[1], "--ip-image", os.path.join(folder, "shown.png")]
    picture.write_png(more[5], shown)
    for key, value in unit.items():
        more += ["--ip-" + key, str(value)]
    start, init = None, None
    if from_picture:
        start = np.kron(rng.integers(0, 256, (case["height"] // 8, case["width"] // 8, 3)), np.ones((8, 8, 1), int))
        init = os.path.join(folder, "init.png")
        picture.write_png(init, start)
    steps = int(min(case["strength"], 0.999) * case["steps"]) + 1 if from_picture else case["steps"]
    tokens, whole = image.both(vision, vision.pixels(shown.astype(np.float64))), model.net
    model.net = Shown(whole, tokens, {**unit, "weight": 0.0}, steps)
    without = model.picture(case, start)
    model.net = Shown(whole, tokens, unit, steps)
    want = model.picture(case, start)
    model.net = whole
    db, effect = picture.psnr(picture.ours(program, model.file, case, folder, init, more), want), picture.psnr(without, want)
    told = {k: str(case[k]) for k in ("width", "height", "steps", "sampler", "cfg", "strength")}
    print("%s %s %s %s: %.1f dB (%.1f without)" % (model.name, os.path.basename(files[0]), told, unit, db, effect), flush=True)
    if db < LEAST_DB or np.ptp(want) < 30:
        sys.exit("off: less than %g dB, or a picture without contrast" % LEAST_DB)
    return effect


def main(program, models, vocabulary, seed):
    print("seed", seed)
    rnd, rng, words = random.Random(seed), np.random.default_rng(seed), clip_bpe.Vocabulary(vocabulary)
    encoder, v = os.path.join(models, "clip_vision/tiny-vision.safetensors"), tiny.VISION
    with tempfile.TemporaryDirectory() as temp, torch.no_grad():
        vision = load(ip_adapter.Vision(v["width"], v["layers"], v["patch"], v["size"], v["projected"]),
                      picture.read_safetensors(encoder), "")
        effects = []
        for family, name in ((picture.Model, "ip"), (picture.Model, "ip-plus"), (picture.Sdxl, "ip-xl")):
            model = family(models, words)
            file = os.path.join(models, f"ipadapter/tiny-{name}.safetensors")
            image = adapter_of(file, model.net, model.unet, v)
            effects += [check(model, image, vision, (file, encoder), rnd, rng, program, temp, i % 2) for i in range(3)]
    if min(effects) > 40:
        sys.exit("off: the pictures change next to nothing")


if __name__ == "__main__":
    if len(sys.argv) not in (4, 5):
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]) if len(sys.argv) > 4 else random.randrange(2**32))
