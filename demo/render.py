"""Draws scenes as 128x128 RGB pictures: signed distances on a float32 grid, softened to anti-aliased edges.

    python3 demo/render.py OUT.npy --count N --seed S [--held-out] [--jobs 2]

writes OUT.npy (uint8 [N, 128, 128, 3], memory-mapped while written) and OUT.jsonl (one scene a line).
"""

import argparse
import json
import math
import multiprocessing
import os
import random

import numpy as np

import scene as scenes

SIZE = 128
STROKE = 1.7  # half the width of an outline in pixels
INK = np.array((20, 18, 24), np.float32)
_AXIS = np.arange(SIZE, dtype=np.float32) + 0.5


# Signed distances: x, y of any shape that broadcasts, in units of the shape's radius; negative inside.

def polygon(x, y, corners):
    """Exact signed distance to a closed polygon with corners [(x, y), ...]."""
    nearest = np.float32(np.inf)
    inside = np.False_
    previous = corners[-1]
    for corner in corners:
        edge_x, edge_y = previous[0] - corner[0], previous[1] - corner[1]
        wx, wy = x - corner[0], y - corner[1]
        along = np.clip((wx * edge_x + wy * edge_y) / (edge_x * edge_x + edge_y * edge_y), 0, 1)
        nearest = np.minimum(nearest, (wx - edge_x * along) ** 2 + (wy - edge_y * along) ** 2)
        if edge_y:
            crosses = (y >= corner[1]) != (y >= previous[1])
            inside = inside ^ (crosses & (wx < edge_x * wy / edge_y))
        previous = corner
    distance = np.sqrt(nearest)
    return np.where(inside, -distance, distance)


def box(x, y, half_x, half_y):
    """Signed distance to an axis-aligned box around the origin."""
    dx, dy = np.abs(x) - half_x, np.abs(y) - half_y
    outside = np.sqrt(np.maximum(dx, 0) ** 2 + np.maximum(dy, 0) ** 2)
    return outside + np.minimum(np.maximum(dx, dy), 0)


def circle(x, y, radius=1.0):
    """Signed distance to a disc around the origin."""
    return np.sqrt(x * x + y * y) - radius


def _square(x, y):
    return box(x, y, 0.84, 0.84) - 0.05


def _triangle(x, y):
    return polygon(x, y, ((0, -0.90), (1.0, 0.82), (-1.0, 0.82))) - 0.06


def _star(x, y):
    corners = [(radius * math.sin(k * math.pi / 5), 0.10 - radius * math.cos(k * math.pi / 5))
               for k, radius in enumerate((1.10, 0.47) * 5)]
    return polygon(x, y, corners) - 0.04


def _heart(x, y):
    half, root = 0.58, math.sqrt(0.5)  # a square on its corner with a half disc on each upper side
    y = y - 0.10
    square = box((x + y) * root, (x - y) * root, half, half)
    lobe = circle(np.abs(x) - half * root, y + half * root, half)
    return np.minimum(square, lobe) - 0.05


def _cross(x, y):
    return np.minimum(box(x, y, 0.96, 0.30), box(x, y, 0.30, 0.96)) - 0.04


SHAPE_DISTANCES = {"circle": circle, "square": _square, "triangle": _triangle, "star": _star, "heart": _heart,
                   "cross": _cross}


def _smooth_matrix(cells):
    """Interpolation [SIZE, cells] with cosine ease between `cells` values spread over the picture."""
    position = np.linspace(0, cells - 1.001, SIZE)
    low = position.astype(int)
    t = (1 - np.cos((position - low) * np.pi)) / 2
    matrix = np.zeros((SIZE, cells), np.float32)
    matrix[np.arange(SIZE), low] = 1 - t
    matrix[np.arange(SIZE), low + 1] = t
    return matrix


_SMOOTH = {cells: _smooth_matrix(cells) for cells in (5, 8, 16)}


def _noise(rng, cells):
    """Smooth noise [SIZE, SIZE] between -1 and 1 with `cells` random values a side."""
    values = rng.uniform(-1, 1, (cells, cells)).astype(np.float32)
    return _SMOOTH[cells] @ values @ _SMOOTH[cells].T


class Canvas:
    """A picture being painted: pixels [SIZE, SIZE, 3] float32 of 0 to 255, in one style."""

    def __init__(self, style, rng):
        self.style = style
        self.rng = rng
        self.pixels = np.empty((SIZE, SIZE, 3), np.float32)
        self.softness = 1.0
        self.wobble = None
        if style == "watercolor":
            self.softness = 2.2
            self.wobble = _noise(rng, 16) * 0.9 + _noise(rng, 8) * 0.7

    def jittered(self, rgb, amount=6.0):
        """rgb shifted a little at random, float32 [3]."""
        return np.asarray(rgb, np.float32) + self.rng.uniform(-amount, amount, 3).astype(np.float32)

    def paint(self, bounds, distance, rgb, stroke=STROKE, opacity=1.0):
        """Paints where distance(x, y) (pixels, absolute coordinates) is negative.

        bounds: (left, top, right, bottom) that hold the shape. stroke: half the width of its outline, 0 for none.
        """
        left, top = max(0, int(bounds[0]) - 4), max(0, int(bounds[1]) - 4)
        right, bottom = min(SIZE, int(bounds[2]) + 5), min(SIZE, int(bounds[3]) + 5)
        if left >= right or top >= bottom:
            return
        d = distance(_AXIS[None, left:right], _AXIS[top:bottom, None])
        d = np.broadcast_to(d, (bottom - top, right - left))
        colour = np.asarray(rgb, np.float32)
        area = self.pixels[top:bottom, left:right]
        if self.wobble is not None:
            d = d + self.wobble[top:bottom, left:right]
            rim = np.exp(-((d + 1.6) / 1.6) ** 2) * 0.10
            colour = colour * (1 - rim[..., None])
        cover = np.clip(0.5 - d / self.softness, 0, 1) * opacity
        area += (colour - area) * cover[..., None]
        if stroke and self.style == "outline":
            ink = np.clip(stroke + 0.5 - np.abs(d), 0, 1)[..., None]
            area += (INK - area) * ink

    def finish(self):
        """The picture as uint8; watercolor gets its washes and paper."""
        if self.style == "watercolor":
            tone = 1 + 0.055 * _noise(self.rng, 5) + 0.035 * _noise(self.rng, 16)
            grain = 1 + 0.018 * self.rng.standard_normal((SIZE, SIZE), np.float32)
            self.pixels += (255 - self.pixels) * np.float32(0.07)
            self.pixels *= (tone * grain)[..., None]
        return np.clip(self.pixels + 0.5, 0, 255).astype(np.uint8)


def _stripes(rng):
    """Distance in pixels to the edge of the nearest lighter stripe [SIZE, SIZE], negative inside."""
    angle = rng.choice((0, 1, 2, 3)) * math.pi / 4
    period = rng.uniform(15, 24)
    along = _AXIS[None] * math.cos(angle) + _AXIS[:, None] * math.sin(angle) + rng.uniform(0, period)
    return np.abs(along % period - period / 2) - period / 4


def _checkerboard(rng):
    """Distance to the edge of the nearest lighter cell [SIZE, SIZE], negative inside."""
    cell = rng.uniform(13, 20)
    wave_x, wave_y = (np.abs((_AXIS + rng.uniform(0, 2 * cell)) % (2 * cell) - cell) - cell / 2 for _ in range(2))
    wave_x, wave_y = wave_x[None], wave_y[:, None]
    return np.where(wave_x * wave_y > 0, 1, -1) * np.minimum(np.abs(wave_x), np.abs(wave_y))


def _dots(rng):
    """Distance to the edge of the nearest lighter dot [SIZE, SIZE], negative inside."""
    pitch = rng.uniform(15, 21)
    y = _AXIS[:, None] + rng.uniform(0, pitch)
    row = np.floor(y / pitch)
    x = _AXIS[None] + rng.uniform(0, pitch) + row % 2 * (pitch / 2)
    return circle(x % pitch - pitch / 2, y % pitch - pitch / 2, pitch * 0.27)


def _gradient(rng):
    """Share of the lighter end of a gradient [SIZE, SIZE]."""
    angle = rng.choice(8) * math.pi / 4
    across = (_AXIS[None] - SIZE / 2) * math.cos(angle) + (_AXIS[:, None] - SIZE / 2) * math.sin(angle)
    return np.clip(across / SIZE / max(abs(math.cos(angle)), abs(math.sin(angle))) * 0.9 + 0.5, 0, 1)


_PATTERNS = {"stripes": _stripes, "checkerboard": _checkerboard, "dots": _dots}


def _paint_background(canvas, scene):
    """Fills the canvas with the scene's background."""
    start, end = scenes.background_tints(scene.background, scene.pattern, scene.style)
    start = canvas.jittered(start)
    if scene.pattern == "plain":
        canvas.pixels[:] = start
        return
    end = canvas.jittered(end)
    if scene.pattern == "gradient":
        share = _gradient(canvas.rng)
    else:
        distance = _PATTERNS[scene.pattern](canvas.rng)
        if canvas.wobble is not None:
            distance = distance + canvas.wobble
        share = np.clip(0.5 - distance / canvas.softness, 0, 1)
    canvas.pixels[:] = start + (end - start) * share[..., None].astype(np.float32)


def layout(scene, rng):
    """Centre and radius (x, y, r in pixels) of every object of the scene."""
    radii = [scenes.SIZES[thing.size] * rng.uniform(0.97, 1.03) for thing in scene.objects]
    if len(radii) == 1:
        reach = 24 + 0.6 * radii[0]
        x = {"left": reach, "right": SIZE - reach}.get(scene.place, SIZE / 2) + rng.uniform(-2, 2)
        y = {"top": reach, "bottom": SIZE - reach}.get(scene.place, SIZE / 2) + rng.uniform(-2, 2)
        return [(x, y, radii[0])]
    along = [36 + rng.uniform(-2, 2), 92 + rng.uniform(-2, 2)]
    across = [64 + rng.uniform(-5, 5), 64 + rng.uniform(-5, 5)]
    if scene.relation in ("right of", "below"):
        along.reverse()
    if scene.relation in ("above", "below"):
        along, across = across, along
    return list(zip(along, across, radii))


def _paint_thing(canvas, thing, x0, y0, radius):
    """One shape at a place, slightly turned."""
    turn = canvas.rng.uniform(-0.08, 0.08)
    cos, sin = math.cos(turn) / radius, math.sin(turn) / radius
    shape = SHAPE_DISTANCES[thing.shape]

    def distance(x, y):
        x, y = x - np.float32(x0), y - np.float32(y0)
        return shape(x * cos + y * sin, y * cos - x * sin) * radius

    reach = radius * 1.2
    rgb = canvas.jittered(scenes.fill_rgb(thing.colour, canvas.style))
    canvas.paint((x0 - reach, y0 - reach, x0 + reach, y0 + reach), distance, rgb)


# Landscapes. Colours by time of day; the sky is three stops from the top to the horizon.
SKIES = {
    "day": ((112, 186, 240), (160, 212, 246), (214, 236, 250)),
    "sunset": ((118, 78, 152), (236, 118, 112), (255, 200, 118)),
    "night": ((12, 16, 48), (24, 34, 82), (48, 64, 120)),
}
_HILL_COLOURS = {
    "day": ((138, 196, 110), (100, 172, 84), (72, 148, 66)),
    "sunset": ((140, 132, 84), (112, 116, 66), (84, 98, 54)),
    "night": ((34, 62, 66), (26, 52, 52), (20, 42, 40)),
}
_SEA_COLOURS = {
    "day": ((76, 158, 206), (30, 102, 168)),
    "sunset": ((216, 128, 122), (92, 70, 136)),
    "night": ((34, 54, 104), (14, 24, 58)),
}
_SHADE = {"day": (1.0, 1.0, 1.0), "sunset": (0.88, 0.72, 0.70), "night": (0.40, 0.44, 0.60)}
_DISC_COLOURS = {("sun", "day"): (255, 222, 70), ("sun", "sunset"): (255, 236, 140), ("moon", "night"): (248, 244, 218)}


def column(stops, count):
    """Colours [count, 3] that run through the stops."""
    position = np.linspace(0, len(stops) - 1, count)
    return np.stack([np.interp(position, range(len(stops)), channel) for channel in zip(*stops)], 1).astype(np.float32)


def _paint_sky(canvas, scene, horizon):
    """The sky with stars or clouds."""
    rng = canvas.rng
    canvas.pixels[:horizon] = column([canvas.jittered(stop) for stop in SKIES[scene.time]], horizon)[:, None]
    canvas.pixels[horizon:] = canvas.pixels[horizon - 1]
    if scene.time == "night":
        for _ in range(rng.integers(14, 26)):
            x, y, size = rng.uniform(3, 125), rng.uniform(3, horizon * 0.8), rng.uniform(0.5, 1.0)
            canvas.paint((x - 2, y - 2, x + 2, y + 2), lambda px, py: circle(px - x, py - y, size), (235, 235, 250),
                         stroke=0, opacity=rng.uniform(0.5, 0.9))
    if scene.time == "day":
        for _ in range(rng.integers(1, 4)):
            _paint_cloud(canvas, rng.uniform(14, 114), rng.uniform(10, horizon * 0.6), rng.uniform(0.8, 1.3))


def _paint_cloud(canvas, x, y, scale):
    """Three puffs on a flat foot."""
    def distance(px, py):
        px, py = (px - x) / scale, (py - y) / scale
        puffs = np.minimum(circle(px, py + 2, 6), np.minimum(circle(px + 8, py, 4), circle(px - 8, py, 4.5)))
        return np.maximum(puffs, py - 3) * scale
    canvas.paint((x - 14 * scale, y - 9 * scale, x + 14 * scale, y + 5 * scale), distance, (252, 253, 255),
                 stroke=1.0, opacity=0.9)


def _paint_disc(canvas, scene, horizon):
    """The sun or the moon with its glow; returns its x."""
    rng = canvas.rng
    side = rng.uniform(20, 48)
    x = side if rng.random() < 0.5 else SIZE - side
    y = horizon - rng.uniform(25, 32) if scene.time == "sunset" else rng.uniform(19, 28)
    radius = rng.uniform(9.5, 12)
    colour = canvas.jittered(_DISC_COLOURS[scene.sky, scene.time], 4)
    bite = rng.uniform(0.45, 0.7) * radius

    def distance(px, py):
        disc = circle(px - x, py - y, radius)
        if scene.sky == "sun":
            return disc
        return np.maximum(disc, -circle(px - x - bite, py - y + bite * 0.4, radius * 0.85))

    glow = np.exp(-np.maximum(distance(_AXIS[None], _AXIS[:horizon, None]), 0) / 9) * 0.45
    canvas.pixels[:horizon] += (colour - canvas.pixels[:horizon]) * glow[..., None]
    canvas.paint((x - radius, y - radius, x + radius, y + radius), distance, colour)
    return x


def _hill(rng, level, height):
    """Heights (y in pixels) [1, SIZE] of a rolling ridge around a level."""
    phase, length = rng.uniform(0, 2 * math.pi, 2), rng.uniform(70, 150, 2)
    ridge = sum(np.sin(_AXIS * (2 * math.pi / l) + p) for l, p in zip(length, phase))
    return (level + height * ridge / 2).astype(np.float32)[None]


def _paint_hills(canvas, scene, horizon):
    """Three ridges, the nearest last; returns the nearest ridge's heights [SIZE]."""
    ridge = None
    for k, colour in enumerate(_HILL_COLOURS[scene.time]):
        ridge = _hill(canvas.rng, horizon + 2 + 15 * k, 8 - 2 * k)
        reach = lambda px, py, ridge=ridge: ridge[:, :px.shape[1]] - py
        canvas.paint((0, float(ridge.min()) - 4, SIZE, SIZE), reach, canvas.jittered(colour, 5))
    return ridge[0]


def _paint_sea(canvas, scene, horizon, disc_x):
    """The water with its waves and, under a disc, the reflection."""
    rng = canvas.rng
    water = column([canvas.jittered(stop, 5) for stop in _SEA_COLOURS[scene.time]], SIZE - horizon)
    area = canvas.pixels[horizon:]
    area[:] = water[:, None]
    bright = np.asarray(_DISC_COLOURS.get((scene.sky, scene.time), (255, 255, 255)), np.float32)
    depth = np.arange(SIZE - horizon, dtype=np.float32)[:, None]
    ripple = np.sin(depth * 1.7 + np.sin(_AXIS[None] * 0.11 + rng.uniform(0, 6)) * 1.5)
    if disc_x is not None:
        width = 5 + depth * 0.22
        share = np.exp(-((_AXIS[None] - disc_x) / width) ** 2) * np.clip(ripple + 0.5, 0, 1) * 0.55
        area += (bright - area) * share[..., None]
    for _ in range(rng.integers(7, 12)):
        x, y, half = rng.uniform(4, 124), rng.uniform(horizon + 5, SIZE - 4), rng.uniform(4, 9)
        wave = lambda px, py: box(px - x, py - y - np.cos((px - x) * (3.1 / half)) * 0.8, half, 0.35) - 0.35
        canvas.paint((x - half, y - 2, x + half, y + 2), wave, (240, 246, 252), stroke=0,
                     opacity=0.22 if scene.time == "night" else 0.42)
    if canvas.style == "outline":
        canvas.pixels[horizon - 1:horizon + 2] = INK


def _convex(*corners):
    """A distance function of a convex polygon (corners clockwise on the screen), cheap and exact near its edges."""
    def distance(x, y):
        result = -np.inf
        for (ax, ay), (bx, by) in zip(corners, corners[1:] + corners[:1]):
            length = math.hypot(bx - ax, by - ay)
            result = np.maximum(result, ((x - ax) * (by - ay) - (y - ay) * (bx - ax)) / length)
        return result
    return distance


def _paint_polygon(canvas, rgb, *corners, stroke=STROKE):
    xs, ys = zip(*corners)
    canvas.paint((min(xs), min(ys), max(xs), max(ys)), _convex(*corners), rgb, stroke)


def _paint_box(canvas, rgb, left, top, right, bottom, stroke=STROKE):
    _paint_polygon(canvas, rgb, (left, top), (right, top), (right, bottom), (left, bottom), stroke=stroke)


_WALLS = ((246, 232, 204), (250, 246, 238), (232, 178, 130), (240, 214, 150))
_ROOFS = ((196, 66, 52), (168, 74, 52), (122, 70, 56), (92, 92, 120))


def _paint_house(canvas, time, x, foot, s):
    """A house whose foot stands at (x, foot); s scales its 30 pixels of width."""
    rng = canvas.rng
    shade = np.asarray(_SHADE[time], np.float32)
    wall, roof = canvas.jittered(rng.choice(_WALLS)) * shade, canvas.jittered(rng.choice(_ROOFS)) * shade
    lit = np.asarray((255, 214, 96) if time != "day" else (120, 170, 205), np.float32)
    chimney = x + 8 * s
    _paint_box(canvas, roof * 0.8, chimney - 2.2 * s, foot - 33 * s, chimney + 2.2 * s, foot - 20 * s)
    _paint_box(canvas, wall, x - 14 * s, foot - 19 * s, x + 14 * s, foot)
    _paint_polygon(canvas, roof, (x, foot - 34 * s), (x + 18 * s, foot - 18 * s), (x - 18 * s, foot - 18 * s))
    _paint_box(canvas, roof * 0.75, x - 3.4 * s, foot - 11 * s, x + 3.4 * s, foot, stroke=0)
    for side in (-9.2, 9.2):
        _paint_box(canvas, lit, x + (side - 2.6) * s, foot - 13 * s, x + (side + 2.6) * s, foot - 7.5 * s,
                   stroke=0)


def _paint_tree(canvas, time, x, foot, s):
    """A tree, round or pointed, 44 pixels high times s."""
    rng = canvas.rng
    shade = np.asarray(_SHADE[time], np.float32)
    trunk, leaf = canvas.jittered((120, 80, 48)) * shade, canvas.jittered((40, 126, 62)) * shade
    _paint_box(canvas, trunk, x - 2.6 * s, foot - 18 * s, x + 2.6 * s, foot)
    if rng.random() < 0.4:
        for k in range(3):
            top, half = foot - (44 - 10 * k) * s, (9 + 2.5 * k) * s
            _paint_polygon(canvas, leaf * (0.9 + 0.08 * (2 - k)), (x, top), (x + half, top + 16 * s),
                           (x - half, top + 16 * s))
        return
    y = foot - 26 * s

    def crown(px, py):
        puffs = np.minimum(circle(px - x - 7 * s, py - y - 3 * s, 9 * s), circle(px - x + 7 * s, py - y - 3 * s, 9 * s))
        return np.minimum(puffs, circle(px - x, py - y + 6 * s, 11 * s))

    canvas.paint((x - 17 * s, y - 18 * s, x + 17 * s, y + 13 * s), crown, leaf)
    canvas.paint((x - 10 * s, y - 14 * s, x + 2 * s, y), lambda px, py: circle(px - x + 4 * s, py - y + 8 * s, 4.5 * s),
                 leaf * 1.15 + 6, stroke=0)


def _paint_boat(canvas, time, x, foot, s):
    """A sailing boat whose hull ends at (x, foot); 40 pixels wide times s."""
    shade = np.asarray(_SHADE[time], np.float32) * 0.5 + 0.5
    hull, sail = canvas.jittered((186, 62, 48)) * shade, canvas.jittered((250, 246, 236)) * shade
    top = foot - 9 * s
    _paint_box(canvas, (92, 62, 44) * shade, x - 1.1 * s, top - 30 * s, x + 1.1 * s, top,
               stroke=0)
    _paint_polygon(canvas, sail, (x + 2 * s, top - 28 * s), (x + 17 * s, top - 3 * s), (x + 2 * s, top - 3 * s))
    _paint_polygon(canvas, sail * 0.9, (x - 2 * s, top - 22 * s), (x - 2 * s, top - 3 * s), (x - 12 * s, top - 3 * s))
    _paint_polygon(canvas, hull, (x - 20 * s, top), (x + 20 * s, top), (x + 13 * s, foot), (x - 14 * s, foot))


def _paint_landscape(canvas, scene):
    """Sky, disc, ground and what stands on it."""
    rng = canvas.rng
    horizon = int(rng.integers(66, 77))
    _paint_sky(canvas, scene, horizon)
    disc_x = _paint_disc(canvas, scene, horizon) if scene.sky else None
    if scene.ground == "sea":
        _paint_sea(canvas, scene, horizon, disc_x)
        if scene.things:
            x = rng.uniform(36, 92) if disc_x is None else rng.uniform(74, 98) if disc_x < 64 else rng.uniform(30, 54)
            _paint_boat(canvas, scene.time, x, horizon + rng.uniform(14, 26), rng.uniform(0.95, 1.25))
        return
    ridge = _paint_hills(canvas, scene, horizon)
    centres = [rng.uniform(34, 94)] if len(scene.things) == 1 else [rng.uniform(30, 42), rng.uniform(86, 98)]
    if rng.random() < 0.5:
        centres.reverse()
    painters = {"house": _paint_house, "tree": _paint_tree}
    for thing, x in zip(scene.things, centres):
        foot = float(ridge[int(x)]) + rng.uniform(4, 9)
        painters[thing](canvas, scene.time, x, foot, rng.uniform(0.95, 1.2))


def render(scene, seed=0):
    """The scene as uint8 [128, 128, 3]; the seed fixes exact places, tints and textures."""
    canvas = Canvas(scene.style, np.random.default_rng(seed))
    if scene.kind == "landscape":
        _paint_landscape(canvas, scene)
        return canvas.finish()
    _paint_background(canvas, scene)
    for thing, (x, y, radius) in zip(scene.objects, layout(scene, canvas.rng)):
        _paint_thing(canvas, thing, x, y, radius)
    return canvas.finish()


def numbered_scene(seed, index, held_out=False):
    """Scene number index of the endless list of that seed."""
    return scenes.random_scene(random.Random(f"{seed}/{index}"), held_out)


def _render_range(path, seed, held_out, start, end):
    """Renders pictures start to end - 1 into the file of all pictures."""
    pictures = np.load(path, mmap_mode="r+")
    for index in range(start, end):
        pictures[index] = render(numbered_scene(seed, index, held_out), (seed, index))
    pictures.flush()


def write_dataset(out, count, seed, held_out=False, jobs=1):
    """Writes out.npy and out.jsonl (any suffix of out is dropped); the same for any number of jobs."""
    stem = os.path.splitext(out)[0]
    np.lib.format.open_memmap(stem + ".npy", "w+", np.uint8, (count, SIZE, SIZE, 3)).flush()
    with open(stem + ".jsonl", "w", encoding="utf-8") as lines:
        for index in range(count):
            lines.write(json.dumps(numbered_scene(seed, index, held_out).as_dict(), separators=(",", ":")) + "\n")
    step = 256
    work = [(stem + ".npy", seed, held_out, start, min(count, start + step)) for start in range(0, count, step)]
    if jobs == 1:
        for part in work:
            _render_range(*part)
        return
    with multiprocessing.Pool(jobs) as pool:
        pool.starmap(_render_range, work, chunksize=1)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", help="path of OUT.npy; OUT.jsonl lies beside it")
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--held-out", action="store_true", help="only scenes that training never sees")
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args()
    write_dataset(options.out, options.count, options.seed, options.held_out, options.jobs)


if __name__ == "__main__":
    main()
