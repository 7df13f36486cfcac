#!/usr/bin/env python3
"""Inpainting, outpainting, editing and hires fix against PyTorch: edits.py PROGRAM MODELS VOCABULARY [SEED]

Runs `PROGRAM generate` (mysti_sd_worker) on tiny models with random parameters and makes the same pictures from numpy,
torch and the networks of picture.py alone, in the steps that AUTOMATIC1111 takes. Where a picture may be changed: at
least 40 dB of peak signal to noise; where it may not: the same bytes."""
import math
import os
import random
import sys
import tempfile

import numpy as np
import torch
import torch.nn.functional as F

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
import clip_bpe
import make_tiny_models as tiny
import picture
import sample

FILLS = ("original", "fill", "latent_noise", "latent_nothing")
LATENT_UPSCALERS = {"latent": ("bilinear", False), "latent-antialiased": ("bilinear", True), "latent-bicubic": ("bicubic", False),
                    "latent-bicubic-antialiased": ("bicubic", True), "latent-nearest": ("nearest", False),
                    "latent-nearest-exact": ("nearest-exact", False)}


class Inpainter(picture.Model):
    name, unet = "tiny-sd1-inpaint.safetensors", {**tiny.UNET, "channels": 9}


class Editor(picture.Model):
    name, unet = "tiny-sd1-edit.safetensors", {**tiny.UNET, "channels": 8}


class Sd2Inpainter(Inpainter, picture.Sd2):
    """Predicts the noise, other than the models of SD 2 whose weights tell v."""

    name, unet, predicts = "tiny-sd2-inpaint.safetensors", {**tiny.SD2_UNET, "channels": 9}, "eps"


class Sd2Editor(Editor, picture.Sd2):
    """Predicts the noise, likewise."""

    name, unet, predicts = "tiny-sd2-edit.safetensors", {**tiny.SD2_UNET, "channels": 8}, "eps"


class SdxlInpainter(Inpainter, picture.Sdxl):
    name, unet = "tiny-sdxl-inpaint.safetensors", {**tiny.SDXL_UNET, "channels": 9}


class SdxlEditor(Editor, picture.Sdxl):
    name, unet = "tiny-sdxl-edit.safetensors", {**tiny.SDXL_UNET, "channels": 8}


# --- pixels -----------------------------------------------------------------------------------------------------------


def along_both(a, line):
    """A function of lines, over columns and rows of [h, w]."""
    return np.apply_along_axis(line, 0, np.apply_along_axis(line, 1, a))


def gaussian(mask, sigma):
    """OpenCV's on bytes, one direction after the other."""
    if not sigma:
        return mask
    r = int(2.5 * sigma + 0.5)
    k = np.exp(-np.arange(-r, r + 1) ** 2 / (2 * sigma**2))
    rows = lambda a: np.rint(np.apply_along_axis(lambda v: np.convolve(np.pad(v, r, "reflect"), k / k.sum(), "valid"), 1, a))
    return rows(rows(mask).T).T


def pillow_blur(plane, sigma):
    """Pillow's GaussianBlur without its rounding: three boxes with a fractional edge."""
    if not sigma:
        return plane
    v = sigma**2 / 3
    whole = int((math.sqrt(12 * v + 1) - 1) / 2)
    part = (2 * whole + 1) * (whole * (whole + 1) - 3 * v) / (6 * (v - (whole + 1) ** 2))
    k = np.array([part] + [1.0] * (2 * whole + 1) + [part]) / (2 * (whole + part) + 1)

    def line(a):
        for _ in range(3):
            a = np.convolve(np.pad(a, whole + 1, "edge"), k, "valid")
        return a

    return along_both(plane, line)


def fill(rgb, mask):
    """masking.fill(): what is kept, blurred, in layers over each other."""
    alpha = 1 - mask / 255
    kept = np.concatenate([rgb * alpha[..., None], alpha[..., None]], axis=2)
    laid = np.zeros_like(kept)
    for sigma, times in [(256, 1), (64, 1), (16, 2), (4, 4), (2, 2), (0, 1)]:
        over = np.stack([pillow_blur(kept[..., c], sigma) for c in range(4)], axis=2)
        for _ in range(times):
            laid = over + laid * (1 - over[..., 3:])
    return np.rint(np.clip(laid[..., :3] / np.maximum(laid[..., 3:], 1e-9), 0, 255))


def lanczos_line(n_in, n_out):
    """[n_out, n_in]: Pillow's weights."""
    scale = n_in / n_out
    stretch = max(scale, 1)
    m = np.zeros((n_out, n_in))
    for i in range(n_out):
        center = (i + 0.5) * scale
        low, high = max(0, int(center - 3 * stretch + 0.5)), min(n_in, int(center + 3 * stretch + 0.5))
        x = (np.arange(low, high) + 0.5 - center) / stretch
        m[i, low:high] = np.sinc(x) * np.sinc(x / 3) * (abs(x) < 3)
    return m / m.sum(axis=1, keepdims=True)


def lanczos(a, h, w):
    """[h, w] or [h, w, c] of bytes."""
    a3 = a[..., None] if a.ndim == 2 else a
    out = np.einsum("yi,ijc,xj->yxc", lanczos_line(a3.shape[0], h), a3, lanczos_line(a3.shape[1], w))
    return np.clip(np.floor(out + 0.5), 0, 255).reshape((h, w) + a.shape[2:])


def crop_region(mask, padding, width, height):
    """get_crop_region() and expand_crop_region(): x1, y1, x2, y2."""
    ys, xs = np.nonzero(mask)
    h, w = mask.shape
    x1, x2 = max(xs.min() - padding, 0), min(xs.max() + 1 + padding, w)
    y1, y2 = max(ys.min() - padding, 0), min(ys.max() + 1 + padding, h)

    def grow(a, b, more, limit):
        a, b = a - more // 2, b + more - more // 2
        if b >= limit:
            a, b = a - (b - limit), limit
        if a < 0:
            a, b = 0, b - a
        return a, min(b, limit)

    if (x2 - x1) / (y2 - y1) > width / height:
        y1, y2 = grow(y1, y2, int((x2 - x1) / (width / height) - (y2 - y1)), h)
    else:
        x1, x2 = grow(x1, x2, int((y2 - y1) * (width / height) - (x2 - x1)), w)
    return x1, y1, x2, y2


def letterbox(a, h, w):
    """resize_image(2): whole, in its own proportions, with its edges drawn out."""
    sh, sw = a.shape[:2]
    ow, oh = (w if w / h < sw / sh else sw * h // sh), (h if w / h >= sw / sh else sh * w // sw)
    top, left = h // 2 - oh // 2, w // 2 - ow // 2
    pads = ((top, h - oh - top), (left, w - ow - left)) + ((0, 0),) * (a.ndim - 2)
    return np.pad(lanczos(a, oh, ow), pads, "edge")


def uncover(a, h, w):
    """The reverse: the middle of the same proportions as w : h, in that size."""
    ah, aw = a.shape[:2]
    if aw * h > w * ah:
        cw, ch = (w * ah + h // 2) // h, ah
    else:
        cw, ch = aw, (h * aw + w // 2) // w
    return lanczos(a[(ah - ch) // 2 : (ah - ch) // 2 + ch, (aw - cw) // 2 : (aw - cw) // 2 + cw], h, w)


# --- pictures ---------------------------------------------------------------------------------------------------------


def planes(rgb):
    return torch.from_numpy(rgb / 127.5 - 1).permute(2, 0, 1)[None]


def encode(model, x):
    return model.vae.encode(x, torch.zeros(1, 4, x.shape[2] // 8, x.shape[3] // 8, dtype=torch.float64))


def decode(model, z):
    rgb = model.vae.decode(z)[0].permute(1, 2, 0).numpy()
    return np.rint(np.clip((rgb + 1) * 127.5, 0, 255))


def drawn(case, shape, k=0):
    return sample.noise(case["rng"], case["seed"], int(np.prod(shape)), k)


def denoiser(model, case, shape, appended, start, nmask, texts):
    """With classifier-free guidance, InstructPix2Pix's three-way kind for the editor, and the mask."""
    positive, negative = texts
    cat = lambda x, more: torch.cat([x, more], dim=1) if more is not None else x

    def denoise(x, sigma):
        scaled = torch.from_numpy(x.reshape(shape)) / math.sqrt(sigma**2 + 1)
        t = torch.tensor([float(sample.to_timestep(sigma))], dtype=torch.float64)
        up, down = (model.net(cat(scaled, appended), t, *told) for told in (positive, negative))
        if isinstance(model, Editor):
            bare = model.net(cat(scaled, torch.zeros_like(appended)), t, *negative)
            out = bare + case["cfg"] * (up - down) + case["image_cfg"] * (down - bare)
        else:
            out = down + case["cfg"] * (up - down)
        d, unguided = (model.denoised(x, o.numpy().ravel(), sigma) for o in (out, down))
        return [d if nmask is None else start * (1 - nmask) + d * nmask, unguided]

    return denoise


def sigmas_of(case, steps):
    return sample.sampler_sigmas(case["sampler"], case["scheduler"], steps).astype(np.float32).astype(float)


def said(model, case, shape):
    """[(context, label)] of the prompt and the negative one, for a picture of the latent's size."""
    sized = dict(case, height=8 * shape[2], width=8 * shape[3])
    return [model.told([(1.0, [case[k]])], sized, k == "negative")[0][1][case[k]] for k in ("prompt", "negative")]


def run(model, case, shape, sigmas, appended, start, nmask):
    texts = said(model, case, shape)
    noise = lambda k: drawn(case, shape, k)
    x = noise(0) * sigmas[0] + (start if start is not None else 0)
    tree = sample.Tree(case["rng"], case["seed"], x.size, sigmas[-2], sigmas[0])
    denoise = denoiser(model, case, shape, appended, start, nmask, texts)
    x = sample.sample(case["sampler"], x, sigmas, denoise, noise, tree, sample.ETA.get(case["sampler"], 0.0))
    return x if nmask is None else x * nmask + start * (1 - nmask)


def conditioning(model, rgb, mask, shape):
    """What the network gets behind the latent."""
    if isinstance(model, Editor):
        return encode(model, planes(rgb)) / model.scale
    if not isinstance(model, Inpainter):
        return None
    h, w = shape[2] * 8, shape[3] * 8
    hole = torch.round(torch.from_numpy(mask / 255))[None, None] if mask is not None else torch.ones(1, 1, h, w, dtype=torch.float64)
    image = planes(rgb) if rgb is not None else torch.zeros(1, 3, h, w, dtype=torch.float64)
    return torch.cat([F.interpolate(hole, shape[2:]), encode(model, image * (1 - hole))], dim=1)


def extended(rgb, mask, case):
    """The picture with its new sides, and the mask with them in it."""
    l, r, t, b = case["extend"]
    rgb = np.pad(rgb, ((t, b), (l, r), (0, 0)), "edge")
    h, w = rgb.shape[:2]
    mask = np.pad(mask if mask is not None else np.zeros((h - t - b, w - l - r)), ((t, b), (l, r)))
    f = case["feather"]

    def ramp(depth):
        return np.where(depth < 0, 255, np.where(depth < f, 255 * (f - depth) // (f + 1), 0))

    y, x = np.arange(h)[:, None], np.arange(w)[None]
    for used, depth in ((l, x - l), (r, w - r - 1 - x), (t, y - t), (b, h - b - 1 - y)):
        if used:
            mask = np.maximum(mask, ramp(depth))
    return rgb, mask


def from_picture(model, case, rgb, mask):
    """img2img: (picture, how much of it was drawn)."""
    whole = rgb
    if mask is not None:
        mask = gaussian(255 - mask if case["invert"] else mask, case["blur"])
    if case["extend"]:
        whole, mask = extended(rgb, mask, case)
    part, overlay, hole, region = whole, mask, mask, None
    h, w = whole.shape[:2]
    if case["only_masked"]:
        h, w = case["height"], case["width"]
        region = crop_region(mask, case["padding"], w, h)
        x1, y1, x2, y2 = region
        part, hole = letterbox(whole[y1:y2, x1:x2], h, w), letterbox(mask[y1:y2, x1:x2], h, w)
    elif mask is not None:
        overlay = np.clip(mask * 2, 0, 255)
    if mask is not None and case["fill"] == "fill":
        part = fill(part, hole)
    shape = (1, 4, h // 8, w // 8)
    start, nmask = encode(model, planes(part)).numpy().ravel(), None
    if mask is not None:
        cells = F.interpolate(torch.from_numpy(hole.astype(float))[None, None], shape[2:], mode="bicubic", antialias=True)
        nmask = np.tile((cells.numpy().ravel() >= 127.499).astype(float), 4)
        if case["fill"] == "latent_noise":
            start = start * (1 - nmask) + drawn(case, shape) * nmask
        if case["fill"] == "latent_nothing":
            start = start * (1 - nmask)
    appended = conditioning(model, part, hole if mask is not None else None, shape)
    steps = int(min(case["strength"], 0.999) * case["steps"]) + 1
    sigmas = sigmas_of(case, case["steps"])[case["steps"] - steps :]
    made = decode(model, torch.from_numpy(run(model, case, shape, sigmas, appended, start, nmask).reshape(shape)))
    if mask is None:
        return made, np.full(made.shape[:2], 255)
    if region:
        x1, y1, x2, y2 = region
        full = whole.astype(float).copy()
        full[y1:y2, x1:x2] = uncover(made, y2 - y1, x2 - x1)
        made = full
    share = overlay[..., None] / 255
    return np.rint(whole * (1 - share) + made * share), overlay


def from_text(model, case):
    """With hires fix where the case has it."""
    shape = (1, 4, case["height"] // 8, case["width"] // 8)
    sigmas = sigmas_of(case, case["steps"])
    z = torch.from_numpy(run(model, case, shape, sigmas, conditioning(model, None, None, shape), None, None).reshape(shape))
    h = case["hires"]
    if h:
        eh, ew, ch, cw = h["enlarged"] + h["cut"]
        top, left = (eh // 8 - ch // 8) // 2, (ew // 8 - cw // 8) // 2
        if h["upscaler"] in LATENT_UPSCALERS:
            mode, antialias = LATENT_UPSCALERS[h["upscaler"]]
            z = F.interpolate(z, (eh // 8, ew // 8), mode=mode, antialias=antialias)
            z = z[:, :, top : top + ch // 8, left : left + cw // 8]
        else:
            rgb = decode(model, z)
            eh, ew = eh // 8 * 8, ew // 8 * 8
            if h["upscaler"] == "lanczos":
                rgb = lanczos(rgb, eh, ew)
            else:
                rgb = rgb[np.arange(eh) * rgb.shape[0] // eh][:, np.arange(ew) * rgb.shape[1] // ew]
            z = encode(model, planes(rgb[top * 8 : top * 8 + ch, left * 8 : left * 8 + cw]))
        shape = tuple(z.shape)
        total = int(h["steps"] / min(h["strength"], 0.999))
        sigmas = sigmas_of(case, total)[total - h["steps"] :]
        z = run(model, case, shape, sigmas, conditioning(model, None, None, shape), z.numpy().ravel(), None)
        z = torch.from_numpy(z.reshape(shape))
    made = decode(model, z)
    return made, np.full(made.shape[:2], 255)


# --- cases ------------------------------------------------------------------------------------------------------------


def basic(rnd, **more):
    words = "red fox snow tower lamp under a painting of quiet rivers sunrise 1920s glass".split()
    return {"prompt": " ".join(rnd.choices(words, k=6)), "negative": rnd.choice(["", "grey dull"]), "width": 96, "height": 64,
            "steps": rnd.randrange(4, 8), "cfg": rnd.choice([2.0, 5.0]), "sampler": rnd.choice(["euler", "euler_a", "heun", "dpm++2m", "dpm++2m_sde", "euler_cfg_pp"]),
            "scheduler": rnd.choice(["discrete", "karras"]), "rng": rnd.choice(["cuda", "cpu"]), "seed": rnd.randrange(2**32),
            "strength": rnd.choice([0.5, 0.75, 1.0]), "image_cfg": rnd.choice([1.0, 1.5, 2.5]), "invert": False, "blur": 0, "fill": "original",
            "only_masked": False, "padding": 8, "extend": None, "feather": 0, "hires": None, **more}


def random_mask(rnd, h, w):
    """A box and a disc, somewhere."""
    y, x = np.mgrid[:h, :w]
    bw, bh, bx, by = rnd.randrange(16, 40), rnd.randrange(16, 30), rnd.randrange(w - 50), rnd.randrange(h - 40)
    box = (x >= bx) & (x < bx + bw) & (y >= by) & (y < by + bh)
    return np.where(box | ((x - bx - bw) ** 2 + (y - by) ** 2 < 100), 255, 0)


def random_picture(rnd, h, w):
    rng = np.random.default_rng(rnd.randrange(2**32))
    coarse = rng.integers(0, 256, (h // 8 + 1, w // 8 + 1, 3))
    return np.kron(coarse, np.ones((8, 8, 1), int))[:h, :w]


def options(case, folder, rgb, mask):
    """Of the command line."""
    out = ["--image-cfg-scale", case["image_cfg"]]
    if rgb is not None:
        picture.write_png(os.path.join(folder, "init.png"), rgb)
        out += ["--mask-blur", case["blur"], "--mask-fill", case["fill"], "--mask-padding", case["padding"]]
        out += ["--mask-invert"] * case["invert"] + ["--only-masked"] * case["only_masked"]
    if mask is not None:
        picture.write_png(os.path.join(folder, "mask.png"), np.repeat(mask[..., None], 3, axis=2))
        out += ["--mask", os.path.join(folder, "mask.png")]
    if case["extend"]:
        for side, pixels in zip(("left", "right", "top", "bottom"), case["extend"]):
            out += ["--outpaint-" + side, pixels]
        out += ["--outpaint-feather", case["feather"]]
    for key in ("scale", "width", "height", "steps", "strength", "upscaler"):
        if case["hires"] and key in case["hires"]:
            out += ["--hires-" + key, case["hires"][key]]
    return [str(v) for v in out]


def check(program, folder, model, case, rgb=None, mask=None):
    given = {k: v for k, v in case.items() if v not in (None, False)}
    init = os.path.join(folder, "init.png") if rgb is not None else None
    want, share = from_picture(model, case, rgb, mask) if rgb is not None else from_text(model, case)
    told = dict(case, width=0, height=0) if case["extend"] and not case["only_masked"] else case
    got = picture.ours(program, model.file, told, folder, init, options(case, folder, rgb, mask))
    if got.shape != want.shape:
        sys.exit("%s: %s, expected %s" % (given, got.shape, want.shape))
    db = picture.psnr(got[share > 0], want[share > 0])
    print("%s %s: %.1f dB over %.0f %%" % (model.name, given, db, 100 * np.mean(share > 0)), flush=True)
    if rgb is not None and rgb.shape == want.shape and picture.psnr(rgb[share > 0], want[share > 0]) > 30:
        sys.exit("nothing was drawn")
    if db < picture.LEAST_DB or np.ptp(want[share > 0]) < 30:
        sys.exit("off: less than %g dB, or without contrast" % picture.LEAST_DB)
    if not np.array_equal(got[share == 0], want[share == 0]):
        sys.exit("off: what is not masked has changed")


def main(program, models, vocabulary, seed):
    print("seed", seed)
    rnd, words = random.Random(seed), clip_bpe.Vocabulary(vocabulary)
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        plain, inpainter, editor = (kind(models, words) for kind in (picture.Model, Inpainter, Editor))
        test = lambda model, case, *more: check(program, folder, model, case, *more)
        for i, how in enumerate(FILLS):
            case = basic(rnd, fill=how, blur=rnd.choice([0, 2, 4.5]), invert=i % 2 == 1)
            test(plain, case, random_picture(rnd, 64, 96), random_mask(rnd, 64, 96))
        for h, w in ((150, 200), (70, 260)):
            case = basic(rnd, only_masked=True, blur=rnd.choice([0, 4]), padding=rnd.choice([0, 13]), fill=rnd.choice(FILLS))
            test(plain, case, random_picture(rnd, h, w), random_mask(rnd, h, w))
        case = basic(rnd, extend=[8 * rnd.randrange(4) for _ in range(3)] + [24], feather=rnd.choice([0, 20]), fill="fill", strength=1.0)
        test(plain, case, random_picture(rnd, 64, 72))
        case = basic(rnd, extend=[16, 0, 24, 0], feather=8, only_masked=True, blur=2)
        test(plain, case, random_picture(rnd, 90, 110), random_mask(rnd, 90, 110))
        test(inpainter, basic(rnd))
        test(inpainter, basic(rnd), random_picture(rnd, 64, 96))
        test(inpainter, basic(rnd, blur=4, fill="latent_noise", strength=1.0), random_picture(rnd, 64, 96), random_mask(rnd, 64, 96))
        for scale in (1.0, 1.5, 2.5):
            test(editor, basic(rnd, image_cfg=scale, strength=1.0), random_picture(rnd, 64, 96))
        for upscaler in (*LATENT_UPSCALERS, "lanczos", "nearest"):
            hires = {"upscaler": upscaler, "steps": rnd.randrange(2, 5), "strength": rnd.choice([0.4, 0.7, 1.0])}
            if rnd.random() < 0.5:
                hires |= {"scale": 1.5, "enlarged": (96, 144), "cut": (96, 144)}
            else:
                hires |= {"width": 128, "height": 112, "enlarged": (112, 168), "cut": (112, 128)}
            test(plain, basic(rnd, hires=hires))
        second = {"upscaler": "latent", "steps": 3, "strength": 0.6, "height": 96, "enlarged": (96, 144), "cut": (96, 144)}
        test(inpainter, basic(rnd, hires=second))
        for family, more in ((Sd2Inpainter, {}), (SdxlInpainter, {"hires": second})):
            model = family(models, words)
            test(model, basic(rnd, steps=4, **more))
            for i, how in enumerate(rnd.sample(FILLS, 4)):
                case = basic(rnd, steps=4, fill=how, blur=rnd.choice([0, 4]), invert=i == 1, only_masked=i == 0, padding=rnd.choice([0, 13]), strength=1.0)
                test(model, case, random_picture(rnd, 64, 96), random_mask(rnd, 64, 96))
        for family in (Sd2Editor, SdxlEditor):
            model = family(models, words)
            for negative in ("", "grey dull"):
                test(model, basic(rnd, steps=4, negative=negative, strength=1.0), random_picture(rnd, 64, 96))


if __name__ == "__main__":
    if len(sys.argv) not in (4, 5):
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]) if len(sys.argv) > 4 else random.randrange(2**32))
