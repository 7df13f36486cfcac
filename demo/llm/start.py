"""The weights that training starts from: random, but with a circuit for copying laid in.

Attention learns to copy late: a head must first find the previous token before another one can look for "what came
behind this token last time" (Olsson et al. 2022, "In-context learning and induction heads"). Here both heads are there
from the beginning, roughly, and training makes use of them; without them it takes several times as many steps.

The residual stream begins with [constant | token | nothing]: one dimension that is the same for all tokens, TOKEN
dimensions that tell them apart, the rest free. Layer 0 writes what the previous token was into the free part; layer 1
looks for places where that equals the present token and adds the token that stands there.
"""
import torch

TOKEN = 127
SPREAD = 0.25  # standard deviation of the token's part
CONSTANT = 0.5
PREVIOUS_HEADS, COPYING_HEADS = 2, 4
NEAR = (9.0, 6.0, 3.0)  # how strongly the fastest rotations prefer the previous place
SLOW_PAIR = 6  # from here on a head's pairs turn slowly enough to compare contents
MATCH = 10.0  # attention's score where previous and present token are equal
LOUD = 1.0  # how much of the found token is added


@torch.no_grad()
def initialise(network, rope_base):
    """Sets all weights of a Network."""
    s = network.shape
    _quiet(network)
    network.token_embd.weight[:, 1 + TOKEN:] *= 0.1
    network.token_embd.weight[:, 0] = CONSTANT
    rms = ((CONSTANT ** 2 + TOKEN * SPREAD ** 2) / s.width) ** 0.5  # what the norm divides by
    signature = torch.randn(s.width - 1 - TOKEN, TOKEN) / TOKEN ** 0.5
    _previous(network.blk[0], s, rope_base, signature, rms)
    _copying(network.blk[1], s, signature, rms)
    network.output_norm.weight.fill_(0.3)


def _quiet(network):
    """Random weights, and layers that add nothing yet."""
    network.token_embd.weight.normal_(std=SPREAD)
    for block in network.blk:
        for layer, size in ((block.attn_qkv, 0.5), (block.ffn_gate_up, 1.0)):
            layer.weight.normal_(std=size * layer.in_features ** -0.5)
            layer.weight[:, 0] = 0  # the constant would drown what differs
        block.attn_output.weight.zero_()
        block.ffn_down.weight.zero_()


def _rows(s, part, head):
    """Rows of attn_qkv for part 0, 1, 2 (q, k, v) of a head."""
    at = (part * s.heads + head) * s.head_dim
    return slice(at, at + s.head_dim)


def _previous(block, s, rope_base, signature, rms):
    """Heads that look one place back and write that token's signature into the free dimensions."""
    qkv, out = block.attn_qkv.weight, block.attn_output.weight
    for head in range(PREVIOUS_HEADS):
        q, k, v = (qkv[_rows(s, part, head)] for part in range(3))
        q.zero_(), k.zero_(), v.zero_()
        for i, strength in enumerate(NEAR):
            size = (strength * s.head_dim ** 0.5) ** 0.5 * rms / CONSTANT
            turn = torch.tensor(rope_base ** (-2 * i / s.head_dim))
            q[2 * i, 0] = size
            k[2 * i, 0], k[2 * i + 1, 0] = size * turn.cos(), size * turn.sin()
        mine = signature[head * s.head_dim:(head + 1) * s.head_dim]
        v[:len(mine), 1:1 + TOKEN] = mine
        first = 1 + TOKEN + head * s.head_dim
        for i in range(len(mine)):
            out[first + i, head * s.head_dim + i] = 0.5


def _copying(block, s, signature, rms):
    """Heads that find where the previous token equals the present one and add the token there."""
    qkv, out = block.attn_qkv.weight, block.attn_output.weight
    basis = torch.linalg.qr(torch.randn(COPYING_HEADS * s.head_dim, TOKEN)).Q
    for head in range(COPYING_HEADS):
        q, k, v = (qkv[_rows(s, part, head)] for part in range(3))
        q.zero_(), k.zero_()
        slow = slice(2 * SLOW_PAIR, s.head_dim)
        count = s.head_dim - 2 * SLOW_PAIR
        look = torch.randn(count, len(signature)) / count ** 0.5
        size = (MATCH * s.head_dim ** 0.5 / TOKEN) ** 0.5 * 1.6
        q[slow, 1:1 + TOKEN] = look @ signature * size
        k[slow, 1 + TOKEN:] = look * size
        mine = slice(head * s.head_dim, (head + 1) * s.head_dim)
        v.zero_()
        v[:, 1:1 + TOKEN] = basis[mine]
        out[1:1 + TOKEN, mine] = LOUD * basis[mine].t()
