"""Trains the demo model's UNet, and its text encoder with it:
train_unet.py PICTURES.npy LATENTS.npy CLIP_VOCABULARY.js STATE.pt [--minutes M] [--steps N] [--text TEXT.pt]
    [--start MODEL.safetensors]

PICTURES.jsonl beside the pictures tells what is on them; a caption is worded anew each time a scene comes up. Stable
Diffusion 1.x's noise schedule and its prediction of the noise (Ho et al. 2020; Rombach et al. 2022); time steps are
drawn as often as min-SNR with gamma 5 (Hang et al. 2023) would weigh them; one caption in ten is dropped for
classifier-free guidance. Goes on from STATE.pt where there is one; else --start begins with the weights of a model, as
far as they have the same shapes, and --text with a text encoder by train_text.py, whose heads go on reading along.
Token embeddings are not trained any more, and rounded as they will be stored."""
import argparse
import os
import time

import torch

import model
from batches import Batches
from heads import OBJECTS, Heads
from muon import Muon

BATCH, PEAK_RATE, EMA, DROPPED, GAMMA, STEPS = 32, 1e-3, 0.99, 0.1, 5.0, 1000
LAYOUT_SHARE, LAYOUT_OFTEN = 0.06, 3.0


def signal_shares():
    """[1000], the share of the picture's variance left at each time step (alpha bar)."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, STEPS, dtype=torch.float64) ** 2
    return torch.cumprod(1 - betas, 0).float().to(model.DEVICE)


def min_snr_weights(shares):
    """[1000]: how much the error of the predicted noise counts at each time step."""
    return torch.clamp(GAMMA * (1 - shares) / shares, max=1.0)


def time_steps_often(shares):
    """[1000]: how often each time step is drawn. Where the scene is laid out more often than its error would count: which
    of two objects stands where is decided there and nowhere else."""
    return min_snr_weights(shares) * torch.where(shares < LAYOUT_SHARE, LAYOUT_OFTEN, 1.0)


def layout_weights(shares):
    """[1000], 1 on average: where hardly anything but noise is left, the scene is laid out, but the error of the noise
    hardly tells how well; so it counts there about what the error of v (Salimans & Ho 2022) would."""
    weights, often = 1 / (shares + 0.05), time_steps_often(shares)
    return weights * often.sum() / (weights * often).sum()


class Sketches(torch.nn.Module):
    """Linear heads that read the whole clean latent from the UNet's coarse levels on its way up, thrown away after the
    training: they tell those levels early where what belongs, which the noise's error does slowly (deep supervision,
    Lee et al. 2015)."""

    BLOCKS = {4: 4, 7: 2}  # output block: latents along one of its pixels
    WEIGHT = 0.2

    def __init__(self, unet):
        super().__init__()
        self.seen, self.heads = {}, torch.nn.ModuleDict()
        for block, side in self.BLOCKS.items():
            channels = unet.output_blocks[block][0].out_layers[3].out_channels
            self.heads[str(block)] = torch.nn.Linear(channels, model.CHANNELS * side * side)
            unet.output_blocks[block].register_forward_hook(lambda _, __, y, block=block: self.seen.update({block: y}))

    def loss(self, x):
        """Of the UNet's last call, which was to find x [n, 4, 16, 16] in the noise."""
        total = 0
        for block, side in self.BLOCKS.items():
            features = self.seen.pop(block).float().permute(0, 2, 3, 1)
            drawn = self.heads[str(block)](torch.nn.functional.layer_norm(features, features.shape[-1:]))
            wanted = torch.nn.functional.pixel_unshuffle(x, side).permute(0, 2, 3, 1)
            total = total + (drawn - wanted).square().mean()
        return total / len(self.BLOCKS)


def drawn(mean, log_variance):
    """A latent of deviation 1 out of the autoencoder's distribution."""
    return (mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)) * model.SCALE


def loss_of(unet, shares, x, context):
    t = torch.multinomial(time_steps_often(shares), len(x), replacement=True)
    share = shares[t][:, None, None, None]
    noise = torch.randn_like(x)
    noisy = (share.sqrt() * x + (1 - share).sqrt() * noise).contiguous(memory_format=torch.channels_last)
    with model.autocast():
        predicted = unet(noisy, t.float(), context).float()
    return ((predicted - noise).square().mean((1, 2, 3)) * layout_weights(shares)[t]).mean()


def take(module, weights):
    """Loads the weights that have the module's shapes."""
    shapes = {name: p.shape for name, p in module.named_parameters()}
    module.load_state_dict({name: p for name, p in weights.items() if p.shape == shapes[name]}, strict=False)


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    for name in ("pictures", "latents", "vocabulary", "state"):
        arguments.add_argument(name)
    arguments.add_argument("--minutes", type=float, default=1e9)
    arguments.add_argument("--steps", type=int, default=6000)
    arguments.add_argument("--start")
    arguments.add_argument("--text")
    options = arguments.parse_args()
    torch.manual_seed(1)
    text, unet = model.clip(), model.unet()
    if options.start:
        weights = model.read_checkpoint(options.start)
        take(text, weights["text"])
        take(unet, weights["unet"])
    heads = Heads(model.TEXT_WIDTH)
    if options.text:
        taught = torch.load(options.text)
        text.load_state_dict(taught["text"])
        heads.load_state_dict(taught["heads"])
    embedding = text.embeddings.token_embedding.weight.requires_grad_(False)
    embedding.copy_(model.f8_values(model.f8_codes(embedding)))
    text, unet, heads = model.prepare(text), model.prepare(unet), heads.to(model.DEVICE)
    team = model.team()
    sketches = Sketches(unet).to(model.DEVICE)
    optimizer = Muon([p for part in (text, heads, unet, sketches) for p in part.parameters()], EMA, team)
    first = 0
    if os.path.exists(options.state):
        saved = torch.load(options.state)
        optimizer.load(saved["optimizer"])
        first = saved["step"]
    team.start()
    optimizer.bind()
    seed = first * team.size + team.rank
    torch.manual_seed(1 + seed)
    batches = Batches(options.pictures, options.latents, options.vocabulary, seed, BATCH // team.size)
    shares = signal_shares()
    log, start, saved_at = model.Log(), time.time(), time.time()

    def store():
        average = {name: optimizer.average(part) for name, part in (("text", text), ("unet", unet))}
        model.save(options.state, dict(average=average, optimizer=optimizer.state(), step=step + 1))

    for step in range(first, options.steps):
        mean, log_variance, tokens, labels = batches.next(DROPPED)
        x = drawn(mean, log_variance)
        with model.autocast():
            states = text(tokens)
        loss = loss_of(unet, shares, x, states)
        sketch = sketches.loss(x)
        named = tokens[:, 1] != tokens[:, 2]  # captions, not what stands for none
        read, right = heads.loss(states[named].float(), labels[named], model.SCALE * mean[named])
        (loss + sketches.WEIGHT * sketch + heads.WEIGHT * read).backward()
        norm = optimizer.step(model.rate(step, options.steps, PEAK_RATE))
        if team.rank:
            continue
        log.add(step, loss=loss, sketch=sketch, read=read, objects=right[:, OBJECTS].float().mean(), norm=norm)
        if time.time() - saved_at > 120:
            store()
            saved_at = time.time()
        if time.time() - start > options.minutes * 60:
            break
    if not team.rank:
        store()


if __name__ == "__main__":
    main()
