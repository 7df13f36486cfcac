"""Teaches the text encoder what captions say, before it learns with the UNet:
train_text.py PICTURES.npy LATENTS.npy CLIP_VOCABULARY.js STATE.pt [--steps N] [--start MODEL.safetensors]

Learning what belongs to what ("a red circle above a blue star") through a UNet's error takes very long. Here linear
heads, thrown away afterwards, read the scene from the encoder's last tokens, which come after every word: what the
objects are from three of them, and from sixteen more the mean latent of each square of 4x4. STATE.pt: what
train_unet.py --text takes."""
import argparse
import random

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

import caption
import model
import scene as scenes
from muon import Muon
from train_unet import Tokens

BATCH, PEAK_RATE, EMA = 128, 1e-3, 0.99
OBJECT_SLOTS, SCENE_SLOT, FIRST_PATCH, PATCH = (58, 59), 60, 61, 4  # token positions
WHERE = ("", *scenes.PLACES, *scenes.RELATIONS)
OBJECT_PARTS = {"shape": ("", *scenes.SHAPES), "colour": ("", *scenes.COLOURS), "size": ("", *scenes.SIZES),
                "where": WHERE}
SCENE_PARTS = {"background": ("", *scenes.COLOURS), "pattern": ("", *scenes.BACKGROUNDS), "style": scenes.STYLES,
               "time": ("", *scenes.TIMES), "sky": ("", *scenes.SKY_OBJECTS), "ground": ("", *scenes.GROUNDS),
               "things": ((), ("house",), ("tree",), ("house", "tree"), ("boat",))}


def labels(scene):
    """[2 * len(OBJECT_PARTS) + len(SCENE_PARTS)]: the index of each part's value; of two objects the left or upper
    one comes first."""
    objects, relation = list(scene.objects), scene.relation
    if relation in ("right of", "below"):
        objects, relation = objects[::-1], scenes.OPPOSITE[relation]
    wheres = (scene.place, "") if len(objects) < 2 else (relation, scenes.OPPOSITE[relation])
    found = []
    for i in range(2):
        values = (objects[i].shape, objects[i].colour, objects[i].size, wheres[i]) if i < len(objects) else ("",) * 4
        found += [OBJECT_PARTS[part].index(value) for part, value in zip(OBJECT_PARTS, values)]
    return found + [SCENE_PARTS[part].index(getattr(scene, part)) for part in SCENE_PARTS]


class Heads(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.objects = nn.ModuleList(nn.Linear(width, sum(map(len, OBJECT_PARTS.values()))) for _ in OBJECT_SLOTS)
        self.scene = nn.Linear(width, sum(map(len, SCENE_PARTS.values())))
        self.patches = nn.Linear(width, model.CHANNELS * PATCH * PATCH)

    def forward(self, states):
        """states [n, 77, width]; returns logits of each part in the order of labels(), and latents [n, 4, 16, 16]."""
        parts = []
        for slot, head in zip(OBJECT_SLOTS, self.objects):
            parts += head(states[:, slot]).split([len(v) for v in OBJECT_PARTS.values()], 1)
        parts += self.scene(states[:, SCENE_SLOT]).split([len(v) for v in SCENE_PARTS.values()], 1)
        side = model.LATENT // PATCH
        patches = self.patches(states[:, FIRST_PATCH : FIRST_PATCH + side * side])
        patches = patches.view(-1, side, side, model.CHANNELS, PATCH, PATCH).permute(0, 3, 1, 4, 2, 5)
        return parts, patches.reshape(-1, model.CHANNELS, model.LATENT, model.LATENT)


class Captions:
    def __init__(self, pictures, latents, vocabulary, seed):
        self.latents = np.load(latents, mmap_mode="r")
        self.scenes = model.read_scenes(pictures)[: len(self.latents)]
        self.labels = torch.tensor([labels(scene) for scene in self.scenes])
        self.tokens, self.random, self.rng = Tokens(vocabulary), random.Random(seed), np.random.default_rng(seed)

    def next(self):
        """tokens [BATCH, 77], labels [BATCH, parts], latents [BATCH, 4, 16, 16]"""
        rows = np.sort(self.rng.integers(0, len(self.latents), BATCH))
        tokens = [self.tokens(caption.write(self.scenes[row], self.random)) for row in rows]
        latents = torch.from_numpy(self.latents[rows][:, : model.CHANNELS]).float() * model.SCALE
        return (x.to(model.DEVICE) for x in (torch.tensor(tokens), self.labels[rows], latents))


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    for name in ("pictures", "latents", "vocabulary", "state"):
        arguments.add_argument(name)
    arguments.add_argument("--steps", type=int, default=2000)
    arguments.add_argument("--start")
    options = arguments.parse_args()
    torch.manual_seed(3)
    text = model.clip()
    if options.start:
        text.load_state_dict(model.read_checkpoint(options.start)["text"])
    text = model.prepare(text)
    heads = Heads(model.TEXT_WIDTH).to(model.DEVICE)
    optimizer = Muon([*text.parameters(), *heads.parameters()], EMA)
    captions, log = Captions(options.pictures, options.latents, options.vocabulary, 5), model.Log()
    for step in range(options.steps):
        tokens, wanted, latents = captions.next()
        with model.autocast():
            states = text(tokens)
        parts, patches = heads(states.float())
        named = sum(F.cross_entropy(part, wanted[:, i]) for i, part in enumerate(parts))
        layout = (patches - latents).square().mean()
        (named + 10 * layout).backward()
        optimizer.step(model.rate(step, options.steps, PEAK_RATE))
        right = torch.stack([part.argmax(1) == wanted[:, i] for i, part in enumerate(parts)], 1).float().mean(0)
        two = wanted[:, 4] > 0
        log.add(step, named=named, layout=layout, shape=right[0], colour=right[1], where=right[3], shape2=right[4],
                colour2=right[5], background=right[8])
        if step % 200 == 199 or step == options.steps - 1:
            model.save(options.state, optimizer.average(text))


if __name__ == "__main__":
    main()
