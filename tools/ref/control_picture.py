#!/usr/bin/env python3
"""Whole pictures with a ControlNet against PyTorch: control_picture.py PROGRAM MODELS VOCABULARY [SEED]

Runs `PROGRAM generate` (mysti_sd_worker) on tiny models with random parameters and makes the same pictures from picture.py
and controlnet.py alone: weight, part of the run, mode, Canny; text to image and image to image. At least 60 dB."""
import os
import random
import sys
import tempfile

import numpy as np
import torch

import clip_bpe
import controlnet
import make_tiny_models as tiny
import picture

LEAST_DB = 60.0
ONE_CALL = ("euler", "euler_a", "dpm++2m")  # calls of the network for a step: so a call tells its step


class Controlled:
    """In place of a UNet: asked twice a step, for the negative prompt first."""

    def __init__(self, unet, net, hint, unit, steps):
        self.unet, self.net, self.hint, self.unit, self.steps, self.calls = unet, net, hint, unit, steps, 0

    def strength(self, part, parts, is_negative):
        u = self.unit
        if u["mode"] == "balanced":
            return u["weight"]
        return 0.0 if u["mode"] == "control" and is_negative else u["weight"] * 0.825 ** (parts - 1 - part)

    def __call__(self, x, t, context, label):
        step, is_negative = self.calls // 2, self.calls % 2 == 0
        self.calls += 1
        if step < self.unit["start"] * self.steps - 1e-9 or step + 1 > self.unit["end"] * self.steps + 1e-9:
            return self.unet(x, t, context, label)
        added = self.net(x, self.hint, t, context, label)
        added = [self.strength(i, len(added), is_negative) * v for i, v in enumerate(added)]
        return controlnet.controlled(self.unet, added, x, t, context, label)


def network(folder, name, unet, names):
    """From its file; `names` says what a parameter is called there."""
    net, tensors = controlnet.ControlNet(unet), picture.read_safetensors(os.path.join(folder, name))
    net.load_state_dict({k: tensors[names(k)] for k in net.state_dict()}, strict=True)
    assert len(tensors) == len(net.state_dict())
    return net.double().eval()


def check(model, net, file, rnd, rng, program, folder, from_picture):
    case = picture.random_case(rnd, rnd.choice(ONE_CALL), rnd.choice([4, 5, 8]))
    case.update(prompt=picture.Plain("a red fox", case["steps"]), negative=picture.Plain("fog", case["steps"]))
    shown = controlnet.scene(rng, case["height"], case["width"], 3)
    unit = {"weight": rnd.choice([0.5, 1.0, 1.75]), "mode": rnd.choice(["balanced", "prompt", "control"]),
            "start": rnd.choice([0.0, 0.0, 0.25]), "end": rnd.choice([0.5, 1.0, 1.0]), "canny": rnd.random() < 0.5}
    more = ["--controlnet", file, "--control-image", os.path.join(folder, "control.png")]
    for key in ("weight", "mode", "start", "end"):
        more += ["--control-" + key, str(unit[key])]
    picture.write_png(more[3], shown)
    if unit["canny"]:
        more += ["--canny", "--canny-low", "40", "--canny-high", "90"]
        shown = controlnet.canny(shown, 40, 90)[..., None].repeat(3, 2)
    start, init = None, None
    if from_picture:
        start = np.kron(rng.integers(0, 256, (case["height"] // 8, case["width"] // 8, 3)), np.ones((8, 8, 1), int))
        init = os.path.join(folder, "init.png")
        picture.write_png(init, start)
    steps = int(min(case["strength"], 0.999) * case["steps"]) + 1 if from_picture else case["steps"]
    hint, whole = torch.from_numpy(shown / 255).permute(2, 0, 1)[None].double(), model.net
    without = model.picture(case, start)
    model.net = Controlled(whole, net, hint, unit, steps)
    want = model.picture(case, start)
    model.net = whole
    db, effect = picture.psnr(picture.ours(program, model.file, case, folder, init, more), want), picture.psnr(without, want)
    told = {k: str(case[k]) for k in ("width", "height", "steps", "sampler", "cfg", "strength")}
    print("%s %s %s: %.1f dB (%.1f without)" % (model.name, told, unit, db, effect), flush=True)
    if db < LEAST_DB or np.ptp(want) < 30:
        sys.exit("off: less than %g dB, or a picture without contrast" % LEAST_DB)
    return effect


def main(program, models, vocabulary, seed):
    print("seed", seed)
    rnd, rng, words = random.Random(seed), np.random.default_rng(seed), clip_bpe.Vocabulary(vocabulary)
    folder = os.path.join(models, "controlnet")
    with tempfile.TemporaryDirectory() as temp, torch.no_grad():
        effects = []
        for family, name, names in ((picture.Model, "tiny-canny.safetensors", lambda k: "control_model." + k),
                                    (picture.Sdxl, "tiny-xl.safetensors", lambda k: tiny.control_diffusers_name(k, 2))):
            model = family(models, words)
            net = network(folder, name, picture.unet_of(model.unet), names)
            effects += [check(model, net, os.path.join(folder, name), rnd, rng, program, temp, i % 2) for i in range(4)]
    if min(effects) > 25:
        sys.exit("off: the ControlNets change next to nothing")


if __name__ == "__main__":
    if len(sys.argv) not in (4, 5):
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]) if len(sys.argv) > 4 else random.randrange(2**32))
