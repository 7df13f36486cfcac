"""Stable Diffusion's networks in plain PyTorch, written from the papers (Rombach et al. 2022; Podell et al. 2023; Radford et
al. 2021; Cherti et al. 2022) with the original checkpoints' parameter names, as an independent reference. Shapes are
arguments throughout."""
import math
from collections import OrderedDict

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
    """linear: projections of the sequence (SD 2) instead of 1x1 convolutions of the picture (SD 1)."""

    def __init__(self, c, context, heads, depth=1, linear=False):
        super().__init__()
        project = nn.Linear if linear else lambda i, o: nn.Conv2d(i, o, 1)
        self.linear = linear
        self.norm = nn.GroupNorm(32, c, eps=1e-6)
        self.proj_in = project(c, c)
        self.transformer_blocks = nn.ModuleList(TransformerBlock(c, context, heads) for _ in range(depth))
        self.proj_out = project(c, c)

    def forward(self, x, context):
        n, c, h, w = x.shape
        y = self.norm(x)
        y = self.proj_in(y.flatten(2).transpose(1, 2)) if self.linear else self.proj_in(y).flatten(2).transpose(1, 2)
        for block in self.transformer_blocks:
            y = block(y, context)
        if self.linear:
            return x + self.proj_out(y).transpose(1, 2).reshape(n, c, h, w)
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
    """heads: per transformer; None for heads of 64 channels. depth: transformer blocks, for all or for each level.
    label: width of the vector beside the text, 0 without one (SDXL). Distilled networks: down and up are the transformer
    blocks of each residual block in turn, 0 for none, instead of attend and depth; middle is "whole", "resnet" for one
    residual block alone, or "none"."""

    def __init__(self, width, mult, blocks, attend, context, channels=4, heads=8, depth=1, linear=False, label=0, down=None,
                 up=None, middle="whole"):
        super().__init__()
        self.width, emb = width, 4 * width
        depth = [depth] * len(mult) if isinstance(depth, int) else depth
        at = [depth[i] if i in attend else 0 for i in range(len(mult))]
        down = iter(down or [d for d in at for _ in range(blocks)])
        up = iter(up or [d for d in reversed(at) for _ in range(blocks + 1)])

        def transformers(c, count):
            return [Transformer(c, context, heads or max(1, c // 64), count, linear)] if count else []

        self.time_embed = nn.Sequential(nn.Linear(width, emb), nn.SiLU(), nn.Linear(emb, emb))
        if label:
            self.label_emb = nn.Sequential(nn.Sequential(nn.Linear(label, emb), nn.SiLU(), nn.Linear(emb, emb)))
        stages, skips, c = [Stage(nn.Conv2d(channels, width, 3, padding=1))], [width], width
        for level, m in enumerate(mult):
            for _ in range(blocks):
                parts, c = [UNetResnet(c, m * width, emb)], m * width
                parts += transformers(c, next(down))
                stages.append(Stage(*parts))
                skips.append(c)
            if level + 1 < len(mult):
                stages.append(Stage(Downsample(c)))
                skips.append(c)
        self.input_blocks = nn.ModuleList(stages)
        parts = {"none": 0, "resnet": 1, "whole": 3}[middle]
        whole = [UNetResnet(c, c, emb), *transformers(c, max(1, depth[-1])), UNetResnet(c, c, emb)]
        self.middle_block = Stage(*whole[:parts])
        stages = []
        for level, m in reversed(list(enumerate(mult))):
            for j in range(blocks + 1):
                parts, c = [UNetResnet(c + skips.pop(), m * width, emb)], m * width
                parts += transformers(c, next(up))
                if level and j == blocks:
                    parts.append(Upsample(c))
                stages.append(Stage(*parts))
        self.output_blocks = nn.ModuleList(stages)
        self.out = nn.Sequential(nn.GroupNorm(32, c, eps=1e-5), nn.SiLU(), nn.Conv2d(c, 4, 3, padding=1))

    def forward(self, x, t, context, label=None, deep=None):
        """deep: a dictionary that keeps what the last block takes from those before it; where it has that already, only
        the first convolution and the last block are computed (DeepCache)."""
        emb = self.time_embed(timestep_embedding(t, self.width).to(x.dtype))
        if label is not None:
            emb = emb + self.label_emb(label)
        if deep:
            skip = self.input_blocks[0](x, emb, context)
            return self.out(self.output_blocks[-1](torch.cat([deep["x"], skip], dim=1), emb, context))
        skips = []
        for stage in self.input_blocks:
            x = stage(x, emb, context)
            skips.append(x)
        x = self.middle_block(x, emb, context)
        for stage in self.output_blocks:
            skip = skips.pop()
            if x.shape[-2:] != skip.shape[-2:]:  # a size that cannot be halved, as A1111 takes it
                x = F.interpolate(x, skip.shape[-2:], mode="nearest")
            if deep is not None and not skips:
                deep["x"] = x
            x = stage(torch.cat([x, skip], dim=1), emb, context)
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
    def __init__(self, width, mult, blocks, zc=4, scale=0.18215):
        super().__init__()
        self.scale = scale
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

    def hidden(self, tokens, skip=1):
        """tokens: [chunks, 77]; skip 1 takes the last layer's output. Not normed."""
        x = self.embeddings.token_embedding(tokens) + self.embeddings.position_embedding.weight
        for layer in self.encoder.layers[: len(self.encoder.layers) - (skip - 1)]:
            x = layer(x)
        return x

    def forward(self, tokens, skip=1):
        return self.final_layer_norm(self.hidden(tokens, skip))


class OpenClipBlock(nn.Module):
    def __init__(self, c, heads):
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(c), nn.LayerNorm(c)
        self.attn = nn.MultiheadAttention(c, heads, batch_first=True)
        self.mlp = nn.Sequential(OrderedDict(c_fc=nn.Linear(c, 4 * c), gelu=nn.GELU(), c_proj=nn.Linear(4 * c, c)))

    def forward(self, x, mask):
        h = self.ln_1(x)
        x = x + self.attn(h, h, h, need_weights=False, attn_mask=mask)[0]
        return x + self.mlp(self.ln_2(x))


class OpenClip(nn.Module):
    """The text tower of OpenCLIP, whose attention keeps query, key and value in one matrix. pooled: width of the vector
    that says the whole text; 0 leaves its projection out."""

    def __init__(self, width, layers, heads, vocabulary=49408, positions=77, pooled=0):
        super().__init__()
        self.token_embedding = nn.Embedding(vocabulary, width)
        self.positional_embedding = nn.Parameter(torch.zeros(positions, width))
        self.transformer = Half()
        self.transformer.resblocks = nn.ModuleList(OpenClipBlock(width, heads) for _ in range(layers))
        self.ln_final = nn.LayerNorm(width)
        if pooled:
            self.text_projection = nn.Parameter(torch.zeros(width, pooled))

    def pooled(self, tokens):
        """The last layer at the end of the first chunk, which is its largest token: [1, pooled]. A learned word's vectors,
        which stand behind the vocabulary, are no tokens."""
        x = self.ln_final(self.hidden(tokens[:1], 1))
        return x[:, int(tokens[0].masked_fill(tokens[0] > 49407, 0).argmax())] @ self.text_projection

    def hidden(self, tokens, skip):
        """tokens: [chunks, 77]; the output of the last layer but skip - 1, not normed."""
        x = self.token_embedding(tokens) + self.positional_embedding
        mask = torch.full((tokens.shape[1],) * 2, -math.inf, dtype=x.dtype).triu(1)
        for block in self.transformer.resblocks[: len(self.transformer.resblocks) - (skip - 1)]:
            x = block(x, mask)
        return x

    def forward(self, tokens, skip=2):
        """The context of Stable Diffusion 2."""
        return self.ln_final(self.hidden(tokens, skip))


def size_label(numbers, width=256):
    """Each number as a timestep is embedded, one behind the other: [1, width * len(numbers)]"""
    return torch.cat([timestep_embedding(torch.tensor([float(n)], dtype=torch.float64), width) for n in numbers], dim=-1)


def padded(tokens, end=49407):
    """OpenCLIP's padding: zeros behind the first end token of each chunk. tokens: [chunks, 77]."""
    ended = (tokens == end).long().cumsum(-1)
    return torch.where((ended > 0) & ~((tokens == end) & (ended == 1)), torch.zeros_like(tokens), tokens)
