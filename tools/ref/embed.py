#!/usr/bin/env python3
"""Vectors of a tiny language model (tools/make_tiny_llm.py) for given tokens, from its GGUF file with PyTorch alone: embed.py
MODEL.gguf < [[1, 2, 3], ...] > [[0.1, ...], ...]. The llama architecture (Touvron et al. 2023), whose vector is the mean of
what the last norm gives, and BERT (Devlin et al. 2018), whose file says that it is the mean as well. Length 1."""
import json
import struct
import sys

import numpy as np
import torch
from torch.nn import functional as F

SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}


class Gguf:
    def __init__(self, path):
        self.data, self.at = open(path, "rb").read(), 24
        _, _, tensors, rows = struct.unpack("<4sIQQ", self.data[:24])
        self.meta = {self.text(): self.value(self.number("<I")) for _ in range(rows)}
        infos = [(self.text(), [self.number("<Q") for _ in range(self.number("<I"))], self.number("<I"), self.number("<Q")) for _ in range(tensors)]
        start = -(-self.at // 32) * 32
        self.tensors = {}
        for name, dims, kind, offset in infos:
            kind = {0: "<f4", 1: "<f2"}[kind]
            a = np.frombuffer(self.data, kind, int(np.prod(dims)), start + offset).reshape(dims[::-1])
            self.tensors[name] = torch.tensor(a.astype(np.float32))

    def number(self, form):
        v = struct.unpack_from(form, self.data, self.at)[0]
        self.at += struct.calcsize(form)
        return v

    def text(self):
        n = self.number("<Q")
        self.at += n
        return self.data[self.at - n:self.at].decode()

    def value(self, kind):
        if kind == 8:
            return self.text()
        if kind == 9:
            kind = self.number("<I")
            return [self.value(kind) for _ in range(self.number("<Q"))]
        return self.number(SCALARS[kind])


def heads(x, n):
    return x.view(x.shape[0], n, -1).transpose(0, 1)


def attention(q, k, v, causal):
    scores = q @ k.transpose(1, 2) / q.shape[2] ** 0.5
    if causal:
        scores = scores.masked_fill(torch.ones(scores.shape[1:]).triu(1).bool(), float("-inf"))
    return (scores.softmax(-1) @ v).transpose(0, 1).flatten(1)


def rotate(x, base):
    """Rotary positions over neighbouring pairs."""
    n, d = x.shape[1], x.shape[2]
    angle = torch.arange(n)[:, None] * base ** (-torch.arange(0, d, 2) / d)[None]
    a, b = x[..., 0::2], x[..., 1::2]
    return torch.stack([a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()], -1).flatten(-2)


def llama(g, ids):
    w, m = g.tensors, lambda k: g.meta["llama." + k]
    n_head, n_kv, eps = m("attention.head_count"), m("attention.head_count_kv"), m("attention.layer_norm_rms_epsilon")
    norm = lambda x, name: x / (x.pow(2).mean(-1, keepdim=True) + eps).sqrt() * w[name + ".weight"]
    x = w["token_embd.weight"][ids]
    for i in range(m("block_count")):
        part = lambda name: w[f"blk.{i}.{name}.weight"]
        y = norm(x, f"blk.{i}.attn_norm")
        q, k, v = (heads(y @ part("attn_" + p).T, n) for p, n in (("q", n_head), ("k", n_kv), ("v", n_kv)))
        q, k = rotate(q, m("rope.freq_base")), rotate(k, m("rope.freq_base"))
        k, v = (t.repeat_interleave(n_head // n_kv, 0) for t in (k, v))
        y = attention(q, k, v, causal=True)
        x = x + y @ part("attn_output").T
        y = norm(x, f"blk.{i}.ffn_norm")
        x = x + (F.silu(y @ part("ffn_gate").T) * (y @ part("ffn_up").T)) @ part("ffn_down").T
    return norm(x, "output_norm")


def bert(g, ids):
    w, m = g.tensors, lambda k: g.meta["bert." + k]
    norm = lambda x, name: F.layer_norm(x, x.shape[-1:], w[name + ".weight"], w[name + ".bias"], m("attention.layer_norm_epsilon"))
    x = norm(w["token_embd.weight"][ids] + w["position_embd.weight"][: len(ids)], "token_embd_norm")
    for i in range(m("block_count")):
        part = lambda name: w[f"blk.{i}.{name}.weight"]
        q, k, v = (heads(x @ part("attn_" + p).T, m("attention.head_count")) for p in "qkv")
        y = attention(q, k, v, causal=False)
        x = norm(x + y @ part("attn_output").T, f"blk.{i}.attn_output_norm")
        x = norm(x + F.gelu(x @ part("ffn_up").T) @ part("ffn_down").T, f"blk.{i}.layer_output_norm")
    return x


def main():
    g = Gguf(sys.argv[1])
    forward = {"llama": llama, "bert": bert}[g.meta["general.architecture"]]
    vectors = [F.normalize(forward(g, torch.tensor(ids)).double().mean(0), dim=0).tolist() for ids in json.load(sys.stdin)]
    json.dump(vectors, sys.stdout)


if __name__ == "__main__":
    with torch.no_grad():
        main()
