"""Faster ways through the networks of tools/ref/networks.py on a CPU: kernels.c behind autograd, in bfloat16.

`speed_up(module)` changes a network in place; with CUDA, or without a C compiler, the networks stay as they are."""
import ctypes
import os
import subprocess
import sys
import tempfile
import time

import torch
import torch.nn.functional as F
from torch import nn

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "tools", "ref"))
import networks  # noqa: E402

FLAGS = ["-O3", "-march=native", "-mprefer-vector-width=512", "-ffast-math", "-fopenmp", "-shared", "-fPIC"]
_library = None
# Large tensors come from the heap and stay in it: fresh pages for each of them would cost more than the sums.
_libc = ctypes.CDLL(None)
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # glibc's malloc.h
_libc.mallopt(M_MMAP_MAX, 0)
_libc.mallopt(M_TRIM_THRESHOLD, -1)


def library():
    """kernels.c, compiled for this processor once a process."""
    global _library
    if not _library:
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "kernels.so")
            subprocess.run(["cc", *FLAGS, os.path.join(HERE, "kernels.c"), "-o", path, "-lm"], check=True)
            _library = ctypes.CDLL(path)
    return _library


def call(name, *arguments):
    """Tensors go as pointers, numbers as C's int or float."""
    kinds = {int: ctypes.c_int, bool: ctypes.c_int, float: ctypes.c_float}
    getattr(library(), name)(*(ctypes.c_void_p(a.data_ptr()) if torch.is_tensor(a) else
                               kinds[type(a)](a) for a in arguments))


def pixels_last(x):
    """[n, c, h, w] bfloat16 whose memory is [n, h, w, c]; sequences [n, t, c] just contiguous."""
    x = x.to(torch.bfloat16)
    return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x.contiguous()


class GroupNormFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, gamma, beta, groups, eps, silu):
        x = pixels_last(x)
        n, c, h, w = x.shape
        y = torch.empty_like(x)
        mean, rstd = torch.empty(n, groups), torch.empty(n, groups)
        call("group_norm_forward", x, gamma, beta, y, mean, rstd, n, h * w, c, groups, eps, silu)
        ctx.save_for_backward(x, gamma, beta, mean, rstd)
        ctx.groups, ctx.silu = groups, silu
        return y

    @staticmethod
    def backward(ctx, dy):
        x, gamma, beta, mean, rstd = ctx.saved_tensors
        n, c, h, w = x.shape
        dy, dx = pixels_last(dy), torch.empty_like(x)
        dgamma, dbeta = torch.empty(n, c), torch.empty(n, c)
        call("group_norm_backward", x, dy, gamma, beta, mean, rstd, dx, dgamma, dbeta, n, h * w, c, ctx.groups,
             ctx.silu)
        return dx, dgamma.sum(0), dbeta.sum(0), None, None, None


class LayerNormFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, gamma, beta, eps):
        x = pixels_last(x)
        y, c = torch.empty_like(x), x.shape[-1]
        rows = x.numel() // c
        mean, rstd = torch.empty(rows), torch.empty(rows)
        call("layer_norm_forward", x, gamma, beta, y, mean, rstd, rows, c, eps)
        ctx.save_for_backward(x, gamma, mean, rstd)
        return y

    @staticmethod
    def backward(ctx, dy):
        x, gamma, mean, rstd = ctx.saved_tensors
        dx, c = torch.empty_like(x), x.shape[-1]
        dgamma, dbeta = torch.zeros(c), torch.zeros(c)
        call("layer_norm_backward", x, pixels_last(dy), gamma, mean, rstd, dx, dgamma, dbeta, x.numel() // c, c)
        return dx, dgamma, dbeta, None


class GegluFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        x = pixels_last(x)
        y = torch.empty(*x.shape[:-1], x.shape[-1] // 2, dtype=torch.bfloat16)
        call("geglu_forward", x, y, y.numel() // y.shape[-1], y.shape[-1])
        ctx.save_for_backward(x)
        return y

    @staticmethod
    def backward(ctx, dy):
        x, = ctx.saved_tensors
        dx = torch.empty_like(x)
        call("geglu_backward", x, pixels_last(dy), dx, dy.numel() // dy.shape[-1], dy.shape[-1])
        return dx


class AttentionFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, k, v, heads, causal):
        q, k, v = pixels_last(q), pixels_last(k), pixels_last(v)
        out = torch.empty_like(q)
        ctx.shape = (q.shape[0], heads, q.shape[1], k.shape[1], q.shape[2] // heads, causal)
        call("attention_forward", q, k, v, out, *ctx.shape)
        ctx.save_for_backward(q, k, v)
        return out

    @staticmethod
    def backward(ctx, dout):
        q, k, v = ctx.saved_tensors
        dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        call("attention_backward", q, k, v, pixels_last(dout), dq, dk, dv, *ctx.shape)
        return dq, dk, dv, None, None


class FastGroupNorm(nn.GroupNorm):
    silu = False

    def forward(self, x):
        return GroupNormFunction.apply(x, self.weight, self.bias, self.num_groups, self.eps, self.silu)


class FastLayerNorm(nn.LayerNorm):
    def forward(self, x):
        return LayerNormFunction.apply(x, self.weight, self.bias, self.eps)


def float_convolution(self, x):
    """A convolution in float32; what goes on from it is bfloat16."""
    with torch.autocast("cpu", enabled=False):
        return F.conv2d(x.float(), self.weight, self.bias, self.stride, self.padding).bfloat16()


def seconds_of_convolution(kind):
    x = torch.ones(16, 64, 16, 16, dtype=kind).contiguous(memory_format=torch.channels_last)
    w = torch.ones(64, 64, 3, 3, dtype=kind)
    F.conv2d(x, w)
    start = time.perf_counter()
    for _ in range(10):
        F.conv2d(x, w)
    return time.perf_counter() - start


def float_is_faster():
    """Processors that do bfloat16 products at half the rate of float32 ones exist: those whose matrix unit (AMX) is
    hidden by a virtual machine."""
    return seconds_of_convolution(torch.float32) < seconds_of_convolution(torch.bfloat16)


def fast_attention(q, k, v, heads, causal=False):
    return AttentionFunction.apply(q, k, v, heads, causal)


def geglu_forward(self, x):
    return GegluFunction.apply(self.proj(x))


def fast_norm_silu(norm, x):
    return GroupNormFunction.apply(x, norm.weight, norm.bias, norm.num_groups, norm.eps, True)


def speed_up(module):
    """Group norms (with the SiLU that follows) and attention of this network go through kernels.c from now on."""
    networks.attention = fast_attention
    networks.GEGLU.forward = geglu_forward
    networks.norm_silu = fast_norm_silu
    if float_is_faster():
        nn.Conv2d.forward = float_convolution
    for part in module.modules():
        if isinstance(part, nn.GroupNorm):
            part.__class__ = FastGroupNorm
        elif isinstance(part, nn.LayerNorm):
            part.__class__ = FastLayerNorm
    for part in module.modules():
        if isinstance(part, nn.Sequential) and not isinstance(part, networks.Stage):
            for i in range(len(part) - 1):
                if isinstance(part[i], FastGroupNorm) and isinstance(part[i + 1], nn.SiLU):
                    part[i].silu, part[i + 1] = True, nn.Identity()
    return module
