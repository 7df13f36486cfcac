"""A faster way through network.py in training on a CPU: kernels.c behind autograd, in bfloat16.

The same weights and, up to bfloat16's rounding, the same numbers as Network; `python3 fast.py` compares loss and
gradients.
"""
import ctypes
import subprocess
import tempfile
from pathlib import Path

import torch
from torch.nn import functional as F

from network import EPSILON, ROPE_BASE

FLAGS = ["-O3", "-march=native", "-mprefer-vector-width=512", "-ffast-math", "-shared", "-fPIC"]
_library = None


def library():
    """kernels.c, compiled for this processor once a process; None without a C compiler."""
    global _library
    if _library is None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "kernels.so"
            source = Path(__file__).with_name("kernels.c")
            subprocess.run(["cc", *FLAGS, str(source), "-o", str(path), "-lm"], check=True)
            _library = ctypes.CDLL(str(path))
            _library.cross_entropy.restype = ctypes.c_float
    return _library


def call(name, *arguments):
    """Tensors go as pointers, numbers as C's int or float."""
    kinds = {int: ctypes.c_int, float: ctypes.c_float}
    values = (ctypes.c_void_p(a.data_ptr()) if torch.is_tensor(a) else kinds[type(a)](a) for a in arguments)
    return getattr(library(), name)(*values)


def half(x):
    return x.to(torch.bfloat16).contiguous()


class AddNorm(torch.autograd.Function):
    """(x, delta, weight) -> (x + delta, its RMS norm)"""

    @staticmethod
    def forward(ctx, x, delta, weight):
        rows, c = x.shape
        total, y, rstd = torch.empty_like(x), torch.empty(x.shape, dtype=torch.bfloat16), torch.empty(rows)
        call("add_norm_forward", x, delta, weight, total, y, rstd, rows, c, EPSILON)
        ctx.save_for_backward(total, weight, rstd)
        return total, y

    @staticmethod
    def backward(ctx, dtotal, dy):
        total, weight, rstd = ctx.saved_tensors
        dx, dweight = torch.empty_like(total), torch.empty_like(weight)
        ddelta = torch.empty(total.shape, dtype=torch.bfloat16)
        call("add_norm_backward", dtotal.contiguous(), half(dy), total, weight, rstd, dx, ddelta, dweight, *total.shape)
        return dx, ddelta, dweight


class Attention(torch.autograd.Function):
    """qkv [batch, length, 3 * width] -> what the heads found [batch, length, width]"""

    @staticmethod
    def forward(ctx, qkv, cosine, sine, heads):
        batch, t, three = qkv.shape
        d = three // 3 // heads
        q, k, v = (torch.empty(batch * heads, t, d, dtype=torch.bfloat16) for _ in range(3))
        call("split_forward", qkv, cosine, sine, q, k, v, batch, t, heads, d, d ** -0.5)
        weights = q @ k.transpose(1, 2)
        call("softmax_forward", weights, batch * heads, t)
        out = torch.empty(batch, t, heads * d, dtype=torch.bfloat16)
        call("swap_axes", weights @ v, out, batch, heads, t, d)
        ctx.save_for_backward(q, k, v, weights, cosine, sine)
        ctx.sizes = batch, t, heads, d
        return out

    @staticmethod
    def backward(ctx, dout):
        q, k, v, weights, cosine, sine = ctx.saved_tensors
        batch, t, heads, d = ctx.sizes
        dheads = torch.empty_like(q)
        call("swap_axes", half(dout), dheads, batch, t, heads, d)
        dv = weights.transpose(1, 2) @ dheads
        dscores = dheads @ v.transpose(1, 2)
        call("softmax_backward", weights, dscores, batch * heads, t)
        dq, dk = dscores @ k, dscores.transpose(1, 2) @ q
        dqkv = torch.empty(batch, t, 3 * heads * d, dtype=torch.bfloat16)
        call("split_backward", dqkv, cosine, sine, dq, dk, dv, batch, t, heads, d, d ** -0.5)
        return dqkv, None, None, None


class SwiGLU(torch.autograd.Function):
    """[rows, 2 * ffn] -> [rows, ffn]"""

    @staticmethod
    def forward(ctx, x):
        rows, f = x.shape[0], x.shape[1] // 2
        y = torch.empty(rows, f, dtype=torch.bfloat16)
        call("swiglu_forward", x, y, rows, f)
        ctx.save_for_backward(x)
        return y

    @staticmethod
    def backward(ctx, dy):
        x, = ctx.saved_tensors
        dx = torch.empty_like(x)
        call("swiglu_backward", x, half(dy), dx, x.shape[0], x.shape[1] // 2)
        return dx


class CrossEntropy(torch.autograd.Function):
    """(logits [rows, vocabulary], targets, weights [rows]) -> mean loss; the logits become their gradient."""

    @staticmethod
    def forward(ctx, logits, targets, weights):
        ctx.save_for_backward(logits)
        rows, v = logits.shape
        return torch.tensor(call("cross_entropy", logits, targets, weights, rows, v))

    @staticmethod
    def backward(ctx, dloss):
        return ctx.saved_tensors[0] * dloss.to(torch.bfloat16), None, None


def linear(x, layer):
    return F.linear(x, layer.weight.to(torch.bfloat16))


def tables(shape, length):
    """cos and sin [length, head_dim / 2] of the rotary positions."""
    frequencies = ROPE_BASE ** (-torch.arange(0, shape.head_dim, 2).double() / shape.head_dim)
    angles = torch.arange(length).double()[:, None] * frequencies
    return angles.cos().float(), angles.sin().float()


def hidden(network, ids):
    """Network.hidden for training: [batch * length, width] in bfloat16."""
    batch, length = ids.shape
    cosine, sine = tables(network.shape, length)
    x = network.token_embd(ids).flatten(0, 1)
    delta = torch.zeros(x.shape, dtype=torch.bfloat16)
    for block in network.blk:
        x, y = AddNorm.apply(x, delta, block.attn_norm.weight)
        qkv = linear(y, block.attn_qkv).view(batch, length, -1)
        delta = linear(Attention.apply(qkv, cosine, sine, network.shape.heads).flatten(0, 1), block.attn_output)
        x, y = AddNorm.apply(x, delta, block.ffn_norm.weight)
        delta = linear(SwiGLU.apply(linear(y, block.ffn_gate_up)), block.ffn_down)
    return AddNorm.apply(x, delta, network.output_norm.weight)[1]


def loss(network, ids, said, targets, weights):
    """Weighted cross entropy at the flat positions `said` of ids [batch, length]; targets and weights are theirs."""
    return CrossEntropy.apply(linear(hidden(network, ids)[said], network.token_embd), targets, weights)


def compare():
    """Prints how far loss and gradients are from the plain network's in float."""
    from network import Network, Shape
    torch.manual_seed(0)
    network = Network(Shape(vocabulary=512, width=128, layers=3, heads=4, ffn=256, context=64))
    torch.nn.init.normal_(network.token_embd.weight, std=0.05)
    for norm in (m for m in network.modules() if type(m).__name__ == "RMSNorm"):
        torch.nn.init.uniform_(norm.weight, 0.5, 1.5)
    ids, said = torch.randint(0, 512, (4, 48)), torch.randperm(192)[:100]
    targets, weights = torch.randint(0, 512, (100,)), torch.rand(100).clamp(min=0.2) - 0.2
    weights /= weights.sum()
    losses = F.cross_entropy(network.logits(network.hidden(ids).flatten(0, 1)[said]), targets, reduction="none")
    wanted = (losses * weights).sum()
    wanted.backward()
    gradients = {n: p.grad.clone() for n, p in network.named_parameters()}
    network.zero_grad()
    got = loss(network, ids, said, targets, weights)
    got.backward()
    print(f"loss {float(wanted):.5f} {float(got):.5f}")
    worst = max(float((p.grad - gradients[n]).norm() / gradients[n].norm()) for n, p in network.named_parameters())
    print(f"largest relative error of a gradient {worst:.4f}")
    assert abs(float(wanted) - float(got)) < 0.01 and worst < 0.05


if __name__ == "__main__":
    compare()
