#!/usr/bin/env python3
"""Pictures with textual inversions against PyTorch: embeddings.py PROGRAM MODELS VOCABULARY [SEED]

Random ones in every form of file, of one to sixty vectors, are named in random prompts, in any case and with attention
weights. The reference makes them rows behind the text encoder's vocabulary. At least 40 dB, and in one case of three at
most 30 dB to the picture of a model that does not know them: they must matter. A file for other encoders must change
nothing."""
import os
import random
import re
import sys
import tempfile

import numpy as np
import torch

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
import clip_bpe
import picture
import torch_files

LEAST_DB, MOST_DB_WITHOUT, TRIES = 40.0, 30.0, 3
BODY, VOCABULARY = 75, 49408


def as_parameter(tensors):
    return {"string_to_token": {"*": 265}, "string_to_param": {"*": tensors[0]}, "name": "no matter", "step": 3000,
            "sd_checkpoint": None, "sd_checkpoint_name": None}


def as_parameter_dict(tensors):
    return {"string_to_token": {"*": torch.tensor(265)}, "string_to_param": torch.nn.ParameterDict({"*": tensors[0]})}


ONE = {"kohya.safetensors": lambda t: {"emb_params": t[0]}, "a1111.pt": as_parameter, "first trainer.pt": as_parameter_dict,
       "diffusers.bin": lambda t: {"<cat-toy>": t[0]}, "half_9.safetensors": lambda t: {"emb_params": t[0].half()}}
TWO = {"by-encoder.safetensors": lambda t: {"clip_l": t[0], "clip_g": t[1]}, "Pickled.pt": lambda t: {"clip_g": t[1], "clip_l": t[0]}}


def write(path, content):
    if path.endswith(".safetensors"):
        torch_files.safetensors(path, content)
    else:
        torch.save(content, path)


def weight_of(module):
    """The table of token vectors of either kind of text encoder."""
    return (module.embeddings if hasattr(module, "embeddings") else module).token_embedding


def taught(family):
    """A family's reference that knows learned words: names, each [(its first row, its vectors)]."""

    class Taught(family):
        words_known = {}

        def tables(self):
            return [weight_of(module) for module in self.encoders().values()]

        def teach(self, name, vectors):
            """vectors: [count, width] for each encoder."""
            for table, rows in zip(self.tables(), vectors):
                first = table.weight.shape[0]
                table.weight = torch.nn.Parameter(torch.cat([table.weight, rows.double()]))
            self.words_known = dict(self.words_known, **{name.lower(): range(first, first + len(rows))})

        def pieces(self, text):
            """[(tokens that stay together, weight)]: words, or "(words:1.3)"."""
            for part in re.findall(r"\([^)]*\)|[^()]+", text):
                said, weight = part.strip("()").rsplit(":", 1) if part[0] == "(" else (part, "1")
                names = sorted(self.words_known, key=len, reverse=True)
                for piece in re.split("(%s)" % "|".join(map(re.escape, names)), said.lower()) if names else [said]:
                    known = self.words_known.get(piece)
                    for group in [list(known)] if known else [[i] for i in self.words.encode(piece)]:
                        yield group, float(weight)

        def chunks(self, text):
            """[[(token, weight), ...], ...], each of 75 at most."""
            out = [[]]
            for group, weight in self.pieces(text):
                if len(out[-1]) + len(group) > BODY:
                    out.append([])
                out[-1] += [(i, weight) for i in group]
            return out

        def filled(self, text, count, side, begin, fill):
            rows = [[begin] + [pair[side] for pair in body] for body in self.chunks(text)]
            rows += [[begin]] * (count - len(rows))
            return torch.tensor([row + [fill] * (77 - len(row)) for row in rows])

        def tokens(self, text, chunks):
            plain = self.filled(text, chunks, 0, clip_bpe.BOS, clip_bpe.EOS)
            return picture.networks.padded(plain) if family is picture.Sd2 else plain

        def context(self, text, chunks=1):
            weights = self.filled(text, chunks, 1, 1.0, 1.0).double()
            z, done = super().context(text, chunks), []
            for part in z.reshape(len(weights), 77, -1).split([t.weight.shape[1] for t in self.tables()], dim=-1):
                scaled = part * weights[:, :, None]
                done.append(scaled * (part.mean((1, 2), keepdim=True) / scaled.mean((1, 2), keepdim=True)))
            return torch.cat(done, dim=-1).reshape(z.shape)

        def contexts(self, parts):
            (weight, says), = parts
            text, = set(says)
            return [(weight, {text: self.context(text, len(self.chunks(text)))}, says)]

    return Taught


class Said:
    """A random prompt that names some of the words."""

    def __init__(self, rnd, names, calls, longest):
        words = "red fox snow tower lamp under a painting of quiet rivers sunrise 1920s glass".split()
        out = rnd.choices(words, k=rnd.randrange(2, longest))
        for name in names:
            name = rnd.choice([name, name.upper(), "embedding:" + name])
            said = rnd.choice([name, "(%s:%.2f)" % (name.replace("embedding:", ""), rnd.uniform(0.5, 1.4))])
            out.insert(rnd.randrange(len(out) + 1), said)
        self.text = " ".join(out)
        shown = self.text.replace("embedding:", "")
        self.parts = [(1.0, [shown] * (calls + 1))]

    def __str__(self):
        return self.text


def make(generator, tables, form, path, vectors):
    """A file of so many vectors, larger than tokens' are; what was put into it, by encoder."""
    rows = [torch.randn(vectors, t.weight.shape[1], generator=generator) * 3 * float(t.weight.std()) for t in tables]
    write(path, form(rows))
    return [r.half().float() if path.endswith("half_9.safetensors") else r for r in rows]


def check(rnd, model, unknowing, names, program, folder):
    """A random case; whether the words matter in it, as one of few vectors among many words may not."""
    case = picture.random_case(rnd, "euler", 3)
    case.update(width=64, height=64, prompt=Said(rnd, names, 3, rnd.choice([8, 70])), negative=Said(rnd, names[:1], 3, 6))
    want, got = model.picture(case), picture.ours(program, model.file, case, folder, None, ["--embedding-dir", folder])
    db, without = picture.psnr(got, want), picture.psnr(unknowing.picture(case), want)
    print("%s %s: %.1f dB, %.1f dB without; spans %d levels" % (model.name, case["prompt"], db, without, np.ptp(want)), flush=True)
    if db < LEAST_DB or np.ptp(want) < 30:
        sys.exit("off")
    return without <= MOST_DB_WITHOUT


def check_family(family, forms, rnd, generator, program, models, words):
    model, unknowing = taught(family)(models, words), taught(family)(models, words)
    width = unknowing.tables()[0].weight.shape[1]
    with tempfile.TemporaryDirectory() as folder:
        for name, form in forms.items():
            vectors = make(generator, unknowing.tables(), form, os.path.join(folder, name), rnd.choice([1, 2, 8, 60]))
            model.teach(os.path.splitext(name)[0], vectors)
        foreign = torch.randn(4, width + 8, generator=generator)
        write(os.path.join(folder, "fox.safetensors"), {"emb_params": foreign})
        names = [os.path.splitext(name)[0] for name in forms]
        for name in names:
            others = [n for n in names if n != name]
            said = [name] + rnd.sample(others, rnd.randrange(2))
            if not any(check(rnd, model, unknowing, said, program, folder) for _ in range(TRIES)):
                sys.exit("'%s' does not matter" % name)


def main(program, models, vocabulary, seed):
    print("seed", seed)
    rnd, generator, words = random.Random(seed), torch.Generator().manual_seed(seed), clip_bpe.Vocabulary(vocabulary)
    with torch.no_grad():
        check_family(picture.Model, ONE, rnd, generator, program, models, words)
        check_family(picture.Sd2, dict(list(ONE.items())[:2]), rnd, generator, program, models, words)
        check_family(picture.Sdxl, TWO, rnd, generator, program, models, words)


if __name__ == "__main__":
    if len(sys.argv) not in (4, 5):
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]) if len(sys.argv) > 4 else random.randrange(2**32))
