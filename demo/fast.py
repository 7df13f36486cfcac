"""Faster ways through the networks of tools/ref/networks.py on a CPU: kernels.c behind autograd, in bfloat16.

`speed_up(module)` changes a network in place; with CUDA, or without a C compiler, the networks stay as they are."""
import ctypes
import os
import subprocess
import sys
import tempfile

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


def in_memory(p):
    """A convolution's weight as it lies in memory, with the input channels last; other parameters as they are."""
    return p.permute(0, 2, 3, 1) if p.dim() == 4 else p


def back(p):
    return p.permute(0, 3, 1, 2) if p.dim() == 4 else p


def orthogonal(m):
    """[count, rows, columns] bfloat16, rows <= columns -> about the nearest matrices with orthonormal rows, by five
    steps of a Newton-Schulz iteration (Jordan et al. 2024, Muon)."""
    x = m / (m.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        gram = x @ x.transpose(1, 2)
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * (gram @ gram)) @ x
    return x


class Muon:
    """Momentum made orthogonal for matrices (Muon), Adam for everything else, and a moving average of all weights.

    Weights and gradients lie end to end; matrices of one shape lie together and are worked on together. A convolution's
    weight counts as a matrix of output channels by everything else."""

    def __init__(self, parameters, ema_decay):
        parameters = [p for p in parameters if p.requires_grad]
        shapes = {}
        for p in parameters:
            shapes.setdefault(matrix_shape(p), []).append(p)
        vectors = shapes.pop(None, [])
        count = sum(p.numel() for p in parameters)
        self.w, self.g, self.m = (torch.zeros(count, device=parameters[0].device) for _ in range(3))
        self.step_count, self.ema_decay, at, self.groups = 0, ema_decay, 0, []
        for shape, group in [*shapes.items(), (None, vectors)]:
            start = at
            for p in group:
                kept = in_memory(p.data)
                span = slice(at, at + p.numel())
                self.w[span] = kept.reshape(-1)
                p.data, p.grad = (back(part[span].view(kept.shape)) for part in (self.w, self.g))
                at += p.numel()
            if shape:
                self.groups.append((slice(start, at), (len(group), *shape)))
            else:
                self.rest = slice(start, at)
        self.v, self.ema = torch.zeros_like(self.w[self.rest]), self.w.clone()

    def step(self, lr, momentum=0.95, matrix_lr=10.0, clip=1.0):
        """Applies the gradients and clears them; lr is Adam's, the matrices' is matrix_lr times that. Returns the norm
        of the gradients."""
        norm = float(self.g.norm())
        self.step_count += 1
        ema = min(self.ema_decay, (1 + self.step_count) / (10 + self.step_count))
        before = self.rest.start
        self.m[:before].mul_(momentum).add_(self.g[:before])
        for span, shape in self.groups:
            update = (self.g[span] + momentum * self.m[span]).view(shape).bfloat16()
            wide = shape[1] <= shape[2]
            update = orthogonal(update) if wide else orthogonal(update.transpose(1, 2).contiguous()).transpose(1, 2)
            gain = max(1.0, shape[1] / shape[2]) ** 0.5
            self.w[span].view(shape).sub_(update.float(), alpha=lr * matrix_lr * gain)
        self.adam(self.g[self.rest] * min(1.0, clip / (norm + 1e-6)), lr)
        self.ema.lerp_(self.w, 1 - ema)
        self.g.zero_()
        return norm

    def adam(self, g, lr, beta1=0.9, beta2=0.99):
        """Kingma & Ba 2015, without weight decay; for what is no matrix."""
        m = self.m[self.rest].lerp_(g, 1 - beta1)
        self.v.lerp_(g * g, 1 - beta2)
        size = (self.v / (1 - beta2**self.step_count)).sqrt_().add_(1e-8)
        self.w[self.rest].addcdiv_(m, size, value=-lr / (1 - beta1**self.step_count))

    def state(self):
        return dict(w=self.w, m=self.m, v=self.v, ema=self.ema, step=self.step_count)

    def load(self, state):
        for name in ("w", "m", "v", "ema"):
            getattr(self, name).copy_(state[name])
        self.step_count = state["step"]

    def with_average(self):
        """Within `with`, the parameters hold their moving average."""
        return Swapped(self)


def matrix_shape(p):
    """(rows, columns) of what Muon works on; None for vectors, embeddings and very small matrices."""
    if p.dim() < 2 or len(p) > 4096:
        return None
    rows, columns = len(p), p[0].numel()
    return (rows, columns) if min(rows, columns) >= 16 else None


class Swapped:
    def __init__(self, optimizer):
        self.optimizer = optimizer

    def __enter__(self):
        self.kept = self.optimizer.w.clone()
        self.optimizer.w.copy_(self.optimizer.ema)

    def __exit__(self, *_):
        self.optimizer.w.copy_(self.kept)
