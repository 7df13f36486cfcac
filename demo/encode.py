"""Pictures to latents: encode.py PICTURES.npy VAE.pt|MODEL.safetensors OUT.npy [--count N]

The autoencoder's averaged weights are taken, and the latents' mean and scale folded into its 1x1 convolutions, so
that latents times 0.18215 have mean 0 and deviation 1 as in Stable Diffusion. OUT.npy: float16 [N, 8, 16, 16], mean
and log-variance; OUT.pt beside it: the folded weights. A finished model's are folded already."""
import argparse
import os

import numpy as np
import torch

import model

BATCH, MEASURED = 32, 1024


def moments(vae, data, first, count):
    """[count, 8, 16, 16]"""
    batch = torch.from_numpy(np.array(data[first : first + count])).to(model.DEVICE)
    x = (batch.permute(0, 3, 1, 2).float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)
    with torch.no_grad(), model.autocast():
        return vae.quant_conv(vae.encoder(x)).float()


def fold(vae, data):
    """Makes each channel of the scaled latents mean 0, deviation 1, and leaves decode(encode(x)) as it was."""
    seen = torch.cat([moments(vae, data, i, BATCH) for i in range(0, MEASURED, BATCH)])
    mean, log_variance = seen.chunk(2, dim=1)
    center = mean.mean((0, 2, 3))
    deviation = (mean.var((0, 2, 3)) + log_variance.exp().mean((0, 2, 3))).sqrt()
    gain = 1 / (vae.scale * deviation)
    print("latents: mean", center.tolist(), "deviation", deviation.tolist(),
          "own noise", log_variance.exp().mean((0, 2, 3)).sqrt().tolist())
    c = model.CHANNELS
    with torch.no_grad():
        vae.quant_conv.weight[:c] *= gain[:, None, None, None]
        vae.quant_conv.bias[:c] = (vae.quant_conv.bias[:c] - center) * gain
        vae.quant_conv.bias[c:] += 2 * gain.log()
        vae.post_quant_conv.bias += vae.post_quant_conv.weight[:, :, 0, 0] @ center
        vae.post_quant_conv.weight /= gain[None, :, None, None]


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("pictures")
    arguments.add_argument("vae")
    arguments.add_argument("out")
    arguments.add_argument("--count", type=int, default=1 << 30)
    options = arguments.parse_args()
    data = np.load(options.pictures, mmap_mode="r")
    count = min(options.count, len(data))
    vae = model.prepare(model.Vae())
    folded = os.path.splitext(options.out)[0] + ".pt"
    if os.path.exists(folded):
        vae.load_state_dict(torch.load(folded))
    elif options.vae.endswith(".safetensors"):
        vae.load_state_dict(model.read_checkpoint(options.vae)["vae"])
        model.save(folded, vae.state_dict())
    else:
        vae.load_state_dict(torch.load(options.vae)["average"])
        fold(vae, data)
        model.save(folded, {name: p.clone() for name, p in vae.state_dict().items()})
    out = np.lib.format.open_memmap(options.out + ".new", "w+", np.float16, (count, 8, model.LATENT, model.LATENT))
    for first in range(0, count, BATCH):
        out[first : first + BATCH] = moments(vae, data, first, min(BATCH, count - first)).cpu().numpy()
        if first % 6400 == 0:
            print(first, "of", count, flush=True)
    out.flush()
    os.replace(options.out + ".new", options.out)


if __name__ == "__main__":
    main()
