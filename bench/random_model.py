#!/usr/bin/env python3
"""A checkpoint of real size with random weights (the original single file's names, f16), for figures of time and memory:

  random_model.py FAMILY OUT.safetensors

  sd15     Stable Diffusion 1.5, 2.1 GB
  sd2      Stable Diffusion 2 at 768, which predicts v, 2.6 GB
  sdxl     Stable Diffusion XL, 6.9 GB
  refiner  its refiner, 6.1 GB

Always the same numbers. Holds one tensor in memory at a time: at most 0.6 GB. Needs numpy."""
import json
import os
import struct
import sys

import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tools"))
from make_tiny_models import TELLING, clip_shapes, open_clip_shapes, prefixed, unet_shapes, vae_shapes

VAE = dict(width=128, mult=(1, 2, 4, 4), blocks=2, channels=4)
CLIP_L = dict(width=768, layers=12, vocabulary=49408, positions=77)
CLIP_H = dict(width=1024, layers=24, vocabulary=49408, positions=77, pooled=1024)
CLIP_G = dict(width=1280, layers=32, vocabulary=49408, positions=77, pooled=1280)

SD1_UNET = dict(width=320, mult=(1, 2, 4, 4), blocks=2, attention=(0, 1, 2), context=768, channels=4)
SD2_UNET = dict(SD1_UNET, context=1024, linear_projections=True)
SDXL_UNET = dict(width=320, mult=(1, 2, 4), blocks=2, attention=(1, 2), context=2048, channels=4, linear_projections=True,
                 depth=(0, 2, 10), label=1280 + 6 * 256)
REFINER_UNET = dict(width=384, mult=(1, 2, 4, 4), blocks=2, attention=(1, 2), context=1280, channels=4,
                    linear_projections=True, depth=(0, 4, 4, 4), label=1280 + 5 * 256)

# The UNet, and the text encoders by the place that they have in the file.
FAMILIES = {
    "sd15": (SD1_UNET, {"cond_stage_model.transformer.text_model.": clip_shapes(**CLIP_L)}),
    "sd2": (SD2_UNET, {"cond_stage_model.model.": open_clip_shapes(**CLIP_H)}),
    "sdxl": (SDXL_UNET, {"conditioner.embedders.0.transformer.text_model.": clip_shapes(**CLIP_L),
                         "conditioner.embedders.1.model.": open_clip_shapes(**CLIP_G)}),
    "refiner": (REFINER_UNET, {"conditioner.embedders.0.model.": open_clip_shapes(**CLIP_G)}),
}


def shapes(family):
    unet, texts = FAMILIES[family]
    out = {**prefixed("model.diffusion_model.", unet_shapes(**unet)), **prefixed("first_stage_model.", vae_shapes(**VAE))}
    for place, text in texts.items():
        out.update(prefixed(place, text))
    return out


def numbers(name, shape, rng):
    """Small enough that signals neither die out nor explode on their way."""
    a = rng.standard_normal(shape, dtype=np.float32)
    if name.endswith("bias"):
        return a * 0.01
    if len(shape) == 1:
        return 1 + a * 0.02
    if "embedding" in name:
        return a * 0.02
    return a * 0.7 / np.sqrt(np.prod(shape[1:]))


def main(family, path):
    wanted, header, at = shapes(family), {}, 0
    for name, shape in wanted.items():
        size = 2 * int(np.prod(shape))
        header[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    rng = np.random.default_rng(1234)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for name, shape in wanted.items():
            a = numbers(name, shape, rng)
            if family == "sd2" and name.endswith(TELLING):
                a *= 20  # this wide, it tells that the model predicts v
            f.write(a.astype(np.float16).tobytes())
    print(f"{len(header)} tensors, {at / 1e9:.2f} GB")


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in FAMILIES:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2])
