"""A Stable Diffusion checkpoint of any size as the reference's networks (tools/ref/networks.py): family, widths and depths
are read from the tensors' names and shapes. Tensors are converted to single precision when a network is built, not before."""
import json
import struct

import networks
import numpy as np
import torch

UNET, VAE = "model.diffusion_model.", "first_stage_model."
TYPES = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": np.uint16}
IGNORED = ("position_ids", "logit_scale", "text_projection")  # in checkpoints, but in no forward pass that asks for them


class Unfit(Exception):
    """The file is none that the reference can read; the message says why."""


class Checkpoint:
    def __init__(self, path):
        self.path = path
        with open(path, "rb") as f:
            size = struct.unpack("<Q", f.read(8).ljust(8, b"\xff"))[0]
            if size > 100 << 20:
                raise Unfit("no safetensors file")
            header = json.loads(f.read(size))
        self.metadata = header.pop("__metadata__", {})
        self.header, self.data = header, np.memmap(path, np.uint8, "r", 8 + size)
        self.family = self.told_family()

    def told_family(self):
        if not self.has(UNET + "input_blocks."):
            raise Unfit("no UNet in the names of the original checkpoints ('%s...')" % UNET)
        for start, name in (("conditioner.embedders.1.model.", "sdxl"), ("conditioner.embedders.0.model.", "sdxl-refiner"),
                            ("cond_stage_model.model.", "sd2"), ("cond_stage_model.transformer.", "sd1")):
            if self.has(start):
                return name
        raise Unfit("no text encoder in the names of the original checkpoints")

    # --- tensors ---

    def has(self, start):
        return any(name.startswith(start) for name in self.header)

    def shape(self, name):
        return self.header[name]["shape"]

    def is_half(self, prefix):
        """Whether its matrices are rounded further than to single precision."""
        return any(k.startswith(prefix) and len(t["shape"]) > 1 and t["dtype"] not in ("F32", "F64") for k, t in self.header.items())

    def tensor(self, name):
        about = self.header[name]
        a, b = about["data_offsets"]
        if about["dtype"] not in TYPES:
            raise Unfit("'%s' is of type %s; readable are %s" % (name, about["dtype"], ", ".join(TYPES)))
        values = np.asarray(self.data[a:b]).view(TYPES[about["dtype"]])
        if about["dtype"] == "BF16":
            values = (values.astype(np.uint32) << 16).view(np.float32)
        return torch.from_numpy(values.astype(np.float32).reshape(about["shape"]))

    def fill(self, module, prefix):
        """Gives the network its weights, all of them; a 1x1 convolution may be kept as a matrix."""
        wanted = module.state_dict()
        missing = [k for k in wanted if prefix + k not in self.header]
        unknown = [k for k in self.header if k.startswith(prefix) and k[len(prefix) :] not in wanted and not k.endswith(IGNORED)]
        if missing or unknown:
            raise Unfit("'%s' is %s" % ((prefix + missing[0], "missing") if missing else (unknown[0], "no part of the reference's network")))
        module.load_state_dict({k: self.tensor(prefix + k).reshape(t.shape) for k, t in wanted.items()})
        return module.eval()

    def count(self, prefix):
        n = 0
        while self.has("%s%d." % (prefix, n)):
            n += 1
        return n

    # --- the UNet ---

    def depth(self, at):
        return self.count(at + "1.transformer_blocks.")

    def unet_shape(self):
        """The arguments of networks.UNet."""
        first = self.shape(UNET + "input_blocks.0.0.weight")
        mult, down, per_level = [], [], [0]
        for i in range(1, self.count(UNET + "input_blocks.")):
            at = UNET + "input_blocks.%d." % i
            if self.has(at + "0.op."):
                per_level.append(0)
                continue
            if per_level[-1] == 0:
                mult.append(self.shape(at + "0.out_layers.3.weight")[0] // first[0])
            per_level[-1] += 1
            down.append(self.depth(at))
        if len(set(per_level)) != 1:
            raise Unfit("levels of the UNet have different numbers of blocks: %s" % per_level)
        outputs = self.count(UNET + "output_blocks.")
        attends = next(k for k in self.header if k.startswith(UNET) and k.endswith("attn2.to_k.weight"))
        linear = len(self.shape(attends[: attends.index("transformer_blocks.")] + "proj_in.weight")) == 2
        context, label = self.shape(attends)[1], UNET + "label_emb.0.0.weight"
        return {"width": first[0], "mult": mult, "blocks": per_level[0], "attend": (), "context": context, "channels": first[1],
                "heads": None if linear and context != 768 else 8, "linear": linear,
                "depth": [1] * (len(mult) - 1) + [self.depth(UNET + "middle_block.") or 1],
                "label": self.shape(label)[1] if label in self.header else 0,
                "down": down, "up": [self.depth(UNET + "output_blocks.%d." % i) for i in range(outputs)],
                "middle": {0: "none", 1: "resnet", 3: "whole"}[self.count(UNET + "middle_block.")]}

    def unet(self):
        return self.fill(networks.UNet(**self.unet_shape()), UNET)

    # --- the autoencoder ---

    def vae_shape(self):
        """The arguments of networks.Vae but the scale."""
        width, encoder = self.shape(VAE + "encoder.conv_in.weight")[0], VAE + "encoder.down."
        levels = range(self.count(encoder))
        return {"width": width, "mult": [self.shape("%s%d.block.0.conv1.weight" % (encoder, i))[0] // width for i in levels],
                "blocks": self.count(encoder + "0.block."), "zc": self.shape(VAE + "decoder.conv_in.weight")[1]}

    def vae(self, scale):
        return self.fill(networks.Vae(**self.vae_shape(), scale=scale), VAE)

    # --- text encoders ---

    def clip_prefix(self):
        """Of CLIP ViT-L/14."""
        if self.family == "sdxl":
            return "conditioner.embedders.0.transformer.text_model."
        named = "cond_stage_model.transformer.text_model."
        return named if self.has(named) else "cond_stage_model.transformer."

    def clip_shape(self):
        """The arguments of networks.Clip."""
        at = self.clip_prefix()
        width = self.shape(at + "embeddings.token_embedding.weight")[1]
        return {"width": width, "layers": self.count(at + "encoder.layers."), "heads": max(1, width // 64)}

    def clip(self):
        return self.fill(networks.Clip(**self.clip_shape()), self.clip_prefix())

    def open_clip_prefix(self):
        return {"sd2": "cond_stage_model.model.", "sdxl": "conditioner.embedders.1.model.",
                "sdxl-refiner": "conditioner.embedders.0.model."}[self.family]

    def open_clip_shape(self):
        """The arguments of networks.OpenClip."""
        at = self.open_clip_prefix()
        width, pooled = self.shape(at + "token_embedding.weight")[1], 0
        if self.family != "sd2":
            pooled = self.shape(at + "text_projection")[1]
        return {"width": width, "layers": self.count(at + "transformer.resblocks."), "pooled": pooled}

    def open_clip(self):
        shape = self.open_clip_shape()
        return self.fill(networks.OpenClip(**shape, heads=max(1, shape["width"] // 64)), self.open_clip_prefix())

    # --- what it was trained for ---

    def prediction(self):
        """"v" or "eps", as the file says; of SD 2 only its weights tell (the bias of its last transformer, as A1111 asks it)."""
        said = self.metadata.get("modelspec.prediction_type", "")
        telling = UNET + "output_blocks.11.1.transformer_blocks.0.norm1.bias"
        if "v_pred" in self.header or said in ("v", "v_prediction"):
            return "v"
        if self.family == "sd2" and not said and telling in self.header and self.shape(UNET + "input_blocks.0.0.weight")[1] == 4:
            return "v" if self.tensor(telling).std(unbiased=False) > 0.09 else "eps"
        return "eps"

    def has_zero_snr(self):
        return "ztsnr" in self.header or self.metadata.get("mysti.zero_snr") == "true"
