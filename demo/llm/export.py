#!/usr/bin/env python3
"""Writes the trained language model as a GGUF.

    export.py STATE_DIR OUT.gguf [--type f16|f32|q8_0]

Takes STATE_DIR/weights.pt, or what training has reached so far (state.pt).
"""
import argparse
from pathlib import Path

import torch

from network import Network, Shape
from tokenizer import Tokenizer  # also puts tools/ on the path
from make_tiny_llm import F16, F32, Q8_0, STRING, metadata, write_gguf

NAME = "Mysti demo writer"
ABOUT = ("Makes short picture prompts of the demo image model's domain richer and answers a few questions about Mysti. "
         "Trained by the Mysti project on text from demo/llm.")


def load(folder):
    """(network, tokenizer) of a training's folder."""
    tokenizer = Tokenizer.load(folder / "tokenizer.json")
    network = Network(Shape(len(tokenizer.tokens)))
    if (folder / "weights.pt").exists():
        weights = torch.load(folder / "weights.pt", map_location="cpu")
    else:
        weights = torch.load(folder / "state.pt", map_location="cpu")["network"]
    network.load_state_dict(weights)
    return network.eval(), tokenizer


def gguf_weights(network):
    """The network's tensors by libllama's names; there is no output.weight: the head is the embedding."""
    out = {"token_embd.weight": network.token_embd.weight, "output_norm.weight": network.output_norm.weight}
    for i, block in enumerate(network.blk):
        q, k, v = block.attn_qkv.weight.chunk(3)
        gate, up = block.ffn_gate_up.weight.chunk(2)
        parts = {"attn_norm": block.attn_norm.weight, "attn_q": q, "attn_k": k, "attn_v": v,
                 "attn_output": block.attn_output.weight, "ffn_norm": block.ffn_norm.weight, "ffn_gate": gate,
                 "ffn_up": up, "ffn_down": block.ffn_down.weight}
        out |= {f"blk.{i}.{name}.weight": w for name, w in parts.items()}
    return {name: w.detach().numpy() for name, w in out.items()}


def rows(tokenizer, shape, kind):
    """The GGUF's metadata."""
    own = {"general.name": NAME, "general.description": ABOUT, "general.license": "cc0-1.0"}
    rest = [r for r in metadata(tokenizer, shape, kind, shape.context, True) if r[0] not in own]
    return rest[:1] + [(key, STRING, text) for key, text in own.items()] + rest[1:]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("folder", type=Path)
    p.add_argument("out", type=Path)
    p.add_argument("--type", choices=["f32", "f16", "q8_0"], default="f16")
    a = p.parse_args()
    kind = {"f32": F32, "f16": F16, "q8_0": Q8_0}[a.type]
    network, tokenizer = load(a.folder)
    a.out.parent.mkdir(parents=True, exist_ok=True)
    write_gguf(a.out, rows(tokenizer, network.shape, kind), gguf_weights(network), kind)


if __name__ == "__main__":
    main()
