#!/usr/bin/env python3
"""Independent reference for src/diffusion/sample: noise, schedules, samplers, guidance.

  sample.py --record > tests/unit/sample_vectors.h     the recorded vectors that test_rng and test_sampler use
  sample.py --check build/tests/sample_dump [SEED]     fresh random inputs through our code and through this file

The noise comes from torch itself (CPU) and from a Philox written here over Python integers; schedules and samplers are
written from the papers' equations in double precision. The network is a toy: what matters is that both sides use it.
"""
import math
import random
import subprocess
import sys

import numpy as np
import torch

STEPS = 1000


def philox_block(counter, key):
    """One 4x32 block, ten rounds, over Python integers."""
    c, k = list(counter), list(key)
    for _ in range(10):
        p, q = c[0] * 0xD2511F53, c[2] * 0xCD9E8D57
        c = [(q >> 32) ^ c[1] ^ k[0], q % 2**32, (p >> 32) ^ c[3] ^ k[1], p % 2**32]
        k = [(k[0] + 0x9E3779B9) % 2**32, (k[1] + 0xBB67AE85) % 2**32]
    return c


def noise(kind, seed, n, call):
    """What call number `call` of randn(n) gives after seeding."""
    if kind == "cpu":
        g = torch.Generator().manual_seed(seed)
        for _ in range(call + 1):
            out = torch.randn(n, generator=g)
        return out.double().numpy()
    key = (seed % 2**32, seed >> 32)
    blocks = [philox_block((call, 0, i, 0), key) for i in range(n)]
    u = (np.array([b[0] for b in blocks]) + 0.5) / 2**32
    v = (np.array([b[1] for b in blocks]) + 0.5) * (2 * math.pi / 2**32)
    return np.sqrt(-2 * np.log(u)) * np.sin(v)


def sigma_table():
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, STEPS, dtype=torch.float64) ** 2
    kept = torch.cumprod(1 - betas, 0).float()  # checkpoints keep it in float
    return (((1 - kept) / kept) ** 0.5).double().numpy()


TABLE = sigma_table()


def to_sigma(t):
    return np.exp(np.interp(t, np.arange(STEPS), np.log(TABLE)))


def to_timestep(sigma):
    return np.interp(np.log(sigma), np.log(TABLE), np.arange(STEPS))


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
        s = np.array([TABLE[-(1 + int(i * STEPS / n))] for i in range(n)])
    return np.append(s, 0.0)


def toy_network(x, t, positive):
    """Nonlinear in x and t, different for the two prompts, mixing neighbours."""
    mixed = 0.8 * x + 0.2 * np.roll(x, -1)
    return np.tanh(mixed * (0.9 if positive else 0.7) + t / STEPS - 0.5) + (0.1 if positive else -0.05)


def denoiser(predicts, cfg):
    def denoise(x, sigma):
        scaled = x / math.sqrt(sigma**2 + 1)
        t = float(to_timestep(sigma))
        up, down = toy_network(scaled, t, True), toy_network(scaled, t, False)
        out = up if cfg == 1 else down + cfg * (up - down)
        if predicts == "v":
            return x / (sigma**2 + 1) - out * sigma / math.sqrt(sigma**2 + 1)
        return x - sigma * out

    return denoise


def sample(name, x, sigmas, denoise, draw, eta):
    """x over the sigmas; draw(k) is the noise of call k, call 0 made x."""
    call, before = 0, None
    for i, (s, nxt) in enumerate(zip(sigmas[:-1], sigmas[1:])):
        d = denoise(x, s)
        slope = (x - d) / s
        if name == "euler":
            x = x + slope * (nxt - s)
        elif name == "euler_a":
            up = min(nxt, eta * math.sqrt(nxt**2 * (s**2 - nxt**2) / s**2))
            x = x + slope * (math.sqrt(nxt**2 - up**2) - s)
            if nxt > 0:
                call += 1
                x = x + up * draw(call)
        elif name == "heun":
            ahead = x + slope * (nxt - s)
            if nxt > 0:
                slope = (slope + (ahead - denoise(ahead, nxt)) / nxt) / 2
                ahead = x + slope * (nxt - s)
            x = ahead
        elif name == "dpm++2m":
            if nxt == 0:
                x = d
            else:
                h = math.log(s / nxt)
                best = d
                if i > 0:
                    r = math.log(sigmas[i - 1] / s) / h
                    best = d + (d - before) / (2 * r)
                x = nxt / s * x + (1 - math.exp(-h)) * best
        before = d
    return x


def picture(case):
    """The whole: noise, schedule, guidance, sampler. `case` is what sample_dump takes."""
    name, sched, steps, seed, n, kind, predicts, cfg, eta = case
    sigmas = schedule(sched, steps)
    draw = lambda k: noise(kind, seed, n, k)
    return sample(name, draw(0) * sigmas[0], sigmas, denoiser(predicts, cfg), draw, eta)


SAMPLERS = ["euler", "euler_a", "heun", "dpm++2m"]
SCHEDULES = ["discrete", "karras", "exponential", "sgm_uniform", "simple"]


def c_array(name, values):
    rows = [", ".join("%.9g" % v for v in values[i : i + 8]) for i in range(0, len(values), 8)]
    return "static const double %s[] = {%s};" % (name, ",\n    ".join(rows))


def record():
    print("/* Made by tools/ref/sample.py --record with torch %s, numpy %s. Do not edit. */" % (torch.__version__, np.__version__))
    print("// clang-format off")
    for n in (5, 16, 37):
        print(c_array("ref_cpu_%d" % n, np.concatenate([noise("cpu", 42, n, k) for k in range(3)])))
    print(c_array("ref_cuda_8", np.concatenate([noise("cuda", 2**33 + 7, 8, k) for k in range(3)])))
    for s in SCHEDULES:
        for n in (1, 2, 20):
            print(c_array("ref_%s_%d" % (s, n), schedule(s, n)))
    print("typedef struct ref_case { const char *sampler, *schedule; int steps; unsigned seed; int n; const char *rng, *predicts; double cfg, eta; double out[16]; } ref_case;")
    print("static const ref_case ref_cases[] = {")
    for i, name in enumerate(SAMPLERS):
        for j, (predicts, cfg, eta) in enumerate([("eps", 7.0, 1.0), ("v", 1.0, 0.5), ("eps", 4.5, 0.0)]):
            case = (name, SCHEDULES[(i + j) % 5], 4 + 5 * j, 100 + 10 * i + j, 16, ["cuda", "cpu"][j % 2], predicts, cfg, eta)
            body = ", ".join("%.9g" % v for v in picture(case))
            print('    {"%s", "%s", %d, %d, %d, "%s", "%s", %g, %g, {%s}},' % (case + (body,)))
    print("};\n// clang-format on")


def ours(program, *args):
    out = subprocess.run([program, *map(str, args)], check=True, capture_output=True, text=True).stdout
    return np.array([float(v) for v in out.split()])


def compare(what, got, want, limit):
    off = np.max(np.abs(got - want)) / max(1.0, np.max(np.abs(want)))
    print("%-60s %.2e" % (what, off))
    if not off <= limit:
        sys.exit("%s: off by %g, allowed %g" % (what, off, limit))


def check(program, seed):
    rnd = random.Random(seed)
    print("seed", seed)
    for kind in ("cuda", "cpu"):
        for n in (3, 15, 16, 31, 64, 257):
            s, call = rnd.randrange(2**53), rnd.randrange(6)
            compare("noise %s n=%d call=%d" % (kind, n, call), ours(program, "noise", kind, s, n, call), noise(kind, s, n, call), 2e-6)
    for s in SCHEDULES:
        n = rnd.randrange(1, 120)
        compare("schedule %s %d" % (s, n), ours(program, "schedule", s, n), schedule(s, n), 1e-5)
    for name in SAMPLERS:
        for _ in range(4):
            case = (name, rnd.choice(SCHEDULES), rnd.randrange(1, 40), rnd.randrange(2**32), rnd.randrange(8, 80),
                    rnd.choice(["cuda", "cpu"]), rnd.choice(["eps", "v"]), rnd.choice([1.0, 3.0, 7.5]), rnd.choice([0.0, 0.6, 1.0]))
            compare("sample " + " ".join(map(str, case)), ours(program, "sample", *case), picture(case), 1e-5)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--record"]:
        record()
    elif sys.argv[1:2] == ["--check"]:
        check(sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else random.randrange(2**32))
    else:
        sys.exit(__doc__)
