"""Asks a model whether it knows which of two objects stands where:
probe.py PICTURES.npy LATENTS.npy CLIP_VOCABULARY.js MODEL.safetensors

Of the text encoder: in how many captions linear maps of a token's state, found by ridge regression on other captions,
tell the left or upper object's shape and colour, and those of the other one. An encoder that knows the two objects but not their
order is right in little more than half of them.

Of the UNet: how often it finds the noise in a picture of two objects better with the picture's caption than with the
same caption and the opposite relation, and the mean errors of the clean latent that follows; half means that it does
not know."""
import argparse
import random
from dataclasses import replace

import numpy as np
import torch

import caption
import heads
import model
import scene
from batches import Tokens
from train_unet import signal_shares

LEARNED, ASKED, BATCH = 6000, 1000, 64
RIDGE = 0.01  # of the standardised features' variance
TIMES = ((940, 1000), (850, 940), (700, 850))


def states_of(text, tokens):
    with torch.no_grad(), model.autocast():
        return torch.cat([text(some).float() for some in tokens.split(BATCH)])


def accuracies(known, labels, asked, wanted):
    """Of each of heads.OBJECTS, the share told right. known, asked: features [n, width]; labels, wanted [n, parts]."""
    mean, deviation = known.mean(0), known.std(0) + 1e-4

    def features(x):
        return torch.cat([(x - mean) / deviation, torch.ones(len(x), 1)], 1).double()

    a, b = features(known), features(asked)
    gram = a.T @ a + RIDGE * len(a) * torch.eye(a.shape[1], dtype=torch.double)
    found = []
    for part in heads.OBJECTS:
        maps = torch.linalg.solve(gram, a.T @ torch.nn.functional.one_hot(labels[:, part]).double())
        found.append(float(((b @ maps).argmax(1) == wanted[:, part]).double().mean()))
    return found


def ask_text(text, tokens, scenes, rng):
    scenes = scenes[: LEARNED + ASKED]
    labels = torch.tensor([heads.labels(one) for one in scenes])
    states = states_of(text, torch.tensor([tokens(caption.write(one, rng)) for one in scenes], device=model.DEVICE))
    states = states.cpu()
    for name, slots in (("the tokens of the heads", slice(heads.OBJECT_SLOTS[0], heads.FIRST_PATCH)),
                        ("the last token", slice(-1, None)), ("the mean of all", None)):
        features = states.mean(1) if slots is None else states[:, slots].flatten(1)
        right = accuracies(features[:LEARNED], labels[:LEARNED], features[LEARNED:], labels[LEARNED:])
        print(f"text encoder, {name}:", "  ".join(f"{name} {100 * share:.1f} %" for name, share in
                                                  zip(("shape", "colour", "other shape", "other colour"), right)))


def worded_both_ways(one, rng):
    """A caption that says the relation, and the same with the opposite one."""
    while True:
        seed = rng.random()
        text = caption.write(one, random.Random(seed))
        if caption.parse(text).relation:
            return text, caption.write(replace(one, relation=scene.OPPOSITE[one.relation]), random.Random(seed))


def ask_unet(text, unet, tokens, scenes, latents, rng):
    """latents: [n, 4, 16, 16] of the scenes"""
    texts = [worded_both_ways(one, rng) for one in scenes]
    contexts = [states_of(text, torch.tensor([tokens(pair[way]) for pair in texts], device=model.DEVICE)) for way in (0, 1)]
    shares = signal_shares()
    for first, end in TIMES:
        t = torch.randint(first, end, (len(scenes),), device=model.DEVICE)
        share = shares[t][:, None, None, None]
        noise = torch.randn_like(latents)
        noisy = (share.sqrt() * latents + (1 - share).sqrt() * noise).contiguous(memory_format=torch.channels_last)
        errors = []
        for context in contexts:
            with torch.no_grad(), model.autocast():
                found = torch.cat([unet(*part).float() for part in
                                   zip(noisy.split(BATCH), t.float().split(BATCH), context.split(BATCH))])
            errors.append((found - noise).square().mean((1, 2, 3)) * ((1 - share) / share).flatten())
        right, wrong = errors
        print(f"UNet, time steps {first} to {end - 1}: the right order is better in "
              f"{100 * float((right < wrong).float().mean()):.1f} %, errors {right.mean():.3f} and {wrong.mean():.3f}")


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    for name in ("pictures", "latents", "vocabulary", "model"):
        arguments.add_argument(name)
    options = arguments.parse_args()
    torch.manual_seed(0)
    weights = model.read_checkpoint(options.model)
    text, unet = model.clip(), model.unet()
    text.load_state_dict(weights["text"])
    unet.load_state_dict(weights["unet"])
    text, unet = model.prepare(text).eval(), model.prepare(unet).eval()
    latents = np.load(options.latents, mmap_mode="r")
    scenes, tokens, rng = model.read_scenes(options.pictures), Tokens(options.vocabulary), random.Random(0)
    two = [i for i in range(len(latents)) if len(scenes[i].objects) == 2]
    ask_text(text, tokens, [scenes[i] for i in two], rng)
    last = two[-4 * BATCH :]
    clean = torch.from_numpy(latents[last][:, : model.CHANNELS]).float().to(model.DEVICE) * model.SCALE
    ask_unet(text, unet, tokens, [scenes[i] for i in last], clean, rng)


if __name__ == "__main__":
    main()
