"""Writes the checkpoint: export.py VAE.pt UNET.pt CLIP_VOCABULARY.js OUT.safetensors

The averaged weights in half precision under Stable Diffusion 1.x's names. Words that no caption uses were never
trained; their embeddings become zero, so that they say nothing instead of something random."""
import argparse
import json
import random
import struct

import numpy as np
import torch

import caption
import model
import scene
from batches import Tokens

CAPTIONS = 20000  # enough to meet every word of the grammar
EXAMPLES = ("a red circle on a blue background", "a house on green hills at sunset, watercolor painting",
            "a yellow star above a purple heart, white background", "a boat on the sea at night under the moon",
            "a large pink heart on green stripes, line drawing with thick outlines",
            "a black square to the left of an orange triangle")
METADATA = {
    "modelspec.sai_model_spec": "1.0.0", "modelspec.architecture": "stable-diffusion-v1",
    "modelspec.title": "Mysti demo", "modelspec.resolution": "128x128", "modelspec.prediction_type": "epsilon",
    "modelspec.license": "CC0-1.0",
    "modelspec.description": "Coloured shapes and little landscapes; see models/demo/README.md",
    "mysti.examples": "\n".join(EXAMPLES),
}


def forget_unused(embedding, vocabulary):
    """embedding: [49408, width], in place."""
    rng, tokens = random.Random(0), Tokens(vocabulary)
    used = {i for _ in range(CAPTIONS) for i in tokens(caption.write(scene.random_scene(rng), rng))}
    keep = torch.zeros(len(embedding), dtype=torch.bool)
    keep[list(used)] = True
    embedding[~keep] = 0
    print(len(used), "words kept")


def stored(name, p):
    """Half precision; the token embeddings, the largest tensor by far, were trained as FP8 E4M3."""
    p = p.contiguous()
    return model.f8_codes(p).numpy() if name == model.TOKEN_EMBEDDING else p.numpy().astype(np.float16)


def checkpoint(vae, text, unet):
    """name -> float16 or uint8 (F8_E4M3) array"""
    parts = {"vae": vae, "text": text, "unet": unet}
    return {model.PREFIXES[part] + name: stored(name, p) for part, weights in parts.items()
            for name, p in weights.items()}


def write(path, tensors):
    header, at = {"__metadata__": METADATA}, 0
    for name, a in tensors.items():
        header[name] = {"dtype": "F16" if a.dtype == np.float16 else "F8_E4M3", "shape": list(a.shape), "data_offsets": [at, at + a.nbytes]}
        at += a.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        for a in tensors.values():
            out.write(a.tobytes())
    print(f"{len(tensors)} tensors, {at / 1e6:.1f} MB")


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    for name in ("vae", "unet", "vocabulary", "out"):
        arguments.add_argument(name)
    options = arguments.parse_args()
    vae, trained = torch.load(options.vae, map_location="cpu"), torch.load(options.unet, map_location="cpu")["average"]
    forget_unused(trained["text"][model.TOKEN_EMBEDDING], options.vocabulary)
    write(options.out, checkpoint(vae.get("average", vae), trained["text"], trained["unet"]))


if __name__ == "__main__":
    main()
