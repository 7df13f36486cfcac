#!/usr/bin/env python3
"""Files as PyTorch writes them, made fresh, read by our reader and compared with the same tensors as safetensors.

    torch_files.py FILE_CHECK        (tests/unit/file_check.c)

Both forms of torch.save's file, checkpoints with more than weights in them, views, archives of the 64-bit kind, and files
that must be refused: those whose pickle would run something, and those that are cut off at any place."""
import collections
import io
import json
import os
import pickle
import random
import struct
import subprocess
import sys
import tempfile
import zipfile

import numpy as np
import torch

NAMES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.float64: "F64", torch.int64: "I64",
         torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL"}


def raw(t):
    t = t.detach().contiguous()
    return (t.view(torch.int16) if t.dtype == torch.bfloat16 else t).numpy().tobytes()


def safetensors(path, tensors):
    header, data = {}, b""
    for name, t in tensors.items():
        b = raw(t)
        header[name] = {"dtype": NAMES[t.dtype], "shape": list(t.shape), "data_offsets": [len(data), len(data) + len(b)]}
        data += b
    text = json.dumps(header).encode()
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + data)


def state(seed):
    g = torch.Generator().manual_seed(seed)
    out = collections.OrderedDict()
    for i, dtype in enumerate(NAMES):
        shape = [int(n) for n in torch.randint(1, 6, (1 + i % 5,), generator=g)]
        values = torch.randn(shape, generator=g) * 50
        out[f"layer.{i}.weight"] = values > 0 if dtype == torch.bool else values.to(dtype)
    out["scalar"] = torch.tensor(3.5)
    out["empty"] = torch.zeros(0, 4)
    return out


class Checks:
    def __init__(self, program):
        self.program, self.failed, self.count = program, 0, 0
        self.dir = tempfile.TemporaryDirectory()
        self.path = os.path.join(self.dir.name, "file.pt")
        self.want = os.path.join(self.dir.name, "want.safetensors")

    def run(self, what, *args):
        self.count += 1
        done = subprocess.run([self.program, *args], capture_output=True, text=True)
        if done.returncode:
            self.failed += 1
            print(f"FAIL {what}: {done.stderr.strip()}")

    def write(self, data):
        with open(self.path, "wb") as f:
            f.write(data)

    def same(self, what, obj, tensors, **how):
        torch.save(obj, self.path, **how)
        safetensors(self.want, tensors)
        self.run(what, self.path, self.want)

    def refuses(self, what, text, data=None):
        if data is not None:
            self.write(data)
        self.run(what, "--refuses", self.path, text)


def saved(obj, **how):
    b = io.BytesIO()
    torch.save(obj, b, **how)
    return b.getvalue()


def rezip(data, change=lambda name, body: body, **how):
    """The archive written again by another program; `change` may give other bytes or None."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w", **how) as new:
        for item in old.infolist():
            body = change(item.filename, old.read(item))
            if body is not None:
                new.writestr(item.filename, body)
    return out.getvalue()


class Evil:
    def __reduce__(self):
        return os.system, ("touch /nonexistent",)


def good_files(c, seed):
    s = state(seed)
    for old in (False, True):
        how = {"_use_new_zipfile_serialization": not old}
        form = "old form" if old else "archive"
        c.same(f"state dict, {form}", s, s, **how)
        c.same(f"parameters, {form}", {k: torch.nn.Parameter(v, requires_grad=False) for k, v in s.items()}, s, **how)
        # A trainer's checkpoint: the weights are one entry of many.
        trainer = {"state_dict": s, "epoch": 7, "name": "a name", "lr": np.float64(1e-4), "best": np.zeros(3),
                   "optimizer_states": [{"state": {0: {"step": torch.tensor(1.0)}}}], "set": {1, 2}, "deep": ((1, 2), [None, True])}
        c.same(f"checkpoint, {form}", trainer, s, **how)
        c.run("metadata", "--meta", c.path, "epoch", "7")
        c.run("metadata", "--meta", c.path, "name", "a name")
        c.same(f"esrgan, {form}", {"params": {"x": torch.zeros(1)}, "params_ema": s}, s, **how)
        nested = {"a": {"b": s["scalar"], "c": {"d": s["layer.0.weight"]}}, "e": s["layer.1.weight"]}
        c.same(f"nested, {form}", nested,
               {"a.b": s["scalar"], "a.c.d": s["layer.0.weight"], "e": s["layer.1.weight"]}, **how)
        base = torch.randn(6, 8)
        c.same(f"views, {form}", {"all": base, "rows": base[2:4], "row": base[5], "tied": base},
               {"all": base, "rows": base[2:4].clone(), "row": base[5].clone(), "tied": base}, **how)
        channels_last = torch.randn(1, 3, 1, 1).contiguous(memory_format=torch.channels_last)
        c.same(f"strides of 1, {form}", {"x": channels_last}, {"x": channels_last.contiguous()}, **how)
        # Textual inversion.
        vectors = torch.randn(2, 768)
        embedding = {"string_to_token": {"*": torch.tensor(265)}, "string_to_param": {"*": vectors}, "name": "style", "step": 500}
        c.same(f"embedding, {form}", embedding, {"string_to_token.*": torch.tensor(265), "string_to_param.*": vectors}, **how)
        c.same(f"parameter dict, {form}", {"string_to_param": torch.nn.ParameterDict({"*": torch.nn.Parameter(vectors)})},
               {"string_to_param.*": vectors}, **how)
    for protocol in (2, 3, 4, 5):
        c.same(f"protocol {protocol}", s, s, pickle_protocol=protocol)
    # As archives of more than 4 GB have it: every offset in 64-bit fields; and a comment behind all.
    data = saved(s)
    c.write(zip64(data))
    safetensors(c.want, s)
    c.run("64-bit archive", c.path, c.want)
    commented = bytearray(data)
    commented[-2:] = struct.pack("<H", 5)
    c.write(bytes(commented) + b"hello")
    c.run("archive with a comment", c.path, c.want)


def zip64(data):
    """The same archive with its directory in the 64-bit form."""
    end = data.rindex(b"PK\5\6")
    count, size, at = struct.unpack("<HII", data[end + 10:end + 20])
    directory, p = b"", at
    for _ in range(count):
        head = data[p:p + 46]
        packed, full, name, extra, comment = *struct.unpack("<II", head[20:28]), *struct.unpack("<HHH", head[28:34])
        offset = struct.unpack("<I", head[42:46])[0]
        wide = struct.pack("<HHQQQ", 1, 24, full, packed, offset)
        new = bytearray(head)
        new[20:28] = b"\xff" * 8
        new[30:34] = struct.pack("<HH", len(wide), 0)
        new[42:46] = b"\xff" * 4
        directory += bytes(new) + data[p + 46:p + 46 + name] + wide
        p += 46 + name + extra + comment
    start = len(data[:at])
    tail = struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, count, count, len(directory), start)
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, start + len(directory), 1)
    last = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 0xffff, 0xffff, 0xffffffff, 0xffffffff, 0)
    return data[:at] + directory + tail + locator + last


def bad_files(c, seed):
    s = state(seed)
    good = saved(s)
    for old in (False, True):
        how = {"_use_new_zipfile_serialization": not old}
        c.refuses("a call", "posix.system", saved({"w": torch.zeros(1), "x": Evil()}, **how))
        c.refuses("a module", "torch.nn.modules.linear.Linear", saved(torch.nn.Linear(2, 2), **how))
        c.refuses("a transposed view", "'t' is a transposed or strided view", saved({"t": torch.randn(3, 4).t()}, **how))
        c.refuses("a strided view", "'t' is a transposed or strided view", saved({"t": torch.randn(8)[::2]}, **how))
        c.refuses("a sparse tensor", "_rebuild_sparse_tensor", saved({"t": torch.eye(3).to_sparse()}, **how))
        c.refuses("no dictionary", "no dictionary of tensors", saved(torch.zeros(3), **how))
        whole = saved(s, **how)
        for _ in range(40):
            c.refuses("a file cut off", "", whole[:random.randrange(2, len(whole))])
    c.refuses("a bare pickle", "not one that torch.save wrote", pickle.dumps({"a": 1}, 2))
    c.refuses("opcodes", "(INST) at byte", rezip(good, lambda n, b: b"\x80\x02(ios\nsystem\n." if n.endswith("data.pkl") else b))
    c.refuses("compressed", "is compressed", rezip(good, compression=zipfile.ZIP_DEFLATED))
    c.refuses("another zip", "not one that torch.save wrote", rezip(good, lambda n, b: None if n.endswith("pkl") else b))
    c.refuses("a storage missing", "is missing", rezip(good, lambda n, b: None if n.endswith("data/0") else b))
    c.refuses("a short storage", "beyond the file's end", rezip(good, lambda n, b: b[:-1] if n.endswith("data/0") else b))
    c.refuses("big endian", "little endian", big_endian(good))


def big_endian(data):
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
        for item in old.infolist():
            new.writestr(item.filename, old.read(item))
        new.writestr("archive/byteorder", "big")
    return out.getvalue()


def main():
    seed = random.randrange(2**31)
    random.seed(seed)
    print(f"seed {seed}")
    torch.manual_seed(seed)
    c = Checks(sys.argv[1])
    good_files(c, seed)
    bad_files(c, seed)
    print(f"{c.count} checks, {c.failed} failed")
    return 1 if c.failed else 0


if __name__ == "__main__":
    sys.exit(main())
