"""Trains the demo model's autoencoder:
train_vae.py PICTURES.npy STATE.pt [--minutes M] [--steps N] [--crop SIDE] [--decoder-only]

Goes on from STATE.pt where there is one, and begins a new schedule when the options change. L1 and squared error
between picture and reconstruction, L1 of their slopes (edges), and a weak pull of the latents towards a normal
distribution. --crop takes the busiest of a few random squares of each picture, more of them at a time: most of a picture is plain
background. --decoder-only leaves the encoder, and so all latents made with it, as they are (STATE.pt may be what
encode.py wrote), and adds noise to the latents: a diffusion model's are never quite right either."""
import argparse
import os
import time

import numpy as np
import torch

import model
from muon import Muon

PICTURES_AT_ONCE, CANDIDATES, PEAK_RATE, KL_WEIGHT, EDGE_WEIGHT, EMA = 8, 4, 1e-3, 1e-5, 1.0, 0.99
NOISE = 0.04  # of a latent's deviation, with --decoder-only


def busiest(picture, side, rng):
    """The one of CANDIDATES random squares [side, side, 3] of a picture with the most contrast."""
    places = rng.integers(0, model.PIXELS - side + 1, (CANDIDATES, 2))
    squares = [picture[y : y + side, x : x + side] for y, x in places]
    return max(squares, key=lambda square: square[::4, ::4].std((0, 1)).sum())


def pictures(data, side, rng, whole=PICTURES_AT_ONCE):
    """A random batch [n, 3, side, side] in [-1, 1], half of it mirrored; as many pixels in all as `whole` pictures."""
    count = whole * (model.PIXELS // side) ** 2
    rows = np.sort(rng.choice(len(data), count, replace=False))
    squares = [data[row] if side == model.PIXELS else busiest(data[row], side, rng) for row in rows]
    batch = torch.from_numpy(np.stack([s[:, ::-1] if rng.random() < 0.5 else s for s in squares])).to(model.DEVICE)
    return (batch.permute(0, 3, 1, 2).float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)


def slopes(x):
    return x[..., 1:] - x[..., :-1], x[..., 1:, :] - x[..., :-1, :]


def losses(vae, x, decoder_only):
    with model.autocast():
        with torch.set_grad_enabled(not decoder_only):
            mean, log_variance = vae.quant_conv(vae.encoder(x)).float().chunk(2, dim=1)
        log_variance = log_variance.clamp(-20, 10)
        deviation = torch.exp(0.5 * log_variance) + (NOISE / vae.scale if decoder_only else 0)
        z = mean + deviation * torch.randn_like(mean)
        y = vae.decoder(vae.post_quant_conv(z)).float()
    kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
    edge = sum((a - b).abs().mean() for a, b in zip(slopes(x), slopes(y)))
    return (x - y).abs().mean(), edge, kl, (x - y).square().mean()


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("pictures")
    arguments.add_argument("state")
    arguments.add_argument("--minutes", type=float, default=1e9)
    arguments.add_argument("--steps", type=int, default=3000)
    arguments.add_argument("--crop", type=int, default=model.PIXELS)
    arguments.add_argument("--decoder-only", action="store_true")
    options = arguments.parse_args()
    data = np.load(options.pictures, mmap_mode="r")
    torch.manual_seed(1)
    vae = model.prepare(model.Vae())
    with torch.no_grad():
        vae.quant_conv.bias[model.CHANNELS :] = -6  # little noise at first: what the latents mean is learned sooner
    parts = [vae.post_quant_conv, vae.decoder] if options.decoder_only else [vae]
    first, schedule = 0, (options.steps, options.crop, options.decoder_only)
    if os.path.exists(options.state):
        saved = torch.load(options.state)
        vae.load_state_dict(saved.get("average", saved))
        first = saved["step"] if saved.get("schedule") == schedule else 0
    team = model.team()
    optimizer = Muon((p for part in parts for p in part.parameters()), EMA, team)
    if first:
        optimizer.load(saved["optimizer"])
    team.start()
    optimizer.bind()
    seed = first * team.size + team.rank
    torch.manual_seed(1 + seed)
    rng, log, start, saved_at = np.random.default_rng(seed), model.Log(), time.time(), time.time()

    def store():
        model.save(options.state, dict(average=optimizer.average(vae), optimizer=optimizer.state(), step=step + 1,
                                       schedule=schedule))

    for step in range(first, options.steps):
        x = pictures(data, options.crop, rng, PICTURES_AT_ONCE // team.size)
        error, edge, kl, square = losses(vae, x, options.decoder_only)
        (error + square + EDGE_WEIGHT * edge + KL_WEIGHT * kl).backward()
        norm = optimizer.step(model.rate(step, options.steps, PEAK_RATE, warmup=30))
        if team.rank:
            continue
        log.add(step, l1=error, edge=edge, kl=kl, psnr=-10 * torch.log10(square / 4), norm=norm)
        if time.time() - saved_at > 60:
            store()
            saved_at = time.time()
        if time.time() - start > options.minutes * 60:
            break
    if not team.rank:
        store()


if __name__ == "__main__":
    main()
