"""Scenes with their captions, as the trainings of text encoder and UNet take them."""
import random

import numpy as np
import torch

import caption
import model  # puts tools/ref on the path
import clip_bpe
import heads

OFTEN = {0: 0.35, 1: 0.5, 2: 1.5}  # how often scenes of so many objects come up: two are the hardest,
VERTICAL = 1.5  # and which one is above is harder than which one is left


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


class Batches:
    """`size` scenes at a time; each time a scene comes up its caption is worded anew."""

    def __init__(self, pictures, latents, vocabulary, seed, size):
        self.latents = np.load(latents)
        self.scenes = model.read_scenes(pictures)[: len(self.latents)]
        self.labels = torch.tensor([heads.labels(scene) for scene in self.scenes])
        self.tokens, self.random, self.rng = Tokens(vocabulary), random.Random(seed), np.random.default_rng(seed)
        often = np.array([OFTEN[len(scene.objects)] * (VERTICAL if scene.relation in ("above", "below") else 1)
                          for scene in self.scenes])
        self.size, self.often = size, often / often.sum()

    def next(self, dropped=0.0):
        """Means and log variances of the latents, [size, 4, 16, 16] each; tokens [size, 77], of no text for the share
        `dropped`; labels [size, parts]."""
        rows = self.rng.choice(len(self.latents), self.size, p=self.often)
        mean, log_variance = torch.from_numpy(self.latents[rows]).to(model.DEVICE).float().chunk(2, dim=1)
        texts = ["" if self.random.random() < dropped else caption.write(self.scenes[row], self.random) for row in rows]
        tokens = torch.tensor([self.tokens(text) for text in texts], device=model.DEVICE)
        return mean, log_variance, tokens, self.labels[rows].to(model.DEVICE)
