#!/usr/bin/env python3
"""Tiny models with the topology of Stable Diffusion 1.x and random weights, for tests: make_tiny_models.py OUTDIR [SEED]

  tiny-sd1-f32.safetensors        whole checkpoint, LDM names; the same numbers in
  tiny-sd1-f16.safetensors        half precision
  tiny-sd1-bf16.safetensors       bfloat16
  tiny-sd1-diffusers/             the diffusers folder layout
  tiny-sd1-unet-f16.gguf          the UNet alone (community layout, no prefix)
  tiny-sd1-unet-q8_0.gguf         the same, matrices quantised
  tiny-clip_l.safetensors         the text encoder alone
  tiny-vae.safetensors            the autoencoder alone
  tiny-sd1-v.safetensors          f16, marked as predicting v and as trained on 64x96

All hold the same numbers, chosen so that they are exact in f32, f16 and bf16 (but for q8_0). Deterministic by seed.
Needs numpy. The writers below know just enough of each format for this purpose."""
import json
import os
import struct
import sys

import numpy as np

# One entry per level: channels are `width` times the number; levels in `attention` have transformers.
UNET = dict(width=32, mult=(1, 1, 2, 2), blocks=2, attention=(0, 1, 2), context=32, channels=4)
VAE = dict(width=32, mult=(1, 1, 1, 1), blocks=2, channels=4)
CLIP = dict(width=32, layers=2, vocabulary=49408, positions=77)


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


def unet_transformer(s, p, c, context):
    norm(s, p + "norm", c)
    conv(s, p + "proj_in", c, c, 1)
    block = p + "transformer_blocks.0."
    for name, kv in (("attn1", c), ("attn2", context)):
        linear(s, block + name + ".to_q", c, c, False)
        linear(s, block + name + ".to_k", kv, c, False)
        linear(s, block + name + ".to_v", kv, c, False)
        linear(s, block + name + ".to_out.0", c, c)
    linear(s, block + "ff.net.0.proj", c, 8 * c)
    linear(s, block + "ff.net.2", 4 * c, c)
    for k in "123":
        norm(s, block + "norm" + k, c)
    conv(s, p + "proj_out", c, c, 1)


def unet_shapes(width, mult, blocks, attention, context, channels):
    s, emb = {}, 4 * width
    linear(s, "time_embed.0", width, emb)
    linear(s, "time_embed.2", emb, emb)
    conv(s, "input_blocks.0.0", channels, width, 3)
    c, skips, n = width, [width], 1
    for level, m in enumerate(mult):
        for _ in range(blocks):
            unet_resnet(s, f"input_blocks.{n}.0.", c, m * width, emb)
            c = m * width
            if level in attention:
                unet_transformer(s, f"input_blocks.{n}.1.", c, context)
            skips.append(c)
            n += 1
        if level + 1 < len(mult):
            conv(s, f"input_blocks.{n}.0.op", c, c, 3)
            skips.append(c)
            n += 1
    unet_resnet(s, "middle_block.0.", c, c, emb)
    unet_transformer(s, "middle_block.1.", c, context)
    unet_resnet(s, "middle_block.2.", c, c, emb)
    n = 0
    for level, m in reversed(list(enumerate(mult))):
        for j in range(blocks + 1):
            unet_resnet(s, f"output_blocks.{n}.0.", c + skips.pop(), m * width, emb)
            c, slot = m * width, 1
            if level in attention:
                unet_transformer(s, f"output_blocks.{n}.1.", c, context)
                slot = 2
            if level and j == blocks:
                conv(s, f"output_blocks.{n}.{slot}.conv", c, c, 3)
            n += 1
    norm(s, "out.0", c)
    conv(s, "out.2", c, 4, 3)
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


def clip_shapes(width, layers, vocabulary, positions):
    s = {"embeddings.token_embedding.weight": (vocabulary, width),
         "embeddings.position_embedding.weight": (positions, width)}
    for i in range(layers):
        p = f"encoder.layers.{i}."
        for x in ("q_proj", "k_proj", "v_proj", "out_proj"):
            linear(s, p + "self_attn." + x, width, width)
        norm(s, p + "layer_norm1", width)
        norm(s, p + "layer_norm2", width)
        linear(s, p + "mlp.fc1", width, 4 * width)
        linear(s, p + "mlp.fc2", 4 * width, width)
    norm(s, "final_layer_norm", width)
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


def tiny(seed):
    rng = np.random.default_rng(seed)
    return dict(unet=fill(unet_shapes(**UNET), rng), vae=fill(vae_shapes(**VAE), rng), clip=fill(clip_shapes(**CLIP), rng))


def prefixed(prefix, tensors):
    return {prefix + k: v for k, v in tensors.items()}


def checkpoint(model):
    """Everything under LDM names, with the extra tensors that real checkpoints carry."""
    betas = np.linspace(0.00085**0.5, 0.0120**0.5, 1000, dtype=np.float64) ** 2
    extra = {"alphas_cumprod": np.cumprod(1 - betas).astype(np.float32),
             "cond_stage_model.transformer.text_model.embeddings.position_ids": np.arange(77, dtype=np.int64)[None]}
    return {**prefixed("model.diffusion_model.", model["unet"]), **prefixed("first_stage_model.", model["vae"]),
            **prefixed("cond_stage_model.transformer.text_model.", model["clip"]), **extra}


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
            "input_blocks.0.0": "conv_in", "out.0": "conv_norm_out", "out.2": "conv_out"}


def renamed(name, table):
    for old, new in table.items():
        if name == old or name.startswith(old + "."):
            return new + name[len(old):]
    return name


def unet_diffusers_name(name):
    name = renamed(name, UNET_TOP)
    part = name.split(".")
    rest = ".".join(part[3:])
    per_level = UNET["blocks"] + 1  # entries of a level: its resnets and, but for the last level, the downsampler
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


def write_json(path, value):
    with open(path, "w", encoding="utf-8") as f:
        json.dump(value, f, indent=2)


def write_diffusers(folder, model):
    unet = {unet_diffusers_name(k): v for k, v in model["unet"].items()}
    vae = {}
    for k, v in model["vae"].items():
        name = vae_diffusers_name(k)
        vae[name] = v[:, :, 0, 0] if ".attentions." in name and v.ndim == 4 else v  # linear layers there
    for part in ("unet", "vae", "text_encoder", "scheduler"):
        os.makedirs(os.path.join(folder, part), exist_ok=True)
    write_json(os.path.join(folder, "model_index.json"),
               {"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"],
                "vae": ["diffusers", "AutoencoderKL"], "text_encoder": ["transformers", "CLIPTextModel"],
                "scheduler": ["diffusers", "PNDMScheduler"]})
    write_json(os.path.join(folder, "scheduler", "scheduler_config.json"), {"prediction_type": "epsilon"})
    write_json(os.path.join(folder, "unet", "config.json"), {"_class_name": "UNet2DConditionModel"})
    write_json(os.path.join(folder, "vae", "config.json"), {"_class_name": "AutoencoderKL"})
    write_json(os.path.join(folder, "text_encoder", "config.json"), {"architectures": ["CLIPTextModel"]})
    weights = "diffusion_pytorch_model.safetensors"
    write_safetensors(os.path.join(folder, "unet", weights), unet, "F32")
    write_safetensors(os.path.join(folder, "vae", weights), vae, "F32")
    write_safetensors(os.path.join(folder, "text_encoder", "model.safetensors"),
                      prefixed("text_model.", model["clip"]), "F32")


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    out, seed = sys.argv[1], int(sys.argv[2]) if len(sys.argv) == 3 else 1
    os.makedirs(out, exist_ok=True)
    model = tiny(seed)
    whole = checkpoint(model)
    for dtype in ("F32", "F16", "BF16"):
        write_safetensors(os.path.join(out, f"tiny-sd1-{dtype.lower()}.safetensors"), whole, dtype)
    write_safetensors(os.path.join(out, "tiny-sd1-v.safetensors"), {**whole, "v_pred": np.zeros(0, np.float32)}, "F16",
                      {"modelspec.prediction_type": "v", "modelspec.resolution": "64x96"})
    write_safetensors(os.path.join(out, "tiny-vae.safetensors"), model["vae"], "F16")
    write_safetensors(os.path.join(out, "tiny-clip_l.safetensors"), prefixed("text_model.", model["clip"]), "F16")
    write_gguf(os.path.join(out, "tiny-sd1-unet-f16.gguf"), model["unet"], False)
    write_gguf(os.path.join(out, "tiny-sd1-unet-q8_0.gguf"), model["unet"], True)
    write_diffusers(os.path.join(out, "tiny-sd1-diffusers"), model)


if __name__ == "__main__":
    main()
