"""Teaches the text encoder what captions say, before it learns with the UNet:
train_text.py PICTURES.npy LATENTS.npy CLIP_VOCABULARY.js STATE.pt [--steps N] [--start MODEL.safetensors]

Learning what belongs to what ("a red circle above a blue star") through a UNet's error takes very long. Here linear
heads (heads.py) read the scene from the encoder's last tokens, which come after every word: what the objects are, from
the left or upper one's token and the other's, and from sixteen more the mean latent of each square of 4x4. With
--start a model's text encoder is taught so; what its other tokens tell its UNet stays about as it is. STATE.pt: what
train_unet.py --text takes."""
import argparse
import copy

import torch

import model
from batches import Batches
from heads import OBJECT_SLOTS, OBJECTS, Heads
from muon import Muon

BATCH, PEAK_RATE, EMA = 128, 1e-3, 0.99
KEEP = 20.0  # how much it counts that the tokens before the heads' stay as they were


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    for name in ("pictures", "latents", "vocabulary", "state"):
        arguments.add_argument(name)
    arguments.add_argument("--steps", type=int, default=2000)
    arguments.add_argument("--start")
    options = arguments.parse_args()
    torch.manual_seed(3)
    text, before = model.clip(), None
    if options.start:
        text.load_state_dict(model.read_checkpoint(options.start)["text"])
        text.embeddings.token_embedding.weight.requires_grad_(False)
        before = model.prepare(copy.deepcopy(text))
    text, heads, team = model.prepare(text), Heads(model.TEXT_WIDTH).to(model.DEVICE), model.team()
    optimizer = Muon([*text.parameters(), *heads.parameters()], EMA, team)
    team.start()
    optimizer.bind()
    batches = Batches(options.pictures, options.latents, options.vocabulary, 5 + team.rank, BATCH // team.size)
    log = model.Log()
    for step in range(options.steps):
        mean, _, tokens, labels = batches.next()
        with model.autocast():
            states = text(tokens)
        loss, right = heads.loss(states.float(), labels, model.SCALE * mean)
        kept = 0
        if before:
            with torch.no_grad(), model.autocast():
                wanted = before(tokens)[:, : OBJECT_SLOTS[0]]
            kept = (states[:, : OBJECT_SLOTS[0]] - wanted).float().square().mean()
        (loss + KEEP * kept).backward()
        optimizer.step(model.rate(step, options.steps, PEAK_RATE))
        if team.rank:
            continue
        two = labels[:, 4] > 0
        log.add(step, loss=loss, kept=kept, objects=right[:, OBJECTS].float().mean(),
                two=right[two][:, OBJECTS].all(1).float().mean())
        if step % 200 == 199 or step == options.steps - 1:
            model.save(options.state, dict(text=optimizer.average(text), heads=optimizer.average(heads)))


if __name__ == "__main__":
    main()
