"""Random LoRA and LyCORIS files for tests, and what each makes of a model's weights. Needs numpy.

A layer is a name without ".weight", of the UNet as the original checkpoints have it ("input_blocks.1.1.proj_in"), or of a
text encoder behind "text_model." ("encoder.layers.0.mlp.fc1"); components are "unet", "te", and in SDXL "te1" and "te2". `merged()` is the reference: it reads a file back and adds in
float64, by the formulas of the papers and of LyCORIS. Shapes are PyTorch's; k stands for a kernel's sizes."""
import json
import struct

import numpy as np

# --- what layers are called -------------------------------------------------------------------------------------------

RESNET = {"in_layers.0": "norm1", "in_layers.2": "conv1", "emb_layers.1": "time_emb_proj", "out_layers.0": "norm2",
          "out_layers.3": "conv2", "skip_connection": "conv_shortcut"}
ENDS = {"input_blocks.0.0": "conv_in", "out.0": "conv_norm_out", "out.2": "conv_out",
        "label_emb.0.0": "add_embedding.linear_1", "label_emb.0.2": "add_embedding.linear_2",
        "time_embed.0": "time_embedding.linear_1", "time_embed.2": "time_embedding.linear_2"}


def diffusers_names(layers):
    """{layer: its name in diffusers} for all layers of a UNet. Blocks end where there is a down- or upsampler."""
    out, block, index = {}, {}, {}
    at = [0, 0]
    for n in range(1, 64):
        block["input_blocks", n], index["input_blocks", n] = at[0], at[1]
        at[1] += 1
        if f"input_blocks.{n}.0.op" in layers:
            at = [at[0] + 1, 0]
    at = [0, 0]
    for n in range(64):
        block["output_blocks", n], index["output_blocks", n] = at[0], at[1]
        at[1] += 1
        if f"output_blocks.{n}.1.conv" in layers or f"output_blocks.{n}.2.conv" in layers:
            at = [at[0] + 1, 0]
    for layer in layers:
        part = layer.split(".")
        rest = ".".join(part[3:])
        if layer in ENDS:
            out[layer] = ENDS[layer]
        elif part[0] == "middle_block":
            rest = ".".join(part[2:])
            out[layer] = f"mid_block.attentions.0.{rest}" if part[1] == "1" else f"mid_block.resnets.{int(part[1]) // 2}.{RESNET[rest]}"
        else:
            side = "down_blocks" if part[0] == "input_blocks" else "up_blocks"
            b, i = block[part[0], int(part[1])], index[part[0], int(part[1])]
            if rest == "op":
                out[layer] = f"{side}.{b}.downsamplers.0.conv"
            elif rest == "conv":
                out[layer] = f"{side}.{b}.upsamplers.0.conv"
            elif part[2] == "0":
                out[layer] = f"{side}.{b}.resnets.{i}.{RESNET[rest]}"
            else:
                out[layer] = f"{side}.{b}.attentions.{i}.{rest}"
    return out


def file_names(naming, component, layers):
    """{layer: what a file calls it, without the part's ending}; layers that the naming has not are left out."""
    if component.startswith("te"):
        dotted = {x: "text_model." + x for x in layers if x != "text_projection"}
        if naming in ("kohya", "ldm"):
            return {x: f"lora_{component}_" + y.replace(".", "_") for x, y in dotted.items()}
        encoder = "text_encoder_2." if component == "te2" else "text_encoder."
        return {x: encoder + y for x, y in dotted.items()} if naming != "processor" else {}
    nested = diffusers_names(layers)
    if naming == "kohya":
        return {x: "lora_unet_" + y.replace(".", "_") for x, y in nested.items()}
    if naming == "ldm":
        return {x: "lora_unet_" + x.replace(".", "_") for x in layers}
    if naming == "processor":
        out = {}
        for x, y in nested.items():
            head, _, projection = y.partition(".to_")
            if projection:
                out[x] = f"{head}.processor.to_{projection.split('.')[0]}"
        return {x: "unet." + y for x, y in out.items()}
    return {x: "unet." + y for x, y in nested.items()}


ENDINGS = {"kohya": {}, "ldm": {},
           "peft": {".lora_up.weight": ".lora_B.weight", ".lora_down.weight": ".lora_A.weight",
                    ".dora_scale": ".lora_magnitude_vector"},
           "diffusers": {".lora_up.weight": ".lora.up.weight", ".lora_down.weight": ".lora.down.weight"},
           "processor": {".lora_up.weight": "_lora.up.weight", ".lora_down.weight": "_lora.down.weight"}}

# --- kinds: (rng, shape of the weight, rank) -> {ending: array} -------------------------------------------------------


def randn(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


def ones_like_kernel(shape):
    return (1,) * (len(shape) - 2)


def lora(rng, shape, r):
    return {".lora_up.weight": randn(rng, shape[0], r, *ones_like_kernel(shape)), ".lora_down.weight": randn(rng, r, *shape[1:]),
            ".alpha": np.float32(rng.choice([0.5, 1, 2 * r]))}


def plain(rng, shape, r):
    """Without alpha: what is not said is 1."""
    parts = lora(rng, shape, r)
    del parts[".alpha"]
    return parts


def locon(rng, shape, r):
    """Kernels through a Tucker core."""
    if len(shape) < 4 or shape[2] == 1:
        return lora(rng, shape, r)
    return {".lora_up.weight": randn(rng, shape[0], r, 1, 1), ".lora_down.weight": randn(rng, r, shape[1], 1, 1),
            ".lora_mid.weight": randn(rng, r, r, *shape[2:]), ".alpha": np.float32(r / 2)}


def loha(rng, shape, r):
    """Kernels as they are, or through cores."""
    out, has_core = {".alpha": np.float32(rng.choice([1, r]))}, len(shape) == 4 and shape[2] > 1 and rng.integers(2)
    for n in "12":
        if has_core:
            out[f".hada_t{n}"] = randn(rng, r, r, *shape[2:])
            out[f".hada_w{n}_a"], out[f".hada_w{n}_b"] = randn(rng, r, shape[0]), randn(rng, r, shape[1])
        else:
            out[f".hada_w{n}_a"], out[f".hada_w{n}_b"] = randn(rng, shape[0], r), randn(rng, r, int(np.prod(shape[1:])))
    return out


def divisor(rng, n):
    return int(rng.choice([d for d in (1, 2, 4, 8) if n % d == 0]))


def lokr(rng, shape, r):
    a, b = divisor(rng, shape[0]), divisor(rng, shape[1])
    o, i, k = shape[0] // a, shape[1] // b, list(shape[2:])
    out = {".alpha": np.float32(r / 2)}
    if rng.integers(2):
        out[".lokr_w1"] = randn(rng, a, b)
    else:
        out[".lokr_w1_a"], out[".lokr_w1_b"] = randn(rng, a, r), randn(rng, r, b)
    way = rng.integers(3)
    if way == 0:
        out[".lokr_w2"] = randn(rng, o, i, *k)
    elif way == 1 and k and k[0] > 1:
        out[".lokr_t2"], out[".lokr_w2_a"], out[".lokr_w2_b"] = randn(rng, r, r, *k), randn(rng, r, o), randn(rng, r, i)
    else:
        out[".lokr_w2_a"], out[".lokr_w2_b"] = randn(rng, o, r), randn(rng, r, int(np.prod([i] + k)))
    return out


def full(rng, shape, r):
    if len(shape) == 1:
        return {".w_norm": randn(rng, *shape), ".b_norm": randn(rng, *shape) * np.float32(0.1)}
    return {".diff": randn(rng, *shape), ".diff_b": randn(rng, shape[0]) * np.float32(0.1)}


def dora(rng, shape, r):
    """Any kind, with lengths by output or by input."""
    parts = (lora, loha, lokr)[rng.integers(3)](rng, shape, r)
    k = ones_like_kernel(shape)
    size = (shape[0], 1, *k) if rng.integers(2) else (1, shape[1], *k)
    parts[".dora_scale"] = (1 + 0.2 * randn(rng, *size)).astype(np.float32)
    return parts


def peft_dora(rng, shape, r):
    parts = plain(rng, shape, r)
    parts[".dora_scale"] = (1 + 0.2 * randn(rng, shape[0])).astype(np.float32)
    return parts


# --- the reference ----------------------------------------------------------------------------------------------------


def cored(core, b):
    """core [n, m, k], b [m, in] -> [n, in, k]"""
    return np.einsum("nmk,mi->nik", core.reshape(*core.shape[:2], -1), b.reshape(b.shape[0], -1))


def product(a, b, core=None):
    """[out, in k]; with a core `a` is [r, out]"""
    if core is None:
        return a.reshape(a.shape[0], -1) @ b.reshape(b.shape[0], -1)
    y = cored(core, b)
    return a.T @ y.reshape(y.shape[0], -1)


def scale_of(p, rank):
    if ".scale" in p:
        return float(p[".scale"])
    return float(p[".alpha"]) / rank if ".alpha" in p and rank else 1.0


def delta(parts, shape):
    """The change of a weight at strength 1, without DoRA: [*shape], float64."""
    p = {k: np.asarray(v, np.float64) for k, v in parts.items()}
    rank = None
    if ".lora_up.weight" in p:
        up, down = p[".lora_up.weight"], p[".lora_down.weight"]
        up, rank = up.reshape(up.shape[0], -1), down.shape[0]
        y = product(up.T, down, p[".lora_mid.weight"]) if ".lora_mid.weight" in p else product(up, down)
    elif ".hada_w1_a" in p:
        rank = p[".hada_w1_b"].shape[0]
        y = product(p[".hada_w1_a"], p[".hada_w1_b"], p.get(".hada_t1")) * product(p[".hada_w2_a"], p[".hada_w2_b"], p.get(".hada_t2"))
    elif ".lokr_w1" in p or ".lokr_w1_a" in p:
        if ".lokr_w1_b" in p:
            rank = p[".lokr_w1_b"].shape[0]
        if ".lokr_w2_b" in p:
            rank = p[".lokr_w2_b"].shape[0]
        w1 = p[".lokr_w1"] if ".lokr_w1" in p else p[".lokr_w1_a"] @ p[".lokr_w1_b"]
        w2 = p[".lokr_w2"] if ".lokr_w2" in p else product(p[".lokr_w2_a"], p[".lokr_w2_b"], p.get(".lokr_t2"))
        w2 = w2.reshape(w2.shape[0], -1)
        y = np.kron(w1, w2)
    else:
        y = p.get(".diff", p.get(".w_norm"))
    return y.reshape(shape) * scale_of(p, rank)


def rescaled(w, dora_scale):
    """w with its rows, or its input channels, of the stored lengths."""
    s = np.asarray(dora_scale, np.float64)
    by_row = s.ndim == 1 or s.shape[0] == w.shape[0] and s.shape[0] != 1
    axes = tuple(a for a in range(w.ndim) if a != (0 if by_row else 1))
    length = np.sqrt((w**2).sum(axis=axes, keepdims=True))
    return w * (s.reshape(length.shape) / length)


def changed(w, parts, strength):
    w = np.asarray(w, np.float64)
    d = delta(parts, w.shape)
    if ".dora_scale" in parts:
        return w + strength * (rescaled(w + d, parts[".dora_scale"]) - w)
    return w + strength * d


def merged(path, naming, component, state, strength):
    """A state dict {name: array} of one component with the file's layers on it, float64; and how many tensors changed."""
    layers = {k[: -len(".weight")]: v for k, v in state.items() if k.endswith(".weight")}
    called = {v: k for k, v in file_names(naming, component, list(layers)).items()}
    back = {v: k for k, v in ENDINGS[naming].items()}
    parts = {}
    for name, a in read(path).items():
        for ending in list(back) + ALL_ENDINGS:
            if name.endswith(ending) and name[: -len(ending)] in called:
                parts.setdefault(called[name[: -len(ending)]], {})[back.get(ending, ending)] = a
    out, count = {k: np.asarray(v, np.float64) for k, v in state.items()}, 0
    for layer, p in parts.items():
        bias = next((p[k] for k in (".diff_b", ".b_norm") if k in p), None)
        if set(p) - {".diff_b", ".b_norm"}:
            out[layer + ".weight"] = changed(out[layer + ".weight"], p, strength)
            count += 1
        if bias is not None:
            out[layer + ".bias"] = out[layer + ".bias"] + strength * np.asarray(bias, np.float64)
            count += 1
    return out, count


ALL_ENDINGS = [".lora_up.weight", ".lora_down.weight", ".lora_mid.weight", ".alpha", ".scale", ".dora_scale", ".hada_w1_a",
               ".hada_w1_b", ".hada_w2_a", ".hada_w2_b", ".hada_t1", ".hada_t2", ".lokr_w1", ".lokr_w1_a", ".lokr_w1_b",
               ".lokr_w2", ".lokr_w2_a", ".lokr_w2_b", ".lokr_t2", ".diff", ".diff_b", ".w_norm", ".b_norm"]

# --- files ------------------------------------------------------------------------------------------------------------


def is_matrix(layer, shape):
    return len(shape) > 1


def is_attention(layer, shape):
    return ".to_" in layer or ".self_attn." in layer


def anything(layer, shape):
    return True


# naming, kind, which layers
FILES = {"lora": ("kohya", lora, is_attention), "locon": ("kohya", locon, is_matrix), "loha": ("kohya", loha, is_matrix),
         "lokr": ("kohya", lokr, is_matrix), "full": ("kohya", full, anything), "dora": ("kohya", dora, is_matrix),
         "ldm": ("ldm", lora, is_attention), "peft": ("peft", plain, is_matrix), "peft-dora": ("peft", peft_dora, is_matrix),
         "diffusers": ("diffusers", plain, is_attention), "processor": ("processor", plain, is_attention)}
XL_FILES = ("lora", "ldm", "lokr", "peft")  # for SDXL


def with_size(parts, shape):
    """Scaled so that the change is about half as large as a weight that keeps signals' size, or small for a norm."""
    want = 0.2 if len(shape) == 1 else 0.5 / np.sqrt(np.prod(shape[1:]))
    first = next(k for k in (".lora_up.weight", ".hada_w1_a", ".lokr_w1", ".lokr_w1_a", ".diff", ".w_norm") if k in parts)
    parts[first] = parts[first] * np.float32(want / max(1e-6, delta(parts, shape).std()))
    if ".dora_scale" in parts:
        parts[".dora_scale"] = parts[".dora_scale"] * np.float32(np.sqrt(np.prod(shape) / parts[".dora_scale"].size) / np.sqrt(np.prod(shape[1:])))
    return parts


def make(rng, file, components):
    """A file's tensors: {name: array}. components: {"unet": {tensor: shape}, "te": {...}}, either may be missing."""
    naming, kind, takes = FILES[file]
    out = {}
    for component, shapes in components.items():
        layers = {k[: -len(".weight")]: tuple(v) for k, v in shapes.items() if k.endswith(".weight") and "embeddings." not in k}
        for layer, name in file_names(naming, component, list(layers)).items():
            shape = layers[layer]
            if not takes(layer, shape):
                continue
            parts = with_size(kind(rng, shape, int(rng.integers(1, 5))), shape)
            if layer + ".bias" not in shapes:
                parts.pop(".diff_b", None)
            for ending, a in parts.items():
                out[name + ENDINGS[naming].get(ending, ending)] = a
    return out


def write(path, tensors, dtype="F16", metadata=None):
    header, data, at = {}, [], 0
    if metadata:
        header["__metadata__"] = metadata
    for name, a in tensors.items():
        a = np.asarray(a)
        raw = a.astype({"F16": np.float16, "F32": np.float32}[dtype]).tobytes()
        header[name] = {"dtype": dtype, "shape": list(a.shape), "data_offsets": [at, at + len(raw)]}
        data.append(raw)
        at += len(raw)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        f.writelines(data)


def read(path):
    with open(path, "rb") as f:
        header = json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))
        data = f.read()
    out = {}
    for name, t in header.items():
        if name != "__metadata__":
            a, b = t["data_offsets"]
            out[name] = np.frombuffer(data[a:b], {"F16": np.float16, "F32": np.float32}[t["dtype"]]).reshape(t["shape"])
    return out
