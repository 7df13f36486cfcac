"""Stable Diffusion 1.x's networks in plain PyTorch, written from the papers (Rombach et al. 2022; Radford et al. 2021) with
the original checkpoint's parameter names, as an independent reference. Shapes are arguments throughout."""
import math

import torch
import torch.nn.functional as F
from torch import nn


# --- UNet -------------------------------------------------------------------------------------------------------------


def timestep_embedding(t, dim):
    half = dim // 2
    freqs = torch.exp(-math.log(10000) * torch.arange(half, dtype=torch.float64) / half)
    args = t.double()[:, None] * freqs[None]
    return torch.cat([torch.cos(args), torch.sin(args)], dim=-1).float()


class UNetResnet(nn.Module):
    def __init__(self, i, o, emb):
        super().__init__()
        self.in_layers = nn.Sequential(nn.GroupNorm(32, i, eps=1e-5), nn.SiLU(), nn.Conv2d(i, o, 3, padding=1))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(emb, o))
        self.out_layers = nn.Sequential(nn.GroupNorm(32, o, eps=1e-5), nn.SiLU(), nn.Identity(),
                                        nn.Conv2d(o, o, 3, padding=1))
        if i != o:
            self.skip_connection = nn.Conv2d(i, o, 1)

    def forward(self, x, emb):
        h = self.in_layers(x) + self.emb_layers(emb)[:, :, None, None]
        skip = self.skip_connection(x) if hasattr(self, "skip_connection") else x
        return skip + self.out_layers(h)


class CrossAttention(nn.Module):
    def __init__(self, c, context, heads):
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(c, c, bias=False)
        self.to_k = nn.Linear(context, c, bias=False)
        self.to_v = nn.Linear(context, c, bias=False)
        self.to_out = nn.Sequential(nn.Linear(c, c), nn.Identity())

    def forward(self, x, context):
        return self.to_out(attention(self.to_q(x), self.to_k(context), self.to_v(context), self.heads))


def attention(q, k, v, heads, causal=False):
    n, tq, c = q.shape
    q, k, v = (y.reshape(n, -1, heads, c // heads).transpose(1, 2) for y in (q, k, v))
    scores = q @ k.transpose(-1, -2) / math.sqrt(c // heads)
    if causal:
        scores = scores.masked_fill(torch.ones(tq, tq, dtype=torch.bool).triu(1), -math.inf)
    return (scores.softmax(-1) @ v).transpose(1, 2).reshape(n, tq, c)


class GEGLU(nn.Module):
    def __init__(self, i, o):
        super().__init__()
        self.proj = nn.Linear(i, 2 * o)

    def forward(self, x):
        x, gate = self.proj(x).chunk(2, dim=-1)
        return x * F.gelu(gate)


class FeedForward(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.net = nn.Sequential(GEGLU(c, 4 * c), nn.Identity(), nn.Linear(4 * c, c))

    def forward(self, x):
        return self.net(x)


class TransformerBlock(nn.Module):
    def __init__(self, c, context, heads):
        super().__init__()
        self.attn1 = CrossAttention(c, c, heads)
        self.ff = FeedForward(c)
        self.attn2 = CrossAttention(c, context, heads)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(c) for _ in range(3))

    def forward(self, x, context):
        h = self.norm1(x)
        x = x + self.attn1(h, h)
        x = x + self.attn2(self.norm2(x), context)
        return x + self.ff(self.norm3(x))


class Transformer(nn.Module):
    def __init__(self, c, context, heads, depth=1):
        super().__init__()
        self.norm = nn.GroupNorm(32, c, eps=1e-6)
        self.proj_in = nn.Conv2d(c, c, 1)
        self.transformer_blocks = nn.ModuleList(TransformerBlock(c, context, heads) for _ in range(depth))
        self.proj_out = nn.Conv2d(c, c, 1)

    def forward(self, x, context):
        n, c, h, w = x.shape
        y = self.proj_in(self.norm(x)).flatten(2).transpose(1, 2)
        for block in self.transformer_blocks:
            y = block(y, context)
        return x + self.proj_out(y.transpose(1, 2).reshape(n, c, h, w))


class Downsample(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.op = nn.Conv2d(c, c, 3, stride=2, padding=1)

    def forward(self, x):
        return self.op(x)


class Upsample(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.conv = nn.Conv2d(c, c, 3, padding=1)

    def forward(self, x):
        return self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))


class Stage(nn.Sequential):
    """Parts in a row; each gets what it needs besides the picture."""

    def forward(self, x, emb, context):
        for part in self:
            if isinstance(part, UNetResnet):
                x = part(x, emb)
            elif isinstance(part, Transformer):
                x = part(x, context)
            else:
                x = part(x)
        return x


class UNet(nn.Module):
    def __init__(self, width, mult, blocks, attend, context, channels=4, heads=8, depth=1):
        super().__init__()
        self.width, emb = width, 4 * width
        self.time_embed = nn.Sequential(nn.Linear(width, emb), nn.SiLU(), nn.Linear(emb, emb))
        stages, skips, c = [Stage(nn.Conv2d(channels, width, 3, padding=1))], [width], width
        for level, m in enumerate(mult):
            for _ in range(blocks):
                parts, c = [UNetResnet(c, m * width, emb)], m * width
                if level in attend:
                    parts.append(Transformer(c, context, heads, depth))
                stages.append(Stage(*parts))
                skips.append(c)
            if level + 1 < len(mult):
                stages.append(Stage(Downsample(c)))
                skips.append(c)
        self.input_blocks = nn.ModuleList(stages)
        self.middle_block = Stage(UNetResnet(c, c, emb), Transformer(c, context, heads, depth), UNetResnet(c, c, emb))
        stages = []
        for level, m in reversed(list(enumerate(mult))):
            for j in range(blocks + 1):
                parts, c = [UNetResnet(c + skips.pop(), m * width, emb)], m * width
                if level in attend:
                    parts.append(Transformer(c, context, heads, depth))
                if level and j == blocks:
                    parts.append(Upsample(c))
                stages.append(Stage(*parts))
        self.output_blocks = nn.ModuleList(stages)
        self.out = nn.Sequential(nn.GroupNorm(32, c, eps=1e-5), nn.SiLU(), nn.Conv2d(c, 4, 3, padding=1))

    def forward(self, x, t, context):
        emb = self.time_embed(timestep_embedding(t, self.width))
        skips = []
        for stage in self.input_blocks:
            x = stage(x, emb, context)
            skips.append(x)
        x = self.middle_block(x, emb, context)
        for stage in self.output_blocks:
            x = stage(torch.cat([x, skips.pop()], dim=1), emb, context)
        return self.out(x)


# --- VAE --------------------------------------------------------------------------------------------------------------


def norm_silu(norm, x):
    return F.silu(norm(x))


class VaeResnet(nn.Module):
    def __init__(self, i, o):
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(32, i, eps=1e-6), nn.Conv2d(i, o, 3, padding=1)
        self.norm2, self.conv2 = nn.GroupNorm(32, o, eps=1e-6), nn.Conv2d(o, o, 3, padding=1)
        if i != o:
            self.nin_shortcut = nn.Conv2d(i, o, 1)

    def forward(self, x):
        h = self.conv1(norm_silu(self.norm1, x))
        h = self.conv2(norm_silu(self.norm2, h))
        return h + (self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x)


class VaeAttention(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.norm = nn.GroupNorm(32, c, eps=1e-6)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(c, c, 1) for _ in range(4))

    def forward(self, x):
        n, c, h, w = x.shape
        y = self.norm(x)
        q, k, v = (f(y).flatten(2).transpose(1, 2) for f in (self.q, self.k, self.v))
        return x + self.proj_out(attention(q, k, v, 1).transpose(1, 2).reshape(n, c, h, w))


class VaeMiddle(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.block_1, self.attn_1, self.block_2 = VaeResnet(c, c), VaeAttention(c), VaeResnet(c, c)

    def forward(self, x):
        return self.block_2(self.attn_1(self.block_1(x)))


class Half(nn.Module):
    """A holder of parts, so that the names come out right."""


class VaeDown(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.conv = nn.Conv2d(c, c, 3, stride=2)

    def forward(self, x):
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Encoder(nn.Module):
    def __init__(self, width, mult, blocks, zc):
        super().__init__()
        self.conv_in = nn.Conv2d(3, width, 3, padding=1)
        self.down, c = nn.ModuleList(), width
        for level, m in enumerate(mult):
            part = Half()
            part.block = nn.ModuleList()
            for _ in range(blocks):
                part.block.append(VaeResnet(c, m * width))
                c = m * width
            if level + 1 < len(mult):
                part.downsample = VaeDown(c)
            self.down.append(part)
        self.mid = VaeMiddle(c)
        self.norm_out, self.conv_out = nn.GroupNorm(32, c, eps=1e-6), nn.Conv2d(c, 2 * zc, 3, padding=1)

    def forward(self, x):
        x = self.conv_in(x)
        for part in self.down:
            for block in part.block:
                x = block(x)
            if hasattr(part, "downsample"):
                x = part.downsample(x)
        return self.conv_out(norm_silu(self.norm_out, self.mid(x)))


class Decoder(nn.Module):
    def __init__(self, width, mult, blocks, zc):
        super().__init__()
        c = width * mult[-1]
        self.conv_in, self.mid = nn.Conv2d(zc, c, 3, padding=1), VaeMiddle(c)
        parts = [None] * len(mult)
        for level in reversed(range(len(mult))):
            part = Half()
            part.block = nn.ModuleList()
            for _ in range(blocks + 1):
                part.block.append(VaeResnet(c, mult[level] * width))
                c = mult[level] * width
            if level:
                part.upsample = Upsample(c)
            parts[level] = part
        self.up = nn.ModuleList(parts)
        self.norm_out, self.conv_out = nn.GroupNorm(32, c, eps=1e-6), nn.Conv2d(c, 3, 3, padding=1)

    def forward(self, z):
        x = self.mid(self.conv_in(z))
        for part in reversed(self.up):
            for block in part.block:
                x = block(x)
            if hasattr(part, "upsample"):
                x = part.upsample(x)
        return self.conv_out(norm_silu(self.norm_out, x))


class Vae(nn.Module):
    scale = 0.18215

    def __init__(self, width, mult, blocks, zc=4):
        super().__init__()
        self.encoder, self.decoder = Encoder(width, mult, blocks, zc), Decoder(width, mult, blocks, zc)
        self.quant_conv, self.post_quant_conv = nn.Conv2d(2 * zc, 2 * zc, 1), nn.Conv2d(zc, zc, 1)

    def decode(self, z):
        return self.decoder(self.post_quant_conv(z / self.scale))

    def encode(self, x, noise):
        mean, log_variance = self.quant_conv(self.encoder(x)).chunk(2, dim=1)
        return (mean + torch.exp(0.5 * log_variance.clamp(-30, 20)) * noise) * self.scale


# --- CLIP -------------------------------------------------------------------------------------------------------------


class ClipAttention(nn.Module):
    def __init__(self, c, heads):
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(c, c) for _ in range(4))

    def forward(self, x):
        return self.out_proj(attention(self.q_proj(x), self.k_proj(x), self.v_proj(x), self.heads, causal=True))


class ClipMlp(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(c, 4 * c), nn.Linear(4 * c, c)

    def forward(self, x):
        h = self.fc1(x)
        return self.fc2(h * torch.sigmoid(1.702 * h))


class ClipLayer(nn.Module):
    def __init__(self, c, heads):
        super().__init__()
        self.self_attn, self.mlp = ClipAttention(c, heads), ClipMlp(c)
        self.layer_norm1, self.layer_norm2 = nn.LayerNorm(c), nn.LayerNorm(c)

    def forward(self, x):
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))


class Clip(nn.Module):
    def __init__(self, width, layers, heads, vocabulary=49408, positions=77):
        super().__init__()
        self.embeddings = Half()
        self.embeddings.token_embedding = nn.Embedding(vocabulary, width)
        self.embeddings.position_embedding = nn.Embedding(positions, width)
        self.encoder = Half()
        self.encoder.layers = nn.ModuleList(ClipLayer(width, heads) for _ in range(layers))
        self.final_layer_norm = nn.LayerNorm(width)

    def forward(self, tokens, skip=1):
        """tokens: [chunks, 77]; skip 1 takes the last layer's output."""
        x = self.embeddings.token_embedding(tokens) + self.embeddings.position_embedding.weight
        for layer in self.encoder.layers[: len(self.encoder.layers) - (skip - 1)]:
            x = layer(x)
        return self.final_layer_norm(x)
