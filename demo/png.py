"""Reads the PNG files that the studio writes: 8 bits a channel, RGB, not interlaced (ISO/IEC 15948)."""
import struct
import zlib

import numpy as np


def chunks(data):
    at = 8
    while at < len(data):
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        yield kind, data[at + 8 : at + 8 + length]
        at += 12 + length


def paeth(a, b, c):
    """The neighbour (left, above, above left) that is nearest to left + above - above left."""
    p = a + b - c
    pa, pb, pc = abs(p - a), abs(p - b), abs(p - c)
    return np.where((pa <= pb) & (pa <= pc), a, np.where(pb <= pc, b, c))


def unfilter(kind, line, above):
    """line, above: int [width, 3]; the line with its filter undone."""
    if kind == 0:
        return line
    if kind == 2:
        return (line + above) & 255
    left = upper_left = np.zeros(3, np.int32)
    for x in range(len(line)):
        up = above[x]
        guess = left if kind == 1 else (left + up) >> 1 if kind == 3 else paeth(left, up, upper_left)
        line[x] = left = (line[x] + guess) & 255
        upper_left = up
    return line


def read(path):
    """[height, width, 3] uint8"""
    with open(path, "rb") as file:
        parts = list(chunks(file.read()))
    width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", dict(parts)[b"IHDR"])
    if (depth, colour, interlaced) != (8, 2, 0):
        raise ValueError(f"{path}: not an RGB picture of 8 bits without interlacing")
    rows = np.frombuffer(zlib.decompress(b"".join(body for kind, body in parts if kind == b"IDAT")), np.uint8)
    rows = rows.reshape(height, 1 + 3 * width).astype(np.int32)
    above, out = np.zeros((width, 3), np.int32), np.empty((height, width, 3), np.uint8)
    for y, row in enumerate(rows):
        out[y] = above = unfilter(row[0], row[1:].reshape(width, 3), above)
    return out


def write(path, picture):
    """picture: uint8 [height, width, 3]"""
    height, width, _ = picture.shape
    raw = b"".join(b"\0" + row.tobytes() for row in np.ascontiguousarray(picture))
    with open(path, "wb") as out:
        out.write(b"\x89PNG\r\n\x1a\n")
        for kind, body in ((b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
                           (b"IDAT", zlib.compress(raw)), (b"IEND", b"")):
            out.write(struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)))
