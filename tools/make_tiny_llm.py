#!/usr/bin/env python3
"""Writes a tiny language model in GGUF for the tests: llama architecture, byte-level BPE vocabulary, ChatML template.

The weights are random but shaped so that the text is readable: the output head knows which token followed which in
CORPUS below (a bigram model laid into the embeddings), and random attention and feed-forward layers on top make the
logits depend on the whole context, as in a real model. Multi-byte characters are left as single bytes on purpose:
a stream has to put them together. The same arguments give the same file, byte by byte.

    make_tiny_llm.py OUT.gguf [--type f32|f16|q8_0] [--seed N] [--slow] [--context N] [--no-template] [--eos W] [--embedding]
"""
import argparse
import struct

import numpy as np

CORPUS = """
a quiet harbour at dawn , soft golden light over the water , mist between the boats , highly detailed , oil painting .
a red fox in deep snow , winter forest behind it , cold blue light , sharp focus on the eyes , photograph .
an old library full of books , warm light from tall windows , dust in the air , a cat asleep on the floor .
the city at night after rain , neon signs on wet streets , people with umbrellas , wide angle , cinematic light .
a small café on the corner , green door , flowers in the window , early morning , watercolour .
portrait of a woman with silver hair , soft shadows , the light of a single candle , painted in the style of the old masters .
a castle above the clouds , storm in the distance , birds over the towers , fantasy art , highly detailed .
the garden of a house by the sea , blue sky , white walls , long shadows in the late afternoon .
a steam train on a stone bridge , mountains behind , autumn leaves in the wind , golden hour .
an astronaut on a red desert , two moons above , dust behind the boots , wide view — quiet and vast .
a bowl of fruit on a wooden table , side light , deep colours , naïve still life .
the lighthouse in the storm , high waves against the rocks , dark clouds , one beam of light through the rain .
a street market in summer , bright fabrics , fruit in baskets , many people , über colourful , sharp focus .
an owl on a branch at night , full moon behind , soft blue light , feathers in fine detail .
a glass of tea on the table by the window , rain outside , warm light — a quiet afternoon .
the forest in spring , young green leaves , a path between old trees , sun through the mist .
"""

CHATML = ("{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' "
          "+ '\\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}")

SPECIAL = ["<|bos|>", "<|eos|>", "<|im_start|>", "<|im_end|>"]
EOT = 3
NORMAL, CONTROL = 1, 3  # token types
F32, F16, Q8_0 = 0, 1, 8  # tensor types


def byte_symbols():
    """GPT-2's printable stand-ins for the 256 bytes."""
    keep = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table, spare = {}, 256
    for b in range(256):
        if b in keep:
            table[b] = chr(b)
        else:
            table[b] = chr(spare)
            spare += 1
    return table


class Vocabulary:
    """Bytes, the specials, and each word of the corpus with its leading space, reached by merges from the left."""

    def __init__(self):
        self.symbols = byte_symbols()
        self.tokens = SPECIAL + [self.symbols[b] for b in range(256)]
        self.index = {t: i for i, t in enumerate(self.tokens)}
        self.merges = []
        for word in sorted(set(CORPUS.split()) - set(",.")):
            self.add_word(" " + word)

    def add_word(self, word):
        head = ""
        for symbol in self.spell(self.ascii_head(word)):
            if head and head + symbol not in self.index:
                self.merges.append(f"{head} {symbol}")
                self.index[head + symbol] = len(self.tokens)
                self.tokens.append(head + symbol)
            head += symbol

    def spell(self, text):
        return "".join(self.symbols[b] for b in text.encode())

    @staticmethod
    def ascii_head(word):
        return word[:next((i for i, c in enumerate(word) if ord(c) > 127), len(word))]

    def encode_word(self, word):
        if word in ",.":
            return [self.index[word]]
        word = " " + word
        head = self.ascii_head(word)
        ids = [self.index[self.spell(head)]] if head else []
        return ids + [self.index[s] for s in self.spell(word[len(head):])]

    def encode_corpus(self):
        sentences = []
        for line in CORPUS.strip().splitlines():
            sentences.append([i for word in line.split() for i in self.encode_word(word)])
        return sentences


class Shape:
    def __init__(self, slow):
        self.width, self.layers, self.heads, self.kv_heads, self.ffn = (512, 12, 8, 4, 1536) if slow else (128, 2, 4, 2, 384)
        self.head_dim = self.width // self.heads


def follows(vocabulary, eos_weight):
    """counts[a, b]: how often b followed a. A sentence is followed by any sentence, or by the end of the turn."""
    n = len(vocabulary.tokens)
    counts = np.zeros((n, n), np.float32)
    sentences = vocabulary.encode_corpus()
    starts = [s[0] for s in sentences]
    for s in sentences:
        for a, b in zip(s, s[1:]):
            counts[a, b] += 1
        for b in starts:
            counts[s[-1], b] += 1 / len(starts)
        counts[s[-1], EOT] += eos_weight
    newline = vocabulary.index[vocabulary.symbols[10]]
    for b in starts:  # an answer begins behind "assistant\n"
        counts[newline, b] += 1
    return counts


def make_weights(vocabulary, shape, rng, eos_weight):
    n, w = len(vocabulary.tokens), shape.width
    embed = rng.standard_normal((n, w)).astype(np.float32)
    embed /= np.linalg.norm(embed, axis=1, keepdims=True)
    # Dimension 0 is 1 for every token and no layer writes to it: its column of the head is a bias per token.
    embed[:, 0] = 0.5
    counts = follows(vocabulary, eos_weight)
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1e-6)
    wish = np.log1p(40 * share)
    wish /= np.maximum(np.linalg.norm(wish, axis=0), 1) ** 0.5  # words that follow everything would drown the rest
    head = wish.T @ embed
    bias = np.full(n, -3.0, np.float32)  # fragments and bytes: hardly ever, unless the corpus has them
    bias[counts.sum(0) > 0] = 0
    bias[: len(SPECIAL)] = -6
    bias[EOT] = -0.6 if eos_weight else -40
    head[:, 0] = bias
    weights = {"token_embd.weight": embed, "output.weight": head, "output_norm.weight": np.ones(w, np.float32)}

    def matrix(rows, cols, scale):
        return (rng.standard_normal((rows, cols)) * scale / np.sqrt(cols)).astype(np.float32)

    for i in range(shape.layers):
        part = 1.0 / np.sqrt(shape.layers)
        out = matrix(w, w, 0.08 * part)
        down = matrix(w, shape.ffn, 0.08 * part)
        out[0] = down[0] = 0
        weights |= {
            f"blk.{i}.attn_norm.weight": np.ones(w, np.float32),
            f"blk.{i}.attn_q.weight": matrix(w, w, 1.0),
            f"blk.{i}.attn_k.weight": matrix(shape.kv_heads * shape.head_dim, w, 1.0),
            f"blk.{i}.attn_v.weight": matrix(shape.kv_heads * shape.head_dim, w, 1.0),
            f"blk.{i}.attn_output.weight": out,
            f"blk.{i}.ffn_norm.weight": np.ones(w, np.float32),
            f"blk.{i}.ffn_gate.weight": matrix(shape.ffn, w, 1.0),
            f"blk.{i}.ffn_up.weight": matrix(shape.ffn, w, 1.0),
            f"blk.{i}.ffn_down.weight": down,
        }
    return weights


def as_embedding_model(weights, rows, context, rng):
    """The same sizes as a BERT: attention in both directions, vectors instead of next tokens, no output head."""
    width = weights["output_norm.weight"].shape[0]
    bert = {"token_embd.weight": weights["token_embd.weight"],
            "position_embd.weight": rng.standard_normal((context, width)).astype(np.float32)}
    for norm in ["token_embd_norm", *(f"blk.{i}.{n}_output_norm" for i in range(2) for n in ("attn", "layer"))]:
        bert |= {f"{norm}.weight": np.ones(width, np.float32), f"{norm}.bias": np.zeros(width, np.float32)}
    for i in range(2):
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            bert[f"blk.{i}.{part}.weight"] = (rng.standard_normal((width, width)) / np.sqrt(width)).astype(np.float32)
        bert |= {f"blk.{i}.ffn_{n}.weight": weights[f"blk.{i}.ffn_{n}.weight"] for n in ("up", "down")}
    rows = [(k.replace("llama.", "bert."), t, "bert" if v == "llama" else v) for k, t, v in rows
            if "head_count_kv" not in k and "rope" not in k and "template" not in k]
    rows += [("bert.attention.layer_norm_epsilon", FLOAT, 1e-12), ("bert.attention.causal", BOOL, False),
             ("bert.pooling_type", U32, 1), ("tokenizer.ggml.token_type_count", U32, 2)]
    return bert, rows


def encode_tensor(a, kind):
    if kind == F32:
        return a.astype("<f4").tobytes()
    if kind == F16:
        return a.astype("<f2").tobytes()
    blocks = a.reshape(-1, 32)  # Q8_0: a half-precision scale and 32 signed bytes
    scale = (np.abs(blocks).max(1) / 127).astype("<f2")
    inverse = np.where(scale > 0, 1 / np.maximum(scale.astype(np.float32), 1e-12), 0)
    q = np.clip(np.rint(blocks * inverse[:, None]), -127, 127).astype(np.int8)
    return np.concatenate([scale.view(np.uint8).reshape(-1, 2), q.view(np.uint8)], axis=1).tobytes()


U32, I32, FLOAT, BOOL, STRING, ARRAY = 4, 5, 6, 7, 8, 9


def text(s):
    raw = s.encode()
    return struct.pack("<Q", len(raw)) + raw


def value(kind, v):
    if kind == STRING:
        return text(v)
    return struct.pack({U32: "<I", I32: "<i", FLOAT: "<f", BOOL: "<?"}[kind], v)


def entry(key, kind, v):
    if isinstance(v, list):
        return text(key) + struct.pack("<IIQ", ARRAY, kind, len(v)) + b"".join(value(kind, x) for x in v)
    return text(key) + struct.pack("<I", kind) + value(kind, v)


def metadata(vocabulary, shape, kind, context, template):
    n = len(vocabulary.tokens)
    rows = [
        ("general.architecture", STRING, "llama"),
        ("general.name", STRING, "tiny test model"),
        ("general.file_type", U32, {F32: 0, F16: 1, Q8_0: 7}[kind]),
        ("llama.context_length", U32, context),
        ("llama.embedding_length", U32, shape.width),
        ("llama.block_count", U32, shape.layers),
        ("llama.feed_forward_length", U32, shape.ffn),
        ("llama.attention.head_count", U32, shape.heads),
        ("llama.attention.head_count_kv", U32, shape.kv_heads),
        ("llama.attention.layer_norm_rms_epsilon", FLOAT, 1e-5),
        ("llama.rope.dimension_count", U32, shape.head_dim),
        ("llama.rope.freq_base", FLOAT, 10000.0),
        ("llama.vocab_size", U32, n),
        ("tokenizer.ggml.model", STRING, "gpt2"),
        ("tokenizer.ggml.pre", STRING, "gpt-2"),
        ("tokenizer.ggml.tokens", STRING, vocabulary.tokens),
        ("tokenizer.ggml.token_type", I32, [CONTROL] * len(SPECIAL) + [NORMAL] * (n - len(SPECIAL))),
        ("tokenizer.ggml.merges", STRING, vocabulary.merges),
        ("tokenizer.ggml.bos_token_id", U32, 0),
        ("tokenizer.ggml.eos_token_id", U32, 1),
        ("tokenizer.ggml.eot_token_id", U32, EOT),
        ("tokenizer.ggml.add_bos_token", BOOL, True),
    ]
    if template:
        rows.append(("tokenizer.chat_template", STRING, CHATML))
    return rows


def write_gguf(path, rows, weights, kind, align=32):
    infos, blobs, offset = [], [], 0
    for name, a in weights.items():
        t = F32 if a.ndim == 1 else kind
        blob = encode_tensor(a, t)
        dims = a.shape[::-1]
        infos.append(text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, t, offset))
        blobs.append(blob + b"\0" * (-len(blob) % align))
        offset += len(blobs[-1])
    head = b"GGUF" + struct.pack("<IQQ", 3, len(weights), len(rows))
    head += b"".join(entry(*r) for r in rows) + b"".join(infos)
    with open(path, "wb") as f:
        f.write(head + b"\0" * (-len(head) % align))
        f.writelines(blobs)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("out")
    p.add_argument("--type", choices=["f32", "f16", "q8_0"], default="f16")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--slow", action="store_true", help="12 layers of width 512: tens of milliseconds per token")
    p.add_argument("--context", type=int, default=2048, help="the context length it claims to be trained for")
    p.add_argument("--eos", type=float, default=0.05, help="how readily a sentence ends the answer (0: never)")
    p.add_argument("--no-template", action="store_true", help="leave the chat template out")
    p.add_argument("--embedding", action="store_true", help="a BERT, which makes vectors and no text")
    a = p.parse_args()
    kind = {"f32": F32, "f16": F16, "q8_0": Q8_0}[a.type]
    vocabulary, shape = Vocabulary(), Shape(a.slow)
    weights = make_weights(vocabulary, shape, np.random.default_rng(a.seed), a.eos)
    rows = metadata(vocabulary, shape, kind, a.context, not a.no_template)
    if a.embedding:
        weights, rows = as_embedding_model(weights, rows, a.context, np.random.default_rng(a.seed))
    write_gguf(a.out, rows, weights, kind)


if __name__ == "__main__":
    main()
