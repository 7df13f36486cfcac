#!/usr/bin/env python3
"""Independent reference for src/diffusion/sample: noise, schedules, samplers, guidance.

  sample.py --record build/tests/sample_dump > tests/unit/sample_vectors.h   the recorded vectors of test_rng and test_sampler
  sample.py --check build/tests/sample_dump [SEED]     fresh random inputs through our code and through this file

The noise comes from torch itself (CPU) and from a Philox written here over Python integers; schedules and samplers are
written from the papers' equations in double precision, with k-diffusion's and ComfyUI's order of draws. The network is a toy: what matters is that both sides use it.
"""
import functools
import math
import random
import subprocess
import sys

import numpy as np
import torch

STEPS = 1000


def philox_blocks(call, n, key):
    """The first two words of the blocks with counters (call, 0, i, 0), i < n: Philox 4x32, ten rounds."""
    mask = np.uint64(2**32 - 1)
    c = [np.full(n, call, np.uint64), np.zeros(n, np.uint64), np.arange(n, dtype=np.uint64), np.zeros(n, np.uint64)]
    for r in range(10):
        k = [np.uint64((key[0] + r * 0x9E3779B9) % 2**32), np.uint64((key[1] + r * 0xBB67AE85) % 2**32)]
        p, q = c[0] * np.uint64(0xD2511F53), c[2] * np.uint64(0xCD9E8D57)
        c = [(q >> np.uint64(32)) ^ c[1] ^ k[0], q & mask, (p >> np.uint64(32)) ^ c[3] ^ k[1], p & mask]
    return c[0].astype(float), c[1].astype(float)


def noise(kind, seed, n, call):
    """What call number `call` of randn(n) gives after seeding."""
    if kind == "cpu":
        g = torch.Generator().manual_seed(seed)
        for _ in range(call + 1):
            out = torch.randn(n, generator=g)
        return out.double().numpy()
    a, b = philox_blocks(call, n, (seed % 2**32, seed >> 32))
    u, v = (a + 0.5) / 2**32, (b + 0.5) * (2 * math.pi / 2**32)
    return np.sqrt(-2 * np.log(u)) * np.sin(v)


def sigma_table():
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, STEPS, dtype=torch.float64) ** 2
    kept = torch.cumprod(1 - betas, 0).float()  # checkpoints keep it in float
    return (((1 - kept) / kept) ** 0.5).double().numpy()


TABLE = sigma_table()


def without_terminal_signal(table):
    """Zero terminal SNR (Lin et al. 2024, algorithm 1), with the least signal that other tools leave at the end."""
    root = 1 / np.sqrt(1 + table**2)
    kept = ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
    kept[-1] = 4.8973451890853435e-08
    return np.sqrt((1 - kept) / kept)


def to_sigma(t):
    return np.exp(np.interp(t, np.arange(STEPS), np.log(TABLE)))


def to_timestep(sigma):
    return np.interp(np.log(sigma), np.log(TABLE), np.arange(STEPS))


AYS = [14.6146412293, 6.4745760956, 3.8636745985, 2.6946151520, 1.8841921177, 1.3943805092, 0.9642583904, 0.6523686016,
       0.3977456272, 0.1515232662, 0.0291671582]
AYS_XL = [14.6146412293, 6.3184485287, 3.7681790315, 2.1811480769, 1.3405244945, 0.8620721141, 0.5550693289, 0.3798540708,
          0.2332364134, 0.1114188177, 0.0291671582]
GITS_20 = [14.61464119, 7.49001646, 4.65472794, 3.07277966, 2.19988537, 1.61558151, 1.24153244, 0.95350921, 0.74807048, 0.59516323,
           0.50118381, 0.41087446, 0.34370604, 0.29807833, 0.25053367, 0.22545385, 0.19894916, 0.17026083, 0.13792117, 0.09824532,
           0.02916753]
GITS = {1: [14.61464119], 2: [14.61464119, 0.803307], 5: [14.61464119, 2.84484982, 1.24153244, 0.59516323, 0.25053367],
        10: [14.61464119, 5.85520077, 2.84484982, 1.67050016, 1.08895338, 0.74807048, 0.50118381, 0.32104823, 0.19894916, 0.09824532],
        20: GITS_20[:-1]}


def log_linear(levels, n):
    """n levels on the curve of a list, which is linear in the log over its index."""
    return np.exp(np.interp(np.linspace(0, 1, n), np.linspace(0, 1, len(levels)), np.log(levels)))


NODES, WEIGHTS = np.polynomial.legendre.leggauss(80)


def beta_cdf(x, a):
    """Of a beta distribution with both parameters a, for x <= 1/2: by quadrature over x**a, which is smooth at 0."""
    def part(x):
        top = x**a
        y = (NODES + 1) / 2 * top
        return np.sum(WEIGHTS / 2 * top * (1 - y ** (1 / a)) ** (a - 1)) / a
    return part(x) / (2 * part(0.5))


def beta_quantile(u, a):
    if u > 0.5:
        return 1 - beta_quantile(1 - u, a)
    low, high = 0.0, 0.5
    for _ in range(60):
        mid = (low + high) / 2
        low, high = (mid, high) if beta_cdf(mid, a) < u else (low, mid)
    return low


def falling(timesteps):
    """Whole timesteps, each below the one before, with room for those to come."""
    n, out = len(timesteps), []
    for i, t in enumerate(timesteps):
        t = min(t, out[-1] - 1) if out else t
        out.append(max(t, n - 1 - i))
    return TABLE[out]


def linear_quadratic(n):
    if n == 1:
        return [1.0]
    half, threshold = n // 2, 0.025
    rest = n - half
    gap = half - threshold * n
    a, b = gap / (half * rest**2), threshold / half - 2 * gap / rest**2
    return [1 - (i * threshold / half if i < half else a * i**2 + b * i + a * half**2) for i in range(n)]


def schedule(name, n):
    top, low = TABLE[-1], TABLE[0]
    if name == "discrete":
        s = to_sigma(np.linspace(STEPS - 1, 0, n))
    elif name == "karras":
        s = np.linspace(top ** (1 / 7), low ** (1 / 7), n) ** 7
    elif name == "exponential":
        s = np.geomspace(top, low, n)
    elif name == "sgm_uniform":
        s = to_sigma(np.linspace(STEPS - 1, 0, n + 1)[:-1])
    elif name == "simple":
        stride = STEPS / n  # rounded before it is multiplied, as in ComfyUI: 19 * (1000 / 38) is below 500
        s = np.array([TABLE[-(1 + int(i * stride))] for i in range(n)])
    elif name == "ddim_uniform":
        s = TABLE[1 :: STEPS // n][:n][::-1]
    elif name == "kl_optimal":
        s = np.tan(np.linspace(np.arctan(top), np.arctan(low), n))
    elif name == "ays":
        s = log_linear(AYS, n + 1)[:-1]
    elif name == "gits":
        s = GITS[n] if n <= 20 else log_linear(GITS_20, n + 1)[:-1]
    elif name == "beta":
        s = falling([int(np.rint(beta_quantile(1 - i / n, 0.6) * (STEPS - 1))) for i in range(n)])
    elif name == "smoothstep":
        s = falling([int(math.floor(u * u * (3 - 2 * u) * (STEPS - 1) + 0.5)) for u in 1 - np.arange(n) / n])
    elif name == "lcm":
        grid = max(n, 50)
        s = TABLE[[(grid - i * grid // n) * STEPS // grid - 1 for i in range(n)]]
    elif name == "linear_quadratic":
        s = top * np.array(linear_quadratic(n))
    return np.append(s, 0.0)


DISCARDS = ("dpm2", "dpm2_a", "uni_pc", "uni_pc_bh2", "dpm++3m_sde")  # the last sigma but one


def sampler_sigmas(sampler, name, n):
    if sampler not in DISCARDS:
        return schedule(name, n)
    return np.delete(schedule(name, n + 1), n)


def toy_network(x, t, positive):
    """Nonlinear in x and t, different for the two prompts, mixing neighbours."""
    mixed = 0.8 * x + 0.2 * np.roll(x, -1)
    return np.tanh(mixed * (0.9 if positive else 0.7) + t / STEPS - 0.5) + (0.1 if positive else -0.05)


def denoiser(predicts, cfg):
    """x, sigma -> the guided estimate of the clean latent, and the one of the negative prompt alone."""
    def denoise(x, sigma):
        scaled = x / math.sqrt(sigma**2 + 1)
        t = float(to_timestep(sigma))
        up, down = toy_network(scaled, t, True), toy_network(scaled, t, False)
        def clean(out):
            if predicts == "v":
                return x / (sigma**2 + 1) - out * sigma / math.sqrt(sigma**2 + 1)
            return x - sigma * out
        return clean(down + cfg * (up - down)), clean(down)

    return denoise


def guide(seed, n, predicts, cfg, phi, share, limit, sigma):
    """One guided estimate with CFG rescale over v and dynamic thresholding, and the one of the negative prompt."""
    x = noise("cpu", seed, n, 0) * sigma
    alpha, std = 1 / math.sqrt(1 + sigma**2), sigma / math.sqrt(1 + sigma**2)
    to_v = lambda clean: alpha * (x - clean) / sigma - std * clean  # v = alpha eps - sigma x0, of the scaled x
    positive, plain = denoiser(predicts, 1.0)(x, sigma)
    wide, narrow = to_v(plain + cfg * (positive - plain)), to_v(positive)
    v = wide * (phi * np.std(narrow) / np.std(wide) + 1 - phi)
    clean = alpha * (alpha * x) - std * v
    if share > 0:
        s = np.quantile(np.abs(clean), share)
        if s > limit:
            clean = np.clip(clean, -s, s) / s * limit
    return np.concatenate([clean, plain])


def start(kind, seed, subseed, strength, c, h, w, from_h, from_w):
    """A1111's initial noise: variations by slerp along the height, and seeds as they were at another size."""
    size = (c, from_h or h, from_w or w)
    z = torch.from_numpy(noise(kind, seed, int(np.prod(size)), 0)).reshape(size)
    if strength > 0:
        other = torch.from_numpy(noise(kind, subseed, int(np.prod(size)), 0)).reshape(size)
        unit = lambda a: a / torch.norm(a, dim=1, keepdim=True)
        dot = (unit(z) * unit(other)).sum(1)
        angle = torch.acos(dot)
        part = lambda s: (torch.sin(s * angle) / torch.sin(angle)).unsqueeze(1)
        z = part(1 - strength) * z + part(strength) * other if dot.mean() <= 0.9995 else z * strength + other * (1 - strength)
    if size == (c, h, w):
        return z.numpy().ravel()
    x = noise(kind, seed, c * h * w, 0).reshape(c, h, w)
    (ty, sy, ny), (tx, sx, nx) = ((max(g, 0), max(-g, 0), max(0, b + min(0, 2 * g)))
                                  for g, b in (((a - b) // 2, b) for a, b in ((h, size[1]), (w, size[2]))))
    x[:, ty : ty + ny, tx : tx + nx] = z.numpy()[:, sy : sy + ny, sx : sx + nx]
    return x.ravel()


class Tree:
    """One Brownian motion over sigma, split by bridges at the middle again and again. Seeds are numpy's own."""

    def __init__(self, kind, seed, n, low, high):
        self.kind, self.seed, self.n, self.low, self.high = kind, seed, n, float(low), float(high)
        self.draw = functools.lru_cache(None)(self.draw)

    def draw(self, key):
        seed = np.random.SeedSequence(self.seed, spawn_key=key, pool_size=24).generate_state(1)[0]
        return noise(self.kind, int(seed), self.n, 0)

    def motion(self, t):
        a, b, t = round(self.low, 6), round(self.high, 6), round(float(t), 6)  # as Python rounds, not numpy
        start, end = np.zeros(self.n), self.draw(()) * math.sqrt(self.high - self.low)
        path, depth = 0, 0
        while a < t < b:
            mid = round(0.5 * (a + b), 6)
            middle = start + (end - start) * (mid - a) / (b - a)
            middle = middle + math.sqrt((mid - a) * (b - mid) / (b - a)) * self.draw((path, depth))
            depth += 1
            if t <= mid:
                b, end, path = mid, middle, 2 * path
            else:
                a, start, path = mid, middle, 2 * path + 1
        return start if t <= a else end

    def noise(self, s, t):
        return (self.motion(t) - self.motion(s)) / math.sqrt(s - t)


def ancestral(s, nxt, eta):
    up = min(nxt, eta * math.sqrt(nxt**2 * (s**2 - nxt**2) / s**2))
    return math.sqrt(nxt**2 - up**2), up


def adams_bashforth(nodes, a, b):
    """Weights of the values at `nodes` in the integral from a to b of the polynomial through them."""
    out = []
    for j, node in enumerate(nodes):
        p = np.poly1d([1.0])
        for k, other in enumerate(nodes):
            if k != j:
                p = p * np.poly1d([1.0, -other]) / (node - other)
        out.append(p.integ()(b) - p.integ()(a))
    return out


def ipndm_v_weights(h):
    """h: the newest step first. The third-order share is that of the authors' code."""
    w = [1 + h[0] / h[1] / 2, -h[0] / h[1] / 2, 0, 0]
    if len(h) > 2:
        t = (1 - h[0] / (3 * (h[0] + h[1])) * (h[0] * (h[0] + h[1])) / (h[1] * (h[1] + h[2]))) / 2
        w = [w[0] + t, w[1] - (1 + h[1] / h[2]) * t, t * h[1] / h[2], 0]
    if len(h) > 3:
        u = (1 - h[0] / (3 * (h[0] + h[1]))) / 2 + (1 - h[0] / (2 * (h[0] + h[1]))) * h[0] / (6 * sum(h[:3]))
        u *= h[0] * (h[0] + h[1]) * sum(h[:3]) / (h[1] * (h[1] + h[2]) * sum(h[1:4]))
        q, m = h[1] / h[2], h[1] * (h[1] + h[2]) / (h[2] * (h[2] + h[3]))
        w = [w[0] + u, w[1] - (1 + q + m) * u, w[2] + (q + m * (1 + h[2] / h[3])) * u, -u * m * q]
    return w[: len(h)]


def multistep_slopes(name, x, sigmas, denoise):
    slopes = []
    for i, (s, nxt) in enumerate(zip(sigmas[:-1], sigmas[1:])):
        clean = denoise(x, s)[0]
        slopes = [(x - clean) / s] + slopes[:3]
        if name == "lms":
            w = adams_bashforth(sigmas[i::-1][:4], s, nxt)
        elif nxt == 0:
            x = clean
            continue
        elif name == "ipndm":
            w = np.array([[1], [3 / 2, -1 / 2], [23 / 12, -16 / 12, 5 / 12], [55 / 24, -59 / 24, 37 / 24, -9 / 24]][min(i, 3)])
            w = w * (nxt - s)
        else:
            h = [nxt - s] + [sigmas[i - k] - sigmas[i - k - 1] for k in range(min(i, 3))]
            w = np.array(ipndm_v_weights(h) if i else [1.0]) * h[0]
        x = x + sum(a * d for a, d in zip(w, slopes))
    return x


def dpmpp_multistep(name, x, sigmas, denoise, tree, eta, s_noise):
    """2M, 2M SDE, 3M SDE over lambda = -log sigma, as k-diffusion writes them."""
    old, hs = [], []
    for s, nxt in zip(sigmas[:-1], sigmas[1:]):
        clean = denoise(x, s)[0]
        if nxt == 0:
            return clean
        h = math.log(s / nxt)
        k = h * (1 + eta)
        x = nxt / s * math.exp(-h * eta) * x - math.expm1(-k) * clean
        phi2 = math.expm1(-k) / k + 1
        if name == "dpm++3m_sde" and len(old) > 1:
            r0, r1 = hs[0] / h, hs[1] / h
            d0, d1 = (clean - old[0]) / r0, (old[0] - old[1]) / r1
            x = x + phi2 * (d0 + (d0 - d1) * r0 / (r0 + r1)) - (phi2 / k - 0.5) * (d0 - d1) / (r0 + r1)
        elif old:
            heun = name in ("dpm++2m_sde_heun", "dpm++3m_sde")
            x = x + (phi2 if heun else -math.expm1(-k) / 2) * (clean - old[0]) * h / hs[0]
        if eta * s_noise > 0:
            x = x + tree.noise(s, nxt) * nxt * math.sqrt(-math.expm1(-2 * h * eta)) * s_noise
        old, hs = [clean] + old[:1], [h] + hs[:1]
    return x


def dpmpp_2m_v2(x, sigmas, denoise):
    old, last = None, None
    for s, nxt in zip(sigmas[:-1], sigmas[1:]):
        clean = denoise(x, s)[0]
        if nxt == 0:
            return clean
        h = math.log(s / nxt)
        if old is None:
            x = nxt / s * x - math.expm1(-h) * clean
        else:
            r, mean = max(h, last) / min(h, last), (h + last) / 2
            x = nxt / s * x - math.expm1(-mean) * ((1 + 1 / (2 * r)) * clean - old / (2 * r))
        old, last = clean, h
    return x


def dpmpp_2m_cfg_pp(x, sigmas, denoise):
    old, last = None, None
    for s, nxt in zip(sigmas[:-1], sigmas[1:]):
        clean, plain = denoise(x, s)
        if nxt == 0:
            return clean
        h = math.log(s / nxt)
        mix = -math.exp(-h) * plain
        if old is not None:
            mix = mix - math.expm1(-h) * h / (2 * last) * (clean - old)
        x = clean + mix + math.exp(-h) * x
        old, last = plain, h
    return x


def dpmpp_2s(x, sigmas, denoise, draw, eta, s_noise, cfg_pp):
    call = 0
    for s, nxt in zip(sigmas[:-1], sigmas[1:]):
        clean, plain = denoise(x, s)
        if nxt == 0:
            return clean
        down, up = ancestral(s, nxt, eta)
        mid = math.exp((math.log(s) + math.log(down)) / 2)
        first = plain if cfg_pp else clean
        second = denoise(mid / s * x + (1 - mid / s) * first, mid)[1 if cfg_pp else 0]
        x = down / s * x + (1 - down / s) * second
        if up * s_noise > 0:
            call += 1
            x = x + up * s_noise * draw(call)
        if cfg_pp:
            x = x + clean - plain
    return x


def dpmpp_sde(x, sigmas, denoise, tree, eta, s_noise):
    for s, nxt in zip(sigmas[:-1], sigmas[1:]):
        clean = denoise(x, s)[0]
        if nxt == 0:
            return clean
        mid = float(np.float32(math.sqrt(s * nxt)))  # the tree is asked at sigmas in float
        for to, estimate in ((mid, clean), (nxt, None)):
            down, up = ancestral(s, to, eta)
            ahead = down / s * x + (1 - down / s) * (estimate if estimate is not None else second)
            if up * s_noise > 0:
                ahead = ahead + tree.noise(s, to) * up * s_noise
            if to == mid:
                second = denoise(ahead, mid)[0]
        x = ahead
    return x


def res_multistep(x, sigmas, denoise, draw, eta, s_noise, cfg_pp):
    call, old, reached = 0, None, None
    phi1 = lambda t: math.expm1(t) / t
    for i, (s, nxt) in enumerate(zip(sigmas[:-1], sigmas[1:])):
        clean, plain = denoise(x, s)
        down, up = ancestral(s, nxt, eta)
        own = plain if cfg_pp else clean
        if down == 0 or old is None:
            x = clean + (x - own) / s * down
        else:
            h = math.log(s / down)
            c2 = math.log(reached / sigmas[i - 1]) / h
            b2 = (phi1(-h) - 1) / -h / c2
            b1 = phi1(-h) - b2
            x = math.exp(-h) * (x + clean - own) + h * (b1 * own + b2 * old)
        if up * s_noise > 0:
            call += 1
            x = x + up * s_noise * draw(call)
        old, reached = own, down
    return x


def er_sde(x, sigmas, denoise, draw, s_noise):
    scale = lambda s: s * (np.exp(s**0.3) + 10)
    call, old, old_slope = 0, None, None
    for i, (s, nxt) in enumerate(zip(sigmas[:-1], sigmas[1:])):
        clean = denoise(x, s)[0]
        if nxt == 0:
            return clean
        r = scale(nxt) / scale(s)
        x = r * x + (1 - r) * clean
        if i:
            width = (s - nxt) / 200
            points = nxt + width * np.arange(200)
            slope = (clean - old) / (s - sigmas[i - 1])
            x = x + (nxt - s + np.sum(1 / scale(points)) * width * scale(nxt)) * slope
            if i > 1:
                curve = (slope - old_slope) / ((s - sigmas[i - 2]) / 2)
                x = x + ((nxt - s) ** 2 / 2 + np.sum((points - s) / scale(points)) * width * scale(nxt)) * curve
            old_slope = slope
        if s_noise > 0:
            call += 1
            x = x + draw(call) * s_noise * math.sqrt(nxt**2 - s**2 * r**2)
        old = clean
    return x


def unipc(x, sigmas, denoise, bh2):
    """UniPC's multistep loop over x / sqrt(1 + sigma^2), predictor and corrector by linear systems."""
    steps = len(sigmas) - 1
    sig = np.append(sigmas[:-1], 0.001)
    alpha, std = 1 / np.sqrt(1 + sig**2), sig / np.sqrt(1 + sig**2)
    lam = np.log(alpha / std)
    model = lambda z, i: denoise(z / alpha[i], sig[i])[0]

    def update(z, seen, to, order, corrects):
        h = lam[to] - lam[to - 1]
        ms = [m for _, m in seen[: order]]
        rk = [(lam[i] - lam[to - 1]) / h for i, _ in seen[1:order]] + [1.0]
        d = [(m - ms[0]) / r for m, r in zip(ms[1:], rk)]
        size = math.expm1(-h) if bh2 else -h
        phi, fact, b = math.expm1(-h) / -h - 1, 1, []
        for i in range(1, order + 1):
            b.append(phi * fact / size)
            fact *= i + 1
            phi = phi / -h - 1 / fact
        matrix = np.array([np.array(rk) ** i for i in range(order)])
        plain = std[to] / std[to - 1] * z - alpha[to] * math.expm1(-h) * ms[0]
        w = [0.5] if order == 2 else np.linalg.solve(matrix[:-1, :-1], b[:-1]) if order > 2 else []
        ahead = plain - alpha[to] * size * sum(a * v for a, v in zip(w, d))
        if not corrects:
            return ahead, None
        there = model(ahead, to)
        w = [0.5] if order == 1 else np.linalg.solve(matrix, b)
        change = sum(a * v for a, v in zip(w, d)) + w[-1] * (there - ms[0])
        return plain - alpha[to] * size * change, there

    z, order = x * alpha[0], max(1, min(3, steps - 1))
    seen = [(0, model(z, 0))]
    for to in range(1, steps + 1):
        own = to if to < order else min(order, steps + 1 - to)
        z, there = update(z, seen, to, own, to < steps)
        seen = [(to, there)] + seen[:2]
    return z / alpha[steps]


def tcd(x, sigmas, denoise, draw, eta, s_noise):
    """In the papers' scale, where x is sqrt(alpha) clean + sqrt(1 - alpha) noise."""
    bars, call = 1 / (1 + TABLE**2), 0
    z = x / math.sqrt(1 + sigmas[0] ** 2)
    for s, nxt in zip(sigmas[:-1], sigmas[1:]):
        clean = denoise(z * math.sqrt(1 + s**2), s)[0]
        eps = (z * math.sqrt(1 + s**2) - clean) / s
        bar = bars[int(math.floor((1 - eta) * np.argmin(np.abs(TABLE - nxt))))]
        z = math.sqrt(bar) * clean + math.sqrt(1 - bar) * eps
        if eta > 0 and nxt > 0:
            call += 1
            after = 1 / (1 + nxt**2)
            z = math.sqrt(after / bar) * z + math.sqrt(1 - after / bar) * draw(call) * s_noise
    return z


def sample(name, x, sigmas, denoise, draw, tree, eta=0.0, s_noise=1.0, churn=0.0):
    """x over the sigmas; draw(k) is the noise of call k, call 0 made x."""
    if name in ("lms", "ipndm", "ipndm_v"):
        return multistep_slopes(name, x, sigmas, denoise)
    if name in ("dpm++2m", "dpm++2m_sde", "dpm++2m_sde_heun", "dpm++3m_sde"):
        return dpmpp_multistep(name, x, sigmas, denoise, tree, 0.0 if name == "dpm++2m" else eta, s_noise)
    if name == "dpm++2mv2":
        return dpmpp_2m_v2(x, sigmas, denoise)
    if name == "dpm++2m_cfg_pp":
        return dpmpp_2m_cfg_pp(x, sigmas, denoise)
    if name.startswith("dpm++2s_a"):
        return dpmpp_2s(x, sigmas, denoise, draw, eta, s_noise, name.endswith("cfg_pp"))
    if name == "dpm++sde":
        return dpmpp_sde(x, sigmas, denoise, tree, eta, s_noise)
    if name.startswith("res_multistep"):
        return res_multistep(x, sigmas, denoise, draw, eta, s_noise, name.endswith("cfg_pp"))
    if name == "er_sde":
        return er_sde(x, sigmas, denoise, draw, s_noise)
    if name.startswith("uni_pc"):
        return unipc(x, sigmas, denoise, name.endswith("bh2"))
    if name == "tcd":
        return tcd(x, sigmas, denoise, draw, eta, s_noise)
    call = 0
    for i, (s, nxt) in enumerate(zip(sigmas[:-1], sigmas[1:])):
        if churn > 0 and name in ("euler", "heun", "dpm2"):
            raised = float(np.float32(s * (1 + min(churn / (len(sigmas) - 1), math.sqrt(2) - 1))))
            call += 1
            x = x + draw(call) * s_noise * math.sqrt(raised**2 - s**2)
            s = raised
        clean, plain = denoise(x, s)
        down, up = ancestral(s, nxt, 0.0 if name in ("euler", "heun", "dpm2", "lcm", "euler_cfg_pp") else eta)
        slope = (x - (plain if name.endswith("cfg_pp") else clean)) / s
        if name == "lcm":
            x, up = clean, nxt
        elif name.endswith("cfg_pp"):
            x = clean + slope * down
        elif name == "heun" and nxt > 0:
            ahead = x + slope * (nxt - s)
            x = x + (slope + (ahead - denoise(ahead, nxt)[0]) / nxt) / 2 * (nxt - s)
        elif name.startswith("dpm2") and nxt > 0:
            mid = math.sqrt(s * down)
            ahead = x + slope * (mid - s)
            x = x + (ahead - denoise(ahead, mid)[0]) / mid * (down - s)
        else:  # euler, euler_a, ddim
            x = x + slope * (down - s)
        if up * s_noise > 0:
            call += 1
            x = x + up * s_noise * draw(call)
    return x


ETA = {"euler_a": 1, "dpm2_a": 1, "dpm++2s_a": 1, "dpm++sde": 1, "dpm++2m_sde": 1, "dpm++2m_sde_heun": 1, "dpm++3m_sde": 1,
       "res_multistep_a": 1, "euler_a_cfg_pp": 1, "dpm++2s_a_cfg_pp": 1}  # the samplers' own, where it is not 0


def picture(case, sigmas=None):
    """The whole: noise, schedule, guidance, sampler. `case` is what sample_dump takes."""
    name, sched, steps, seed, n, kind, predicts, cfg, eta, s_noise, churn = case
    if sigmas is None:
        sigmas = sampler_sigmas(name, sched, steps)
    draw = lambda k: noise(kind, seed, n, k)
    tree = Tree(kind, seed, n, sigmas[-2], sigmas[0])
    own = ETA.get(name, 0) if eta < 0 else eta
    return sample(name, draw(0) * sigmas[0], sigmas, denoiser(predicts, cfg), draw, tree, own, s_noise, churn)


SAMPLERS = ["euler", "euler_a", "heun", "dpm2", "dpm2_a", "lms", "dpm++2s_a", "dpm++sde", "dpm++2m", "dpm++2mv2", "dpm++2m_sde",
            "dpm++2m_sde_heun", "dpm++3m_sde", "ddim", "uni_pc", "uni_pc_bh2", "ipndm", "ipndm_v", "lcm", "tcd", "res_multistep",
            "res_multistep_a", "er_sde", "euler_cfg_pp", "euler_a_cfg_pp", "dpm++2s_a_cfg_pp", "dpm++2m_cfg_pp",
            "res_multistep_cfg_pp", "ddim_cfg_pp"]
SCHEDULES = ["discrete", "karras", "exponential", "ays", "gits", "sgm_uniform", "simple", "ddim_uniform", "kl_optimal", "beta", "lcm",
             "smoothstep", "linear_quadratic"]
TWICE = ("heun", "dpm2", "dpm2_a", "dpm++2s_a", "dpm++2s_a_cfg_pp", "dpm++sde")  # A1111 counts two calls of the network a step
TREES = ("dpm++sde", "dpm++2m_sde", "dpm++2m_sde_heun", "dpm++3m_sde")


def c_array(name, values):
    rows = [", ".join("%.9g" % v for v in values[i : i + 8]) for i in range(0, len(values), 8)]
    return "static const double %s[] = {%s};" % (name, ",\n    ".join(rows))


def record(program):
    print("/* Made by tools/ref/sample.py --record with torch %s, numpy %s. Do not edit. */" % (torch.__version__, np.__version__))
    print("// clang-format off")
    for n in (5, 16, 37):
        print(c_array("ref_cpu_%d" % n, np.concatenate([noise("cpu", 42, n, k) for k in range(3)])))
    print(c_array("ref_cuda_8", np.concatenate([noise("cuda", 2**33 + 7, 8, k) for k in range(3)])))
    for s in SCHEDULES:
        for n in (1, 2, 20, 83):
            print(c_array("ref_%s_%d" % (s, n), schedule(s, n)))
    print("typedef struct ref_case { const char *sampler, *schedule; int steps; unsigned seed; int n; const char *rng, *predicts; double cfg, eta, s_noise, churn; double out[16]; } ref_case;")
    print("static const ref_case ref_cases[] = {")
    for i, name in enumerate(SAMPLERS):
        for j, (predicts, cfg, eta, s_noise, churn) in enumerate([("eps", 7.0, 1.0, 1.0, 0.0), ("v", 1.0, 0.5, 0.9, 2.0), ("eps", 4.5, -1.0, 1.0, 0.0)]):
            case = (name, SCHEDULES[(i + j) % 4 + 5], 5 + 5 * j, 100 + 10 * i + j, 16, ["cuda", "cpu"][j % 2], predicts, cfg, eta, s_noise, churn)
            body = ", ".join("%.9g" % v for v in picture(case, own_sigmas(program, case)))
            print('    {"%s", "%s", %d, %d, %d, "%s", "%s", %g, %g, %g, %g, {%s}},' % (case + (body,)))
    print("};\n// clang-format on")


def ours(program, *args):
    out = subprocess.run([program, *map(str, args)], check=True, capture_output=True, text=True).stdout
    return np.array([float(v) for v in out.split()])


def own_sigmas(program, case):
    """The program's sigmas to the last bit: they are compared by themselves, multistep samplers magnify their rounding, and the
    Brownian tree tells sigmas apart that are 1e-6 away from each other."""
    sigmas = ours(program, "sigmas", *case[:3]).astype(np.float32).astype(float)
    compare("sigmas %s %s %d" % case[:3], sigmas, sampler_sigmas(*case[:3]), 1e-5)
    return sigmas


def steps_for(rnd, sched, most):
    """This file knows GITS's lists for some counts only."""
    return rnd.choice([1, 2, 5, 10, 20] + ([33] if most > 33 else [])) if sched == "gits" else rnd.randrange(1, most)


def compare(what, got, want, limit):
    off = np.max(np.abs(got - want)) / max(1.0, np.max(np.abs(want)))
    print("%-60s %.2e" % (what, off), file=sys.stderr)
    if not off <= limit:
        sys.exit("%s: off by %g, allowed %g" % (what, off, limit))


def rounding(program, case):
    """What float's rounding may make of a case: polynomials through derivatives whose steps grow fast have large weights."""
    if case[0] == "ipndm_v" and case[1] == "linear_quadratic":
        return 1e-4
    if case[0] != "lms":
        return 1e-5
    sigmas = own_sigmas(program, case)
    weights = [adams_bashforth(sigmas[i::-1][:4], sigmas[i], sigmas[i + 1]) for i in range(len(sigmas) - 1)]
    return min(0.05, 1e-5 * max(1, max(abs(w) for step in weights for w in step)))


def check(program, seed):
    rnd = random.Random(seed)
    print("seed", seed, file=sys.stderr)
    for kind in ("cuda", "cpu"):
        for n in (3, 15, 16, 31, 64, 257):
            s, call = rnd.randrange(2**53), rnd.randrange(6)
            compare("noise %s n=%d call=%d" % (kind, n, call), ours(program, "noise", kind, s, n, call), noise(kind, s, n, call), 2e-6)
    for s in SCHEDULES:
        n = steps_for(rnd, s, 201)
        compare("schedule %s %d" % (s, n), ours(program, "schedule", s, n), schedule(s, n), 1e-5)
    for _ in range(12):
        case = (rnd.randrange(2**32), rnd.randrange(4, 90), rnd.choice(["eps", "v"]), rnd.choice([1.5, 7.0]), rnd.choice([0.0, 0.7, 1.0]),
                rnd.choice([0.0, 0.9, 0.995]), rnd.choice([1.0, 4.0]), rnd.choice([0.1, 1.5, 14.0]))
        compare("guide " + " ".join(map(str, case)), ours(program, "guide", *case), guide(*case), 1e-5)
        case = (rnd.choice(["cuda", "cpu"]), rnd.randrange(2**53), rnd.randrange(2**53), rnd.choice([0.0, 0.1, 0.5, 1.0]), 4,
                rnd.randrange(3, 12), rnd.randrange(3, 12), rnd.choice([0, 5, 9]), rnd.choice([0, 6, 14]))
        compare("start " + " ".join(map(str, case)), ours(program, "start", *case), start(*case), 1e-5)
    for name in SAMPLERS:
        for _ in range(4):
            sched = rnd.choice([s for s in SCHEDULES if s != "gits" or name not in DISCARDS])
            case = (name, sched, steps_for(rnd, sched, 9 if name in TREES else 40), rnd.randrange(2**32), rnd.randrange(8, 80), rnd.choice(["cuda", "cpu"]),
                    rnd.choice(["eps", "v"]), rnd.choice([1.0, 1.6, 2.0] if name.endswith("cfg_pp") else [1.0, 3.0, 7.5]), rnd.choice([-1.0, 0.0, 0.6, 1.0]),
                    rnd.choice([1.0, 1.0, 1.02]), rnd.choice([0.0, 0.0, 3.0]))
            want = picture(case, own_sigmas(program, case))
            compare("sample " + " ".join(map(str, case)), ours(program, "sample", *case), want, rounding(program, case))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--record"]:
        record(sys.argv[2])
    elif sys.argv[1:2] == ["--check"]:
        check(sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else random.randrange(2**32))
    else:
        sys.exit(__doc__)
