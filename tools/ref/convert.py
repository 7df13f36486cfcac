#!/usr/bin/env python3
"""Converted models make the same pictures: convert.py PROGRAM MODELS [SEED]

`PROGRAM convert` (mysti_sd_worker) on a tiny model in every form it comes in: the checkpoint, the diffusers folder, parts in
files of their own, and PyTorch files that are written here. In f32, f16 and bf16, in which the tiny models' numbers are
exact, the picture is the same but for rounding while it is computed; in a quantised type it is as near as the type allows."""
import os
import random
import subprocess
import sys
import tempfile

import numpy as np
import torch

import picture


def run(program, *args, fails=False):
    done = subprocess.run([program, *args], capture_output=True, text=True)
    if bool(done.returncode) != fails:
        sys.exit(" ".join(args) + ": " + done.stderr)
    return done.stderr


def make(program, files, case, folder):
    out = os.path.join(folder, "out.png")
    run(program, "generate", *files, "--threads", "1", "--precision", "f32", "--output", out, "--prompt", case["prompt"], "--width", "64", "--height",
        "88", "--steps", "4", "--cfg-scale", "5", "--seed", str(case["seed"]), "--sampler", "euler")
    return picture.read_png(out)


def main(program, models, seed):
    print("seed", seed)
    case = {"prompt": "a fox of glass", "seed": seed}
    whole = os.path.join(models, "tiny-sd1-f32.safetensors")
    with tempfile.TemporaryDirectory() as folder:
        tensors = picture.read_safetensors(whole)
        ckpt, old = os.path.join(folder, "x.ckpt"), os.path.join(folder, "y.ckpt")
        torch.save({"state_dict": tensors, "global_step": 7}, ckpt)
        torch.save(tensors, old, _use_new_zipfile_serialization=False)
        want = make(program, ["--model", whole], case, folder)
        assert np.ptp(want) > 30, "a picture without contrast"
        for path in (ckpt, old):  # used as they are
            assert (make(program, ["--model", path], case, folder) == want).all(), path
        parts = ["--diffusion-model", whole, "--vae", os.path.join(models, "tiny-vae.safetensors"), "--clip_l",
                 os.path.join(models, "tiny-clip_l.safetensors")]
        forms = {"checkpoint": ["--model", whole], "folder": ["--model", os.path.join(models, "tiny-sd1-diffusers")],
                 "ckpt": ["--model", ckpt], "old ckpt": ["--model", old], "parts": parts,
                 "gguf unet": ["--model", whole, "--diffusion-model", os.path.join(models, "tiny-sd1-unet-f16.gguf")]}
        out = os.path.join(folder, "made.gguf")
        for name, files in forms.items():
            direct = make(program, files, case, folder)
            for kind, least in (("f32", 50), ("f16", 50), ("bf16", 42)):
                run(program, "convert", *files, "--type", kind, "-o", out, "-q")
                db = picture.psnr(make(program, ["--model", out], case, folder), direct)
                print("%-10s %-6s %.1f dB" % (name, kind, db))
                # The type of the weights decides what activations are rounded to on the CPU, so the bits differ.
                assert db >= least, "not the same picture"
        for kind, least in {"q8_0": 31, "q6_K": 31, "q5_1": 24, "q5_0": 22, "q4_K": 22, "q4_1": 17, "q4_0": 17}.items():
            run(program, "convert", "--model", ckpt, "--type", kind, "--tensor-types", "cond_stage_model.*=f16", "-o", out, "-q")
            db = picture.psnr(make(program, ["--model", out], case, folder), want)
            print("%-10s %-6s %.1f dB" % ("quantised", kind, db))
            assert db >= least, "further off than the type explains"
        sd2 = os.path.join(models, "tiny-sd2-diffusers")  # says that it predicts v in a file beside the weights
        run(program, "convert", "--model", sd2, "--type", "f32", "-o", out, "-q")
        same = (make(program, ["--model", out], case, folder) == make(program, ["--model", sd2], case, folder)).all()
        assert same, "another picture of a converted folder"
        os.remove(out)
        assert "unknown 'q4_K_M'" in run(program, "convert", "--model", whole, "--type", "q4_K_M", "-o", out, fails=True)
        assert "is the model itself" in run(program, "convert", "--model", whole, "-o", whole, fails=True)
        assert not os.path.exists(out) and os.path.getsize(whole) > 0


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else random.randrange(2**31))
