"""The demo language model: a small transformer of the llama architecture, in PyTorch.

Computes exactly what libllama computes for general.architecture = llama: RMSNorm, rotary positions on neighbouring
pairs, causal attention, SwiGLU, and an output head that shares the embedding.
"""
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

EPSILON = 1e-5
ROPE_BASE = 10000.0


@dataclass(frozen=True)
class Shape:
    """Every size of the network; the names are those that the GGUF's metadata is written from."""

    vocabulary: int
    width: int = 192
    layers: int = 4
    heads: int = 6
    ffn: int = 512
    context: int = 512

    @property
    def kv_heads(self):
        return self.heads

    @property
    def head_dim(self):
        return self.width // self.heads


class RMSNorm(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x):
        x = x.float()
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + EPSILON) * self.weight


def rotations(s):
    """Two tables [context, 2 * heads, head_dim] by which queries and keys are turned, and the matrix that swaps pairs.

    Dimensions 2i and 2i + 1 turn together. The queries' part also holds attention's scale: a product less.
    """
    frequencies = ROPE_BASE ** (-torch.arange(0, s.head_dim, 2).double() / s.head_dim)
    angles = (torch.arange(s.context).double()[:, None] * frequencies).repeat_interleave(2, -1)
    scale = torch.ones(2 * s.heads, 1, dtype=torch.double)
    scale[:s.heads] = s.head_dim ** -0.5
    swap = torch.zeros(s.head_dim, s.head_dim)
    for i in range(0, s.head_dim, 2):
        swap[i, i + 1], swap[i + 1, i] = -1, 1
    return [(t[:, None] * scale).float() for t in (angles.cos(), angles.sin())] + [swap]


class Block(nn.Module):
    def __init__(self, s):
        super().__init__()
        self.heads = s.heads
        self.attn_norm, self.ffn_norm = RMSNorm(s.width), RMSNorm(s.width)
        self.attn_qkv = nn.Linear(s.width, 3 * s.width, bias=False)
        self.attn_output = nn.Linear(s.width, s.width, bias=False)
        self.ffn_gate_up = nn.Linear(s.width, 2 * s.ffn, bias=False)
        self.ffn_down = nn.Linear(s.ffn, s.width, bias=False)

    def forward(self, x, turn, mask):
        """x: [batch, length, width]; turn: rotations' tables; mask: [length, length], 0 or -inf."""
        x = x + self._attention(self.attn_norm(x), turn, mask)
        gate, up = self.ffn_gate_up(self.ffn_norm(x)).chunk(2, -1)
        return x + self.ffn_down(F.silu(gate) * up)

    def _attention(self, x, turn, mask):
        batch, length, width = x.shape
        cos, sin, swap = turn
        qk, v = self.attn_qkv(x).view(batch, length, 3 * self.heads, -1).split((2 * self.heads, self.heads), 2)
        qk = (qk * cos.to(qk.dtype) + F.linear(qk, swap) * sin.to(qk.dtype)).transpose(1, 2)
        q, k = qk.chunk(2, 1)
        scores = q @ k.transpose(-1, -2)
        weights = torch.softmax(scores + mask.to(scores.dtype), -1).to(v.dtype)
        return self.attn_output((weights @ v.transpose(1, 2)).transpose(1, 2).reshape(batch, length, width))


class Network(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.shape = shape
        self.token_embd = nn.Embedding(shape.vocabulary, shape.width)
        self.blk = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.output_norm = RMSNorm(shape.width)
        mask = torch.full((shape.context, shape.context), -torch.inf).triu(1)
        for name, table in zip(("cos", "sin", "swap", "mask"), rotations(shape) + [mask]):
            self.register_buffer(name, table, persistent=False)

    def hidden(self, ids):
        """ids [batch, length] -> what the output head reads [batch, length, width]."""
        n = ids.shape[1]
        x = self.token_embd(ids)
        for block in self.blk:
            x = block(x, (self.cos[:n], self.sin[:n], self.swap), self.mask[:n, :n])
        return self.output_norm(x)

    def logits(self, hidden):
        """[..., width] -> [..., vocabulary]"""
        return F.linear(hidden, self.token_embd.weight)

    @torch.no_grad()
    def greedy(self, ids, limit, end):
        """The likeliest continuation of a list of ids, without `end`; computes everything anew for each token."""
        out = []
        while len(out) < limit and len(ids) + len(out) < self.shape.context:
            best = int(self.logits(self.hidden(torch.tensor([ids + out]))[0, -1]).argmax())
            if best == end:
                break
            out.append(best)
        return out
