#!/usr/bin/env python3
"""Tiny models with the topology of real ones and random weights, for tests: make_tiny_models.py OUTDIR [SEED]

  tiny-sd1-f32.safetensors        whole checkpoint, LDM names; the same numbers in
  tiny-sd1-f16.safetensors        half precision
  tiny-sd1-bf16.safetensors       bfloat16
  tiny-sd1-diffusers/             the diffusers folder layout
  tiny-sd1-unet-f16.gguf          the UNet alone (community layout, no prefix)
  tiny-sd1-unet-q8_0.gguf         the same, matrices quantised
  tiny-clip_l.safetensors         the text encoder alone
  tiny-vae.safetensors            the autoencoder alone
  tiny-sd1-inpaint.safetensors    f32, with another UNet, which takes mask and masked picture (9 channels)
  tiny-sd1-edit.safetensors       f32, with another UNet, which takes the picture to be edited (8 channels)
  tiny-sd1-v.safetensors          f16, marked as predicting v and as trained on 64x96
  controlnet/tiny-canny.safetensors     a ControlNet under the original names, f32; the same numbers in
  controlnet/tiny-diffusers.safetensors f16 under diffusers' names
  controlnet/tiny-xl.safetensors        one for the tiny SDXL
  ipadapter/tiny-ip.safetensors   an IP-Adapter, f32, and one with a resampler, f16
  ipadapter/tiny-ip-plus.safetensors
  ipadapter/tiny-ip-xl.safetensors      one for the tiny SDXL
  ipadapter/tiny-ip-faceid.safetensors  one of a kind that is refused
  clip_vision/tiny-vision.safetensors   the image encoder for all of them, f16
  tiny-taesd.safetensors          a tiny autoencoder's decoder, in diffusers' names
  loras/tiny-KIND.safetensors     one LoRA of each kind in loras.py; tiny-lora calls itself "Tiny Style"
  loras/foreign.safetensors       a LoRA for a model whose text is 2048 wide

  tiny-sd2-f32.safetensors        Stable Diffusion 2: OpenCLIP's text encoder, linear projections; predicts v, as its
                                  weights tell
  tiny-sd2-diffusers/             the same in the diffusers layout: without the text encoder's last layer
  tiny-sd2-eps.safetensors        f16; the same but for the vector that tells, so that it predicts the noise
  tiny-sd2-inpaint.safetensors    f32, 9 channels; predicts the noise whatever that vector is
  tiny-sd2-edit.safetensors       f32, 8 channels; likewise

  tiny-sdxl-f32.safetensors       Stable Diffusion XL: both text encoders, size conditioning
  tiny-sdxl-diffusers/            the same in the diffusers layout
  tiny-sdxl-unet.safetensors      f16; its UNet alone, in the diffusers naming
  tiny-sdxl-clip_l.safetensors    f16; its text encoders alone
  tiny-sdxl-clip_g.safetensors
  tiny-sdxl-v.safetensors         f16; marked as predicting v on a schedule with zero terminal SNR
  loras/xl-KIND.safetensors       LoRAs for it, with kohya's names of diffusers' blocks and of the original ones
  tiny-sdxl-refiner-f32.safetensors  its refiner
  tiny-sdxl-inpaint.safetensors   f32, 9 channels
  tiny-sdxl-edit.safetensors      f32, 8 channels
  tiny-ssd-f32.safetensors        distilled from SDXL as SSD-1B is: one block in the middle, depths of its own
  tiny-vega-f32.safetensors       distilled further, as Segmind Vega is: one or two blocks a transformer
  tiny-bk-f32.safetensors         distilled from SD 1 as tiny-sd is: no middle, one block a level
  tiny-bk-diffusers/              the same in the diffusers layout

All models of a family hold the same numbers, chosen so that they are exact in f32, f16 and bf16 (but for q8_0). Deterministic by seed.
Needs numpy. The writers below know just enough of each format for this purpose."""
import json
import os
import struct
import sys

import numpy as np

import loras

# One entry per level: channels are `width` times the number; levels in `attention` have transformers.
UNET = dict(width=32, mult=(1, 1, 2, 2), blocks=2, attention=(0, 1, 2), context=32, channels=4)
VAE = dict(width=32, mult=(1, 1, 1, 1), blocks=2, channels=4)
CLIP = dict(width=32, layers=2, vocabulary=49408, positions=77)

# Twelve output blocks as the real one has (the last one tells what it predicts), and two heads in the middle.
SD2_UNET = dict(width=64, mult=(1, 1, 1, 2), blocks=2, attention=(0, 1, 2), context=32, channels=4, linear_projections=True)
SD2_CLIP = dict(width=32, layers=24, vocabulary=49408, positions=77)


# Depths are transformer blocks by level. A label is the pooled text and six (the refiner: five) numbers of 256 channels each.
SDXL_UNET = dict(width=32, mult=(1, 2, 4), blocks=2, attention=(1, 2), context=96, channels=4, linear_projections=True,
                 depth=(0, 1, 2), label=48 + 6 * 256)
SDXL_CLIP_L = dict(width=32, layers=3, vocabulary=49408, positions=77)
SDXL_CLIP_G = dict(width=64, layers=3, vocabulary=49408, positions=77, pooled=48)
REFINER_UNET = dict(width=32, mult=(1, 2, 2, 2), blocks=2, attention=(1, 2), context=64, channels=4, linear_projections=True,
                    depth=(0, 2, 2, 2), label=64 + 5 * 256)
REFINER_CLIP = dict(width=64, layers=3, vocabulary=49408, positions=77, pooled=64)

VISION = dict(width=64, layers=3, patch=8, size=32, projected=40)

# Distilled: the transformer blocks of each residual block in turn, down and up, and what is left of the middle.
SSD_UNET = dict(SDXL_UNET, down=(0, 0, 1, 1, 2, 2), up=(2, 3, 1, 1, 2, 1, 0, 0, 0), middle="resnet")
VEGA_UNET = dict(SDXL_UNET, down=(0, 0, 1, 1, 2, 2), up=(2, 2, 2, 1, 1, 1, 0, 0, 0), middle="resnet")
BK_UNET = dict(width=32, mult=(1, 1, 2), blocks=1, attention=(0, 1, 2), context=32, channels=4, middle="none")


# --- shapes (LDM names -> PyTorch shapes) -----------------------------------------------------------------------------


def linear(s, name, i, o, bias=True):
    s[name + ".weight"] = (o, i)
    if bias:
        s[name + ".bias"] = (o,)


def conv(s, name, i, o, k):
    s[name + ".weight"] = (o, i, k, k)
    s[name + ".bias"] = (o,)


def norm(s, name, c):
    s[name + ".weight"] = (c,)
    s[name + ".bias"] = (c,)


def unet_resnet(s, p, i, o, emb):
    norm(s, p + "in_layers.0", i)
    conv(s, p + "in_layers.2", i, o, 3)
    linear(s, p + "emb_layers.1", emb, o)
    norm(s, p + "out_layers.0", o)
    conv(s, p + "out_layers.3", o, o, 3)
    if i != o:
        conv(s, p + "skip_connection", i, o, 1)


def projection(s, name, c, is_linear):
    if is_linear:
        linear(s, name, c, c)
    else:
        conv(s, name, c, c, 1)


def unet_transformer(s, p, c, context, is_linear, depth):
    norm(s, p + "norm", c)
    projection(s, p + "proj_in", c, is_linear)
    for i in range(depth):
        block = p + f"transformer_blocks.{i}."
        for name, kv in (("attn1", c), ("attn2", context)):
            linear(s, block + name + ".to_q", c, c, False)
            linear(s, block + name + ".to_k", kv, c, False)
            linear(s, block + name + ".to_v", kv, c, False)
            linear(s, block + name + ".to_out.0", c, c)
        linear(s, block + "ff.net.0.proj", c, 8 * c)
        linear(s, block + "ff.net.2", 4 * c, c)
        for k in "123":
            norm(s, block + "norm" + k, c)
    projection(s, p + "proj_out", c, is_linear)


def unet_shapes(width, mult, blocks, attention, context, channels, linear_projections=False, depth=None, label=0, down=None,
                up=None, middle="whole"):
    s, emb, levels = {}, 4 * width, range(len(mult))
    depth = depth or [1] * len(mult)
    down = list(down or [depth[k] if k in attention else 0 for k in levels for _ in range(blocks)])
    up = list(up or [depth[k] if k in attention else 0 for k in reversed(levels) for _ in range(blocks + 1)])
    linear(s, "time_embed.0", width, emb)
    linear(s, "time_embed.2", emb, emb)
    if label:
        linear(s, "label_emb.0.0", label, emb)
        linear(s, "label_emb.0.2", emb, emb)
    conv(s, "input_blocks.0.0", channels, width, 3)
    c, skips, n = width, [width], 1
    for level, m in enumerate(mult):
        for _ in range(blocks):
            unet_resnet(s, f"input_blocks.{n}.0.", c, m * width, emb)
            c, count = m * width, down.pop(0)
            if count:
                unet_transformer(s, f"input_blocks.{n}.1.", c, context, linear_projections, count)
            skips.append(c)
            n += 1
        if level + 1 < len(mult):
            conv(s, f"input_blocks.{n}.0.op", c, c, 3)
            skips.append(c)
            n += 1
    if middle != "none":
        unet_resnet(s, "middle_block.0.", c, c, emb)
    if middle == "whole":
        unet_transformer(s, "middle_block.1.", c, context, linear_projections, depth[-1])
        unet_resnet(s, "middle_block.2.", c, c, emb)
    n = 0
    for level, m in reversed(list(enumerate(mult))):
        for j in range(blocks + 1):
            unet_resnet(s, f"output_blocks.{n}.0.", c + skips.pop(), m * width, emb)
            c, slot, count = m * width, 1, up.pop(0)
            if count:
                unet_transformer(s, f"output_blocks.{n}.1.", c, context, linear_projections, count)
                slot = 2
            if level and j == blocks:
                conv(s, f"output_blocks.{n}.{slot}.conv", c, c, 3)
            n += 1
    norm(s, "out.0", c)
    conv(s, "out.2", c, 4, 3)
    return s


HINT_WIDTHS = (8, 8, 8, 8, 16, 16, 16)


def control_shapes(unet):
    """A copy of the UNet's first half, what takes in the picture (an activation stands behind each convolution), and a 1x1
    convolution behind each entry and the middle."""
    s = {k: v for k, v in unet_shapes(**unet).items() if not k.startswith("out")}
    inputs = 1 + max(int(k.split(".")[1]) for k in s if k.startswith("input_blocks."))
    for i, (a, b) in enumerate(zip((3, *HINT_WIDTHS), (*HINT_WIDTHS, unet["width"]))):
        conv(s, f"input_hint_block.{2 * i}", a, b, 3)

    def channels(i):
        op = s.get(f"input_blocks.{i}.0.op.weight")
        return op[0] if op else s.get(f"input_blocks.{i}.0.out_layers.3.weight", (unet["width"],))[0]

    for i in range(inputs):
        conv(s, f"zero_convs.{i}.0", channels(i), channels(i), 1)
    conv(s, "middle_block_out.0", channels(inputs - 1), channels(inputs - 1), 1)
    return s


def vae_resnet(s, p, i, o):
    norm(s, p + "norm1", i)
    conv(s, p + "conv1", i, o, 3)
    norm(s, p + "norm2", o)
    conv(s, p + "conv2", o, o, 3)
    if i != o:
        conv(s, p + "nin_shortcut", i, o, 1)


def vae_middle(s, p, c):
    vae_resnet(s, p + "mid.block_1.", c, c)
    norm(s, p + "mid.attn_1.norm", c)
    for x in ("q", "k", "v", "proj_out"):
        conv(s, p + "mid.attn_1." + x, c, c, 1)
    vae_resnet(s, p + "mid.block_2.", c, c)


def vae_shapes(width, mult, blocks, channels):
    s, c, top = {}, width, len(mult) - 1
    conv(s, "encoder.conv_in", 3, width, 3)
    for level, m in enumerate(mult):
        for b in range(blocks):
            vae_resnet(s, f"encoder.down.{level}.block.{b}.", c, m * width)
            c = m * width
        if level < top:
            conv(s, f"encoder.down.{level}.downsample.conv", c, c, 3)
    vae_middle(s, "encoder.", c)
    norm(s, "encoder.norm_out", c)
    conv(s, "encoder.conv_out", c, 2 * channels, 3)
    conv(s, "decoder.conv_in", channels, c, 3)
    vae_middle(s, "decoder.", c)
    for level in range(top, -1, -1):
        for b in range(blocks + 1):
            vae_resnet(s, f"decoder.up.{level}.block.{b}.", c, mult[level] * width)
            c = mult[level] * width
        if level:
            conv(s, f"decoder.up.{level}.upsample.conv", c, c, 3)
    norm(s, "decoder.norm_out", c)
    conv(s, "decoder.conv_out", c, 3, 3)
    conv(s, "quant_conv", 2 * channels, 2 * channels, 1)
    conv(s, "post_quant_conv", channels, channels, 1)
    return s


def clip_layer(s, p, width):
    for x in ("q_proj", "k_proj", "v_proj", "out_proj"):
        linear(s, p + "self_attn." + x, width, width)
    norm(s, p + "layer_norm1", width)
    norm(s, p + "layer_norm2", width)
    linear(s, p + "mlp.fc1", width, 4 * width)
    linear(s, p + "mlp.fc2", 4 * width, width)


def clip_shapes(width, layers, vocabulary, positions):
    s = {"embeddings.token_embedding.weight": (vocabulary, width),
         "embeddings.position_embedding.weight": (positions, width)}
    for i in range(layers):
        clip_layer(s, f"encoder.layers.{i}.", width)
    norm(s, "final_layer_norm", width)
    return s


def open_clip_shapes(width, layers, vocabulary, positions, pooled=0):
    s = {"token_embedding.weight": (vocabulary, width), "positional_embedding": (positions, width)}
    for i in range(layers):
        p = f"transformer.resblocks.{i}."
        norm(s, p + "ln_1", width)
        s[p + "attn.in_proj_weight"] = (3 * width, width)
        s[p + "attn.in_proj_bias"] = (3 * width,)
        linear(s, p + "attn.out_proj", width, width)
        norm(s, p + "ln_2", width)
        linear(s, p + "mlp.c_fc", width, 4 * width)
        linear(s, p + "mlp.c_proj", 4 * width, width)
    norm(s, "ln_final", width)
    if pooled:
        s["text_projection"] = (width, pooled)
    return s


# --- numbers ----------------------------------------------------------------------------------------------------------


def exact(a):
    """Rounds to numbers that bf16 and f16 both hold."""
    bits = np.ascontiguousarray(a, np.float32).view(np.uint32)
    bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)
    a = bits.view(np.float32)
    return np.where(np.abs(a) < 2.0**-13, np.float32(0), a)


def fill(shapes, rng):
    """Variance-keeping weights, so that signals neither die out nor explode on their way."""
    out = {}
    for name, shape in shapes.items():
        a = rng.standard_normal(shape, dtype=np.float32)
        if len(shape) == 1:
            a = a * 0.05 + (1.0 if name.endswith("weight") else 0.0)
        elif "embedding" in name:
            a *= 0.5
        else:
            a /= np.sqrt(np.prod(shape[1:]))
        out[name] = exact(a)
    return out


def tiny(seed, unet=UNET):
    rng = np.random.default_rng(seed)
    return dict(unet=fill(unet_shapes(**unet), rng), vae=fill(vae_shapes(**VAE), rng), clip=fill(clip_shapes(**CLIP), rng))


TELLING = "output_blocks.11.1.transformer_blocks.0.norm1.bias"


def tiny_sd2(seed, unet=SD2_UNET):
    """Its UNet predicts v, which a wide spread of one vector tells."""
    rng = np.random.default_rng(seed)
    unet = fill(unet_shapes(**unet), rng)
    unet[TELLING] = exact(unet[TELLING] * 4)
    return dict(unet=unet, vae=fill(vae_shapes(**VAE), rng), clip=fill(open_clip_shapes(**SD2_CLIP), rng))


def tiny_sdxl(seed, unet=SDXL_UNET):
    rng = np.random.default_rng(seed)
    return dict(unet=fill(unet_shapes(**unet), rng), vae=fill(vae_shapes(**VAE), rng),
                clip=fill(clip_shapes(**SDXL_CLIP_L), rng), clip_g=fill(open_clip_shapes(**SDXL_CLIP_G), rng))


def tiny_refiner(seed):
    rng = np.random.default_rng(seed)
    return dict(unet=fill(unet_shapes(**REFINER_UNET), rng), vae=fill(vae_shapes(**VAE), rng),
                clip_g=fill(open_clip_shapes(**REFINER_CLIP), rng))


def prefixed(prefix, tensors):
    return {prefix + k: v for k, v in tensors.items()}


def checkpoint(model):
    """Everything under LDM names, with the extra tensors that real checkpoints carry."""
    betas = np.linspace(0.00085**0.5, 0.0120**0.5, 1000, dtype=np.float64) ** 2
    extra = {"alphas_cumprod": np.cumprod(1 - betas).astype(np.float32),
             "cond_stage_model.transformer.text_model.embeddings.position_ids": np.arange(77, dtype=np.int64)[None]}
    return {**prefixed("model.diffusion_model.", model["unet"]), **prefixed("first_stage_model.", model["vae"]),
            **prefixed("cond_stage_model.transformer.text_model.", model["clip"]), **extra}


def checkpoint_sd2(model):
    return {**prefixed("model.diffusion_model.", model["unet"]), **prefixed("first_stage_model.", model["vae"]),
            **prefixed("cond_stage_model.model.", model["clip"]),
            "cond_stage_model.model.logit_scale": np.array(1, np.float32)}


def checkpoint_sdxl(model):
    """Text encoders stand in a row; the refiner has the second one only."""
    out = {**prefixed("model.diffusion_model.", model["unet"]), **prefixed("first_stage_model.", model["vae"])}
    if "clip" in model:
        out.update(prefixed("conditioner.embedders.0.transformer.text_model.", model["clip"]))
    place = "conditioner.embedders.%d.model." % ("clip" in model)
    return {**out, **prefixed(place, model["clip_g"]), place + "logit_scale": np.array(1, np.float32)}


# --- safetensors ------------------------------------------------------------------------------------------------------


def to_bf16(a):
    return (np.ascontiguousarray(a, np.float32).view(np.uint32) >> 16).astype(np.uint16)


def encoded(a, dtype):
    """(safetensors type, bytes)"""
    if a.dtype == np.int64:
        return "I64", a.tobytes()
    if dtype == "BF16":
        return dtype, to_bf16(a).tobytes()
    return dtype, np.ascontiguousarray(a, {"F32": np.float32, "F16": np.float16}[dtype]).tobytes()


def write_safetensors(path, tensors, dtype, metadata=None):
    header, data, at = {}, [], 0
    if metadata:
        header["__metadata__"] = metadata
    for name, a in tensors.items():
        kind, raw = encoded(a, dtype)
        header[name] = {"dtype": kind, "shape": list(a.shape), "data_offsets": [at, at + len(raw)]}
        data.append(raw)
        at += len(raw)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        f.writelines(data)


# --- GGUF -------------------------------------------------------------------------------------------------------------

GGUF_F32, GGUF_F16, GGUF_Q8_0 = 0, 1, 8
ALIGN = 32


def q8_0(a):
    """Blocks of 32: an f16 scale and 32 signed bytes."""
    blocks = a.reshape(-1, 32)
    scale = np.abs(blocks).max(axis=1, keepdims=True) / 127
    inverse = np.divide(1, scale, out=np.zeros_like(scale), where=scale > 0)
    quants = np.rint(blocks * inverse).astype(np.int8)
    return np.concatenate([scale.astype(np.float16).view(np.uint8), quants.view(np.uint8)], axis=1).tobytes()


def gguf_tensor(a, quantise):
    if a.ndim == 1:
        return GGUF_F32, a.astype(np.float32).tobytes()
    if quantise and a.ndim == 2 and a.shape[1] % 32 == 0:
        return GGUF_Q8_0, q8_0(a)
    return GGUF_F16, a.astype(np.float16).tobytes()


def gguf_string(s):
    return struct.pack("<Q", len(s)) + s.encode()


def write_gguf(path, tensors, quantise):
    meta = [("general.architecture", "sd1"), ("general.name", "tiny")]
    out = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(meta) + 1)
    for key, value in meta:
        out += gguf_string(key) + struct.pack("<I", 8) + gguf_string(value)
    out += gguf_string("general.alignment") + struct.pack("<II", 4, ALIGN)
    data = b""
    for name, a in tensors.items():
        kind, raw = gguf_tensor(a, quantise)
        out += gguf_string(name) + struct.pack("<I", a.ndim) + struct.pack(f"<{a.ndim}Q", *reversed(a.shape))
        out += struct.pack("<IQ", kind, len(data))
        data += raw + b"\0" * (-len(raw) % ALIGN)
    with open(path, "wb") as f:
        f.write(out + b"\0" * (-len(out) % ALIGN) + data)


# --- the diffusers layout ---------------------------------------------------------------------------------------------

UNET_RESNET = {"in_layers.0": "norm1", "in_layers.2": "conv1", "emb_layers.1": "time_emb_proj",
               "out_layers.0": "norm2", "out_layers.3": "conv2", "skip_connection": "conv_shortcut"}
UNET_TOP = {"time_embed.0": "time_embedding.linear_1", "time_embed.2": "time_embedding.linear_2",
            "label_emb.0.0": "add_embedding.linear_1", "label_emb.0.2": "add_embedding.linear_2",
            "input_blocks.0.0": "conv_in", "out.0": "conv_norm_out", "out.2": "conv_out"}


def renamed(name, table):
    for old, new in table.items():
        if name == old or name.startswith(old + "."):
            return new + name[len(old):]
    return name


def unet_diffusers_name(name, blocks):
    name = renamed(name, UNET_TOP)
    part = name.split(".")
    rest = ".".join(part[3:])
    per_level = blocks + 1  # entries of a level: its resnets and, but for the last level, the downsampler
    if part[0] == "input_blocks":
        level, j = divmod(int(part[1]) - 1, per_level)
        if part[3] == "op":
            return f"down_blocks.{level}.downsamplers.0.conv." + part[4]
        if part[2] == "1":
            return f"down_blocks.{level}.attentions.{j}.{rest}"
        return f"down_blocks.{level}.resnets.{j}." + renamed(rest, UNET_RESNET)
    if part[0] == "middle_block":
        rest = ".".join(part[2:])
        if part[1] == "1":
            return "mid_block.attentions.0." + rest
        return f"mid_block.resnets.{int(part[1]) // 2}." + renamed(rest, UNET_RESNET)
    if part[0] == "output_blocks":
        level, j = divmod(int(part[1]), per_level)
        if part[3] == "conv":
            return f"up_blocks.{level}.upsamplers.0.conv." + part[4]
        if part[2] == "1":
            return f"up_blocks.{level}.attentions.{j}.{rest}"
        return f"up_blocks.{level}.resnets.{j}." + renamed(rest, UNET_RESNET)
    return name


def control_diffusers_name(name, blocks):
    part, last = name.split("."), len(HINT_WIDTHS)
    if part[0] == "input_hint_block":
        i = int(part[1]) // 2
        return f"controlnet_cond_embedding.{'conv_in' if i == 0 else 'conv_out' if i == last else f'blocks.{i - 1}'}.{part[2]}"
    if part[0] == "zero_convs":
        return f"controlnet_down_blocks.{part[1]}.{part[3]}"
    if part[0] == "middle_block_out":
        return "controlnet_mid_block." + part[2]
    return unet_diffusers_name(name, blocks)


def vae_diffusers_name(name):
    top = len(VAE["mult"]) - 1
    name = name.replace(".mid.block_1.", ".mid_block.resnets.0.").replace(".mid.block_2.", ".mid_block.resnets.1.")
    for old, new in (("norm", "group_norm"), ("q", "to_q"), ("k", "to_k"), ("v", "to_v"), ("proj_out", "to_out.0")):
        name = name.replace(f".mid.attn_1.{old}.", f".mid_block.attentions.0.{new}.")
    part = name.split(".")
    if len(part) > 3 and part[1] in ("down", "up"):
        block = int(part[2]) if part[1] == "down" else top - int(part[2])
        head = f"{part[0]}.{part[1]}_blocks.{block}."
        if part[3] == "block":
            return head + f"resnets.{part[4]}." + renamed(".".join(part[5:]), {"nin_shortcut": "conv_shortcut"})
        return head + part[3] + "rs.0." + ".".join(part[4:])
    return name.replace(".norm_out.", ".conv_norm_out.")


def text_diffusers(clip, whole=False):
    """The `transformers` library's names and tensors for OpenCLIP's. In SD 2 without the last layer: nothing uses it."""
    names = {"token_embedding.weight": "embeddings.token_embedding.weight", "ln_1": "layer_norm1", "ln_2": "layer_norm2",
             "positional_embedding": "embeddings.position_embedding.weight", "ln_final": "final_layer_norm",
             "attn.out_proj": "self_attn.out_proj", "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"}
    last = max(int(k.split(".")[2]) for k in clip if k.startswith("transformer.resblocks."))
    out = {}
    for name, a in clip.items():
        head, part = "", name.split(".")
        if part[0] == "transformer":
            head, name = f"encoder.layers.{part[2]}.", ".".join(part[3:])
            if int(part[2]) == last and not whole:
                continue
        if name.startswith("attn.in_proj_"):
            for letter, third in zip("qkv", np.split(a, 3)):
                out[f"{head}self_attn.{letter}_proj.{name[len('attn.in_proj_'):]}"] = third
        else:
            out[head + renamed(name, names)] = a
    return out


def write_json(path, value):
    with open(path, "w", encoding="utf-8") as f:
        json.dump(value, f, indent=2)


def write_part(folder, part, config, tensors):
    """One component: its weights and what names its class."""
    os.makedirs(os.path.join(folder, part), exist_ok=True)
    write_json(os.path.join(folder, part, "config.json"), config)
    name = "model.safetensors" if part.startswith("text") else "diffusion_pytorch_model.safetensors"
    write_safetensors(os.path.join(folder, part, name), tensors, "F32")


def text_diffusers_projected(clip):
    """The same with what pools it, whose matrix is the other way round; under whole names."""
    out = prefixed("text_model.", text_diffusers({k: v for k, v in clip.items() if k != "text_projection"}, whole=True))
    return {**out, "text_projection.weight": np.ascontiguousarray(clip["text_projection"].T)}


def write_diffusers(folder, model, blocks, clip, prediction, clip_g=None):
    """clip: the text encoder under the names below "text_model."; clip_g: the second one, under whole names."""
    vae = {}
    for k, v in model["vae"].items():
        name = vae_diffusers_name(k)
        vae[name] = v[:, :, 0, 0] if ".attentions." in name and v.ndim == 4 else v  # linear layers there
    unet = {unet_diffusers_name(k, blocks): v for k, v in model["unet"].items()}
    write_part(folder, "unet", {"_class_name": "UNet2DConditionModel"}, unet)
    write_part(folder, "vae", {"_class_name": "AutoencoderKL"}, vae)
    write_part(folder, "text_encoder", {"architectures": ["CLIPTextModel"]}, prefixed("text_model.", clip))
    if clip_g:
        write_part(folder, "text_encoder_2", {"architectures": ["CLIPTextModelWithProjection"]}, clip_g)
    os.makedirs(os.path.join(folder, "scheduler"), exist_ok=True)
    write_json(os.path.join(folder, "scheduler", "scheduler_config.json"), {"prediction_type": prediction})
    write_json(os.path.join(folder, "model_index.json"),
               {"_class_name": "StableDiffusionXLPipeline" if clip_g else "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"],
                "vae": ["diffusers", "AutoencoderKL"], "text_encoder": ["transformers", "CLIPTextModel"],
                "scheduler": ["diffusers", "PNDMScheduler"]})


def write_taesd(path, seed):
    """Its list of layers: a convolution, three blocks and an enlargement three times, a block, a convolution."""
    rng, width, out = np.random.default_rng(seed), 8, {}

    def layer(name, i, o, bias=True):
        out[name + ".weight"] = rng.standard_normal((o, i, 3, 3), np.float32) * np.float32(np.sqrt(1.5 / (9 * i)))
        if bias:
            out[name + ".bias"] = rng.standard_normal(o, np.float32) * np.float32(0.1)

    def block(n):
        for k in (0, 2, 4):
            layer(f"decoder.layers.{n}.conv.{k}", width, width)

    layer("decoder.layers.0", 4, width)
    for n in range(3):
        for k in range(3):
            block(5 * n + 2 + k)
        layer(f"decoder.layers.{5 * n + 6}", width, width, bias=False)
    block(17)
    layer("decoder.layers.18", width, 3)
    write_safetensors(path, out, "F32")


def write_loras(folder, model, seed):
    os.makedirs(folder, exist_ok=True)
    rng = np.random.default_rng(seed)
    shapes = {"unet": {k: v.shape for k, v in model["unet"].items()}, "te": {k: v.shape for k, v in model["clip"].items()}}
    for name in loras.FILES:
        meta = {"ss_output_name": "Tiny Style"} if name == "lora" else None
        loras.write(os.path.join(folder, f"tiny-{name}.safetensors"), loras.make(rng, name, shapes), "F16", meta)
    layer = "lora_unet_input_blocks_1_1_transformer_blocks_0_attn2_to_k."
    loras.write(os.path.join(folder, "foreign.safetensors"),
                {layer + "lora_up.weight": np.ones((32, 2)), layer + "lora_down.weight": np.ones((2, 2048))})


def write_sdxl_loras(folder, model, seed):
    """The second text encoder's layers are named as `transformers` does, whatever the checkpoint's naming."""
    rng = np.random.default_rng(seed)
    shapes = {k: {n: v.shape for n, v in part.items()} for k, part in
              (("unet", model["unet"]), ("te1", model["clip"]), ("te2", text_diffusers(model["clip_g"], whole=True)))}
    for name in loras.XL_FILES:
        loras.write(os.path.join(folder, f"xl-{name}.safetensors"), loras.make(rng, name, shapes))


def write_controlnets(out, seed):
    """Their last convolutions are not zero, as those of a trained one are not."""
    folder, rng = os.path.join(out, "controlnet"), np.random.default_rng(seed + 100)
    os.makedirs(folder, exist_ok=True)
    sd1, xl = fill(control_shapes(UNET), rng), fill(control_shapes(SDXL_UNET), rng)
    write_safetensors(os.path.join(folder, "tiny-canny.safetensors"), prefixed("control_model.", sd1), "F32")
    write_safetensors(os.path.join(folder, "tiny-diffusers.safetensors"),
                      {control_diffusers_name(k, UNET["blocks"]): v for k, v in sd1.items()}, "F16")
    write_safetensors(os.path.join(folder, "tiny-xl.safetensors"),
                      {control_diffusers_name(k, SDXL_UNET["blocks"]): v for k, v in xl.items()}, "F32")


def vision_shapes(width, layers, patch, size, projected):
    s, p = {"vision_model.embeddings.class_embedding": (width,)}, "vision_model."
    s[p + "embeddings.patch_embedding.weight"] = (width, 3, patch, patch)
    s[p + "embeddings.position_embedding.weight"] = ((size // patch) ** 2 + 1, width)
    for i in range(layers):
        clip_layer(s, p + f"encoder.layers.{i}.", width)
    norm(s, p + "pre_layrnorm", width)
    norm(s, p + "post_layernorm", width)
    linear(s, "visual_projection", width, projected, False)
    return s


def resampler_shapes(image, width, context, depth, inner, tokens):
    s, p = {"image_proj.latents": (1, tokens, width)}, "image_proj."
    linear(s, p + "proj_in", image, width)
    for i in range(depth):
        at = p + f"layers.{i}."
        for name in ("0.norm1", "0.norm2", "1.0"):
            norm(s, at + name, width)
        for name, a, b in (("0.to_q", width, inner), ("0.to_kv", width, 2 * inner), ("0.to_out", inner, width),
                           ("1.1", width, 4 * width), ("1.3", 4 * width, width)):
            linear(s, at + name, a, b, False)
    linear(s, p + "proj_out", width, context)
    norm(s, p + "norm_out", context)
    return s


def adapter_shapes(unet, image, plus=False):
    """The cross-attentions down, up and in the middle, as diffusers counts them: every second attention."""
    s, context = {}, unet["context"]
    if plus:
        s = resampler_shapes(image, 48, context, 2, 128, 6)
    else:
        linear(s, "image_proj.proj", image, 4 * context)
        norm(s, "image_proj.norm", context)
    names = [k for k in unet_shapes(**unet).items() if k[0].endswith("attn2.to_q.weight")]
    halves = [[shape for k, shape in names if k.startswith(half)] for half in ("input_blocks.", "output_blocks.", "middle_block.")]
    for i, shape in enumerate(halves[0] + halves[1] + halves[2]):
        for name in ("to_k_ip", "to_v_ip"):
            linear(s, f"ip_adapter.{2 * i + 1}.{name}", context, shape[0], False)
    return s


def write_ip_adapters(out, seed):
    rng = np.random.default_rng(seed + 200)
    for folder in ("ipadapter", "clip_vision"):
        os.makedirs(os.path.join(out, folder), exist_ok=True)
    vision = fill(vision_shapes(**VISION), rng)
    write_safetensors(os.path.join(out, "clip_vision/tiny-vision.safetensors"), vision, "F16")
    for name, unet, plus, dtype in (("ip", UNET, False, "F32"), ("ip-plus", UNET, True, "F16"), ("ip-xl", SDXL_UNET, False, "F32")):
        shapes = adapter_shapes(unet, VISION["width"] if plus else VISION["projected"], plus)
        write_safetensors(os.path.join(out, f"ipadapter/tiny-{name}.safetensors"), fill(shapes, rng), dtype)
    face = {"image_proj.proj.0.weight": (8, 8), "ip_adapter.1.to_k_ip.weight": (32, 32), "ip_adapter.0.to_q_lora.down.weight": (4, 32)}
    write_safetensors(os.path.join(out, "ipadapter/tiny-ip-faceid.safetensors"), fill(face, rng), "F32")


def write_sd1(out, seed):
    model = tiny(seed)
    whole = checkpoint(model)
    for dtype in ("F32", "F16", "BF16"):
        write_safetensors(os.path.join(out, f"tiny-sd1-{dtype.lower()}.safetensors"), whole, dtype)
    write_safetensors(os.path.join(out, "tiny-sd1-v.safetensors"), {**whole, "v_pred": np.zeros(0, np.float32)}, "F16",
                      {"modelspec.prediction_type": "v", "modelspec.resolution": "64x96"})
    write_safetensors(os.path.join(out, "tiny-vae.safetensors"), model["vae"], "F16")
    write_safetensors(os.path.join(out, "tiny-clip_l.safetensors"), prefixed("text_model.", model["clip"]), "F16")
    write_taesd(os.path.join(out, "tiny-taesd.safetensors"), seed)
    write_gguf(os.path.join(out, "tiny-sd1-unet-f16.gguf"), model["unet"], False)
    write_gguf(os.path.join(out, "tiny-sd1-unet-q8_0.gguf"), model["unet"], True)
    write_diffusers(os.path.join(out, "tiny-sd1-diffusers"), model, UNET["blocks"], model["clip"], "epsilon")
    write_loras(os.path.join(out, "loras"), model, seed)


def write_editors(out, seed):
    """The UNets whose input has more than the latent: for inpainting and for editing as a prompt says."""
    for name, channels in (("inpaint", 9), ("edit", 8)):
        rng = np.random.default_rng(seed + channels)
        model = {**tiny(seed), "unet": fill(unet_shapes(**{**UNET, "channels": channels}), rng)}
        write_safetensors(os.path.join(out, f"tiny-sd1-{name}.safetensors"), checkpoint(model), "F32")


def write_sd2(out, seed):
    model = tiny_sd2(seed)
    whole = checkpoint_sd2(model)
    write_safetensors(os.path.join(out, "tiny-sd2-f32.safetensors"), whole, "F32")
    write_diffusers(os.path.join(out, "tiny-sd2-diffusers"), model, SD2_UNET["blocks"], text_diffusers(model["clip"]),
                    "v_prediction")
    telling = "model.diffusion_model." + TELLING
    write_safetensors(os.path.join(out, "tiny-sd2-eps.safetensors"), {**whole, telling: whole[telling] / 4}, "F16")
    for name, channels in (("inpaint", 9), ("edit", 8)):
        editor = tiny_sd2(seed, {**SD2_UNET, "channels": channels})
        write_safetensors(os.path.join(out, f"tiny-sd2-{name}.safetensors"), checkpoint_sd2(editor), "F32")


def write_sdxl(out, seed):
    model = tiny_sdxl(seed)
    whole, clip_g = checkpoint_sdxl(model), text_diffusers_projected(model["clip_g"])
    blocks = SDXL_UNET["blocks"]
    write_safetensors(os.path.join(out, "tiny-sdxl-f32.safetensors"), whole, "F32")
    write_diffusers(os.path.join(out, "tiny-sdxl-diffusers"), model, blocks, model["clip"], "epsilon", clip_g)
    unet = {unet_diffusers_name(k, blocks): v for k, v in model["unet"].items()}
    write_safetensors(os.path.join(out, "tiny-sdxl-unet.safetensors"), unet, "F16")
    write_safetensors(os.path.join(out, "tiny-sdxl-clip_l.safetensors"), prefixed("text_model.", model["clip"]), "F16")
    write_safetensors(os.path.join(out, "tiny-sdxl-clip_g.safetensors"), clip_g, "F16")
    marks = {"v_pred": np.zeros(0, np.float32), "ztsnr": np.zeros(0, np.float32)}
    write_safetensors(os.path.join(out, "tiny-sdxl-v.safetensors"), {**whole, **marks}, "F16")
    write_sdxl_loras(os.path.join(out, "loras"), model, seed)
    write_safetensors(os.path.join(out, "tiny-sdxl-refiner-f32.safetensors"), checkpoint_sdxl(tiny_refiner(seed)), "F32")
    for name, unet in (("ssd-f32", SSD_UNET), ("vega-f32", VEGA_UNET), ("sdxl-inpaint", {**SDXL_UNET, "channels": 9}),
                       ("sdxl-edit", {**SDXL_UNET, "channels": 8})):
        write_safetensors(os.path.join(out, f"tiny-{name}.safetensors"), checkpoint_sdxl(tiny_sdxl(seed, unet)), "F32")


def write_bk(out, seed):
    model = tiny(seed, BK_UNET)
    write_safetensors(os.path.join(out, "tiny-bk-f32.safetensors"), checkpoint(model), "F32")
    write_diffusers(os.path.join(out, "tiny-bk-diffusers"), model, BK_UNET["blocks"], model["clip"], "epsilon")


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    out, seed = sys.argv[1], int(sys.argv[2]) if len(sys.argv) == 3 else 1
    os.makedirs(out, exist_ok=True)
    write_sd1(out, seed)
    write_editors(out, seed)
    write_sd2(out, seed)
    write_sdxl(out, seed)
    write_bk(out, seed)
    write_controlnets(out, seed)
    write_ip_adapters(out, seed)


if __name__ == "__main__":
    main()
