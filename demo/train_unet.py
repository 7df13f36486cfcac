"""Trains the demo model's text encoder and UNet together, from nothing:
train_unet.py PICTURES.npy LATENTS.npy CLIP_VOCABULARY.js STATE.pt [--minutes M] [--steps N] [--start MODEL.safetensors]

PICTURES.jsonl beside the pictures tells what is on them; a caption is worded anew each time a scene comes up. Stable
Diffusion 1.x's noise schedule and its prediction of the noise (Ho et al. 2020; Rombach et al. 2022); time steps are
drawn as often as min-SNR with gamma 5 (Hang et al. 2023) would weigh them; one caption in ten is dropped for
classifier-free guidance. Goes on from STATE.pt where there is one; else --start begins with the weights of a model."""
import argparse
import os
import random
import time

import numpy as np
import torch

import caption
import model  # puts tools/ref on the path
import clip_bpe

BATCH, PEAK_RATE, EMA, DROPPED, GAMMA, STEPS = 32, 1e-3, 0.999, 0.1, 5.0, 1000


class Tokens:
    """Texts to [77] token numbers: begin, words, end, and ends to fill up; words are remembered."""

    def __init__(self, vocabulary):
        self.vocabulary, self.words = clip_bpe.Vocabulary(vocabulary), {}

    def word(self, word):
        if word not in self.words:
            self.words[word] = self.vocabulary.encode(word)
        return self.words[word]

    def __call__(self, text):
        ids = [i for word in text.split() for i in self.word(word)][: model.TOKENS - 2]
        return [clip_bpe.BOS, *ids] + [clip_bpe.EOS] * (model.TOKENS - 1 - len(ids))


def signal_shares():
    """[1000], the share of the picture's variance left at each time step (alpha bar)."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, STEPS, dtype=torch.float64) ** 2
    return torch.cumprod(1 - betas, 0).float().to(model.DEVICE)


class Batches:
    def __init__(self, pictures, latents, vocabulary, seed):
        self.latents = np.load(latents)
        self.scenes = model.read_scenes(pictures)[: len(self.latents)]
        self.tokens, self.random, self.rng = Tokens(vocabulary), random.Random(seed), np.random.default_rng(seed)

    def next(self):
        """latents [BATCH, 4, 16, 16] of deviation 1, tokens [BATCH, 77]"""
        rows = self.rng.integers(0, len(self.latents), BATCH)
        moments = torch.from_numpy(self.latents[rows]).to(model.DEVICE).float()
        mean, log_variance = moments.chunk(2, dim=1)
        x = (mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)) * model.Vae.scale
        texts = ["" if self.random.random() < DROPPED else caption.write(self.scenes[row], self.random) for row in rows]
        return x, torch.tensor([self.tokens(text) for text in texts], device=model.DEVICE)


def min_snr_weights(shares):
    """[1000]: how much the error of the predicted noise counts at each time step."""
    return torch.clamp(GAMMA * (1 - shares) / shares, max=1.0)


def loss_of(text, unet, shares, x, tokens):
    t = torch.multinomial(min_snr_weights(shares), len(x), replacement=True)
    share = shares[t][:, None, None, None]
    noise = torch.randn_like(x)
    noisy = (share.sqrt() * x + (1 - share).sqrt() * noise).contiguous(memory_format=torch.channels_last)
    with model.autocast():
        predicted = unet(noisy, t.float(), text(tokens)).float()
    return (predicted - noise).square().mean()


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    for name in ("pictures", "latents", "vocabulary", "state"):
        arguments.add_argument(name)
    arguments.add_argument("--minutes", type=float, default=1e9)
    arguments.add_argument("--steps", type=int, default=6000)
    arguments.add_argument("--start")
    options = arguments.parse_args()
    torch.manual_seed(1)
    text, unet = model.clip(), model.unet()
    if options.start:
        weights = model.read_checkpoint(options.start)
        text.load_state_dict(weights["text"])
        unet.load_state_dict(weights["unet"])
    text, unet = model.prepare(text), model.prepare(unet)
    optimizer = model.optimizer([*text.parameters(), *unet.parameters()], EMA)
    first = 0
    if os.path.exists(options.state):
        saved = torch.load(options.state)
        optimizer.load(saved["optimizer"])
        first = saved["step"]
    torch.manual_seed(1 + first)
    batches, shares = Batches(options.pictures, options.latents, options.vocabulary, first), signal_shares()
    log, start, saved_at = model.Log(), time.time(), time.time()

    def store():
        with optimizer.with_average():
            average = {name: {key: p.clone() for key, p in part.state_dict().items()}
                       for name, part in (("text", text), ("unet", unet))}
        model.save(options.state, dict(average=average, optimizer=optimizer.state(), step=step + 1))

    for step in range(first, options.steps):
        loss = loss_of(text, unet, shares, *batches.next())
        loss.backward()
        norm = optimizer.step(model.rate(step, options.steps, PEAK_RATE))
        log.add(step, loss=loss, norm=norm)
        if time.time() - saved_at > 120:
            store()
            saved_at = time.time()
        if time.time() - start > options.minutes * 60:
            break
    store()


if __name__ == "__main__":
    main()
