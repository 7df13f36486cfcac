#!/usr/bin/env python3
"""Pictures with LoRAs against PyTorch: lora.py PROGRAM MODELS VOCABULARY [SEED]

For each kind of file (tools/loras.py) a random one is made for the tiny models, alone or together with another one. The
reference merges them in float64. At least 40 dB, and at most 36 dB to the picture without them: they must matter."""
import os
import random
import sys
import tempfile

import numpy as np
import torch

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
import clip_bpe
import loras
import picture

LEAST_DB, MOST_DB_WITHOUT = 40.0, 36.0

OPEN_CLIP_TOP = {"token_embedding.weight": "embeddings.token_embedding.weight", "ln_final.weight": "final_layer_norm.weight",
                 "ln_final.bias": "final_layer_norm.bias"}
OPEN_CLIP = {"ln_1.": "layer_norm1.", "ln_2.": "layer_norm2.", "attn.out_proj.": "self_attn.out_proj.", "mlp.c_fc.": "mlp.fc1.",
             "mlp.c_proj.": "mlp.fc2."}


def to_hf(name, value):
    """A tensor of OpenCLIP under the names that LoRAs use: [(name, value)]; three for the fused projections."""
    head, _, rest = name.partition("transformer.resblocks.")
    if not rest:
        return [(OPEN_CLIP_TOP.get(name, name), value)]
    layer, _, rest = rest.partition(".")
    place = f"{head}encoder.layers.{layer}."
    if rest.startswith("attn.in_proj_"):
        thirds = np.split(value, 3)
        return [(f"{place}self_attn.{p}_proj.{rest[len('attn.in_proj_'):]}", thirds[i]) for i, p in enumerate("qkv")]
    old = next(k for k in OPEN_CLIP if rest.startswith(k))
    return [(place + OPEN_CLIP[old] + rest[len(old) :], value)]


class Worn:
    """A reference model whose weights can be changed."""

    def __init__(self, model):
        self.model, self.modules = model, {"unet": model.net, **model.encoders()}
        self.before = {name: self.state(module) for name, module in self.modules.items()}

    @staticmethod
    def state(module):
        return {k: v.numpy().copy() for k, v in module.state_dict().items()}

    def listed(self, component):
        """{name: tensor} as LoRAs name them."""
        return {k: v for name, value in self.before[component].items() for k, v in to_hf(name, value)}

    def shapes(self):
        return {c: {k: v.shape for k, v in self.listed(c).items()} for c in self.before}

    def wear(self, uses, folder):
        for component, module in self.modules.items():
            state = self.listed(component)
            for name, te, unet in uses:
                path = os.path.join(folder, name + ".safetensors")
                state, count = loras.merged(path, loras.FILES[name][0], component, state, unet if component == "unet" else te)
                assert count or component != "unet"
            back = {}
            for name, value in self.before[component].items():
                back[name] = np.concatenate([state[k] for k, _ in to_hf(name, value)]) if value.ndim else value
            module.load_state_dict({k: torch.from_numpy(v) for k, v in back.items()})


def tag(use):
    name, te, unet = use
    return f"<lora:{name}:{te}>" if te == unet else f"<lora:{name}:{te}:{unet}>"


def check(worn, uses, case, program, folder):
    worn.wear([], folder)
    plain = worn.model.picture(case)
    worn.wear(uses, folder)
    want = worn.model.picture(case)
    asked = dict(case, prompt=" ".join(tag(u) for u in uses) + str(case["prompt"]))
    got = picture.ours(program, worn.model.file, asked, folder, None, ["--lora-dir", folder])
    db, without = picture.psnr(got, want), picture.psnr(plain, want)
    print("%s %-40s %.1f dB, %.1f dB without; spans %d levels" %
          (worn.model.name, " ".join(map(tag, uses)), db, without, np.ptp(want)), flush=True)
    if db < LEAST_DB or without > MOST_DB_WITHOUT or np.ptp(want) < 30:
        sys.exit("off")


def weight(rnd):
    return round(rnd.uniform(0.4, 1), 2)


def check_model(worn, files, rnd, rng, program, folder):
    for name in loras.FILES:
        tensors = loras.make(rng, name, worn.shapes())
        loras.write(os.path.join(folder, name + ".safetensors"), tensors, rnd.choice(["F16", "F32"]))
    for i, name in enumerate(files):
        uses = [(name, weight(rnd), weight(rnd))]
        if i % 3 == 0:
            other, w = rnd.choice([n for n in loras.FILES if n != name]), -weight(rnd)
            uses.append((other, w, w))
        check(worn, uses, picture.random_case(rnd, "euler", 3), program, folder)


def main(program, models, vocabulary, seed):
    print("seed", seed)
    rnd, rng, words = random.Random(seed), np.random.default_rng(seed), clip_bpe.Vocabulary(vocabulary)
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        check_model(Worn(picture.Model(models, words)), list(loras.FILES), rnd, rng, program, folder)
        check_model(Worn(picture.Sd2(models, words)), ["lora", "loha", "peft"], rnd, rng, program, folder)
        check_model(Worn(picture.Sdxl(models, words)), ["lora", "ldm", "lokr", "peft"], rnd, rng, program, folder)


if __name__ == "__main__":
    if len(sys.argv) not in (4, 5):
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]) if len(sys.argv) > 4 else random.randrange(2**32))
