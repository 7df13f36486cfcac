"""Looks at a picture, by its pixels alone, and says what is on it and whether that is what was named.

see() finds the coloured shapes and the background of a picture, see_landscape() the time of day, the sun or moon and
the ground of a landscape. judge() holds what they find against a caption.Named.

    python3 demo/judge.py --count 2000

judges rendered pictures, sharp and softened, and prints how often each verdict is right.
"""

import argparse
import collections
import itertools
import math
from dataclasses import dataclass, replace

import numpy as np

import caption
import render
import scene as scenes

RING = 4  # pixels at the picture's edge that show background only
GRID = 32  # side of the grid on which shapes are compared
MIN_AREA = 110  # pixels of the smallest thing worth a name
MIN_SPOT = 24  # pixels of the smallest sun or moon
SIZE_LIMITS = (16.4, 24.2)  # radius in pixels between small, medium and large
_SEED_CONTRAST = 30.0  # RGB distance from the background at which a thing begins to be looked for
_SURE_CONTRAST = 42.0  # and that some of it must reach
_PATTERN_DEPTH = 8.0  # RGB levels by which a pattern's tints differ from their surroundings, at least
_GRADIENT_RISE = 26.0  # RGB levels from one side to the other that make a gradient
_WAYS = ((1, 0), (0, 1), (1, 1), (-1, 1))  # directions (x, y) in which stripes can run
_LIGHTNESS = np.array((0.30, 0.59, 0.11), np.float32)
_INKED = 0.6  # lightness of an outline, as a share of what it runs along, at most
_SAMPLE = 29  # every so many background pixels are enough to name its colour
_CENTRAL = 12.0  # pixels from the picture's centre that still count as its middle


@dataclass(frozen=True)
class Seen:
    """One thing on a picture: its names, the centre of its bounding box and its radius in pixels of 128."""

    shape: str
    colour: str
    size: str
    x: float
    y: float
    radius: float


@dataclass(frozen=True)
class Sight:
    """What is on a picture of objects: the things, largest first, what is behind them, whether they are outlined."""

    things: tuple
    background: str
    pattern: str
    outlined: bool


def _blurred(pixels, reach=1):
    """Mean over (2 reach + 1) squared pixels of [rows, columns, ...]."""
    side = 2 * reach + 1
    padded = np.pad(pixels, ((reach, reach), (reach, reach)) + ((0, 0),) * (pixels.ndim - 2), "edge")
    rows = sum(padded[k:k + len(pixels)] for k in range(side))
    return sum(rows[:, k:k + pixels.shape[1]] for k in range(side)) / side ** 2


def labelled(mask):
    """Numbers the 4-connected regions of a mask: labels int [rows, columns] from 1, 0 outside, and their count."""
    labels = np.zeros(mask.shape, int)
    parent = [0]

    def root(k):
        while parent[k] != k:
            parent[k] = parent[parent[k]]
            k = parent[k]
        return k

    rows, edges = np.nonzero(np.diff(mask.astype(np.int8), axis=1, prepend=0, append=0))
    runs = []
    by_row = {}
    for y, start, end in zip(rows[::2].tolist(), edges[::2].tolist(), edges[1::2].tolist()):
        touching = [label for first, last, label in by_row.get(y - 1, ()) if first < end and start < last]
        if touching:
            label = root(touching[0])
            for other in touching[1:]:
                parent[root(other)] = label
        else:
            label = len(parent)
            parent.append(label)
        by_row.setdefault(y, []).append((start, end, label))
        runs.append((y, start, end, label))
    numbers = {}
    for y, start, end, label in runs:
        labels[y, start:end] = numbers.setdefault(root(label), len(numbers) + 1)
    return labels, len(numbers)


def _filled(mask):
    """The mask with its holes closed."""
    labels, _ = labelled(~np.pad(mask, 1))
    return (labels != labels[0, 0])[1:-1, 1:-1]


def _eroded(mask):
    """The mask less the pixels at its edge."""
    inner = np.pad(mask, 1)
    return mask & inner[:-2, 1:-1] & inner[2:, 1:-1] & inner[1:-1, :-2] & inner[1:-1, 2:]


def _border(pixels):
    """The pixels [count, 3] of the ring at the picture's edge."""
    sides = pixels[:RING], pixels[-RING:], pixels[RING:-RING, :RING], pixels[RING:-RING, -RING:]
    return np.concatenate([side.reshape(-1, 3) for side in sides])


def _common_colours(pixels, cell=14.0, share=0.012):
    """Representative colours [count, 3] of pixels [n, 3] and what lies between each two of them."""
    cells = np.floor(pixels / cell).astype(int)
    keys, which, counts = np.unique(cells @ (1, 64, 4096), return_inverse=True, return_counts=True)
    sums = np.stack([np.bincount(which, pixels[:, k], len(keys)) for k in range(3)], 1)
    common = (sums / counts[:, None])[counts >= min(share * len(pixels), counts.max())]
    between = [common]
    for t in (0.25, 0.5, 0.75):
        between.append((common[:, None] * (1 - t) + common[None] * t).reshape(-1, 3))
    between = np.concatenate(between)
    _, first = np.unique(np.round(between / 8).astype(int) @ (1, 64, 4096), return_index=True)
    return between[first]


def _contrast(pixels, colours):
    """RGB distance [rows, columns] of every pixel to the nearest of the colours."""
    flat = pixels.reshape(-1, 3)
    squares = (flat ** 2).sum(1)[:, None] + (colours ** 2).sum(1) - 2 * flat @ colours.T
    return np.sqrt(np.maximum(squares.min(1), 0)).reshape(pixels.shape[:2])


def _normalised(weight):
    """A shape [rows, columns] of 0 to 1 moved to its centroid and scaled to unit area on the grid [GRID * GRID]."""
    total = weight.sum()
    y, x = (np.arange(n) + 0.5 for n in weight.shape)
    cx, cy = weight.sum(0) @ x / total, weight.sum(1) @ y / total
    reach = np.linspace(-0.95, 0.95, GRID) * math.sqrt(total)
    columns, rows = cx + reach - 0.5, cy + reach - 0.5
    return (_taps(rows, weight.shape[0]) @ weight @ _taps(columns, weight.shape[1]).T).ravel()


def _taps(positions, count):
    """Linear interpolation [len(positions), count] at fractional indices; nothing beyond the ends."""
    return np.maximum(0, 1 - np.abs(positions[:, None] - np.arange(count)))


def _templates():
    """Names of the template shapes, their pictures [count, GRID * GRID] and the (area, perimeter) at radius 1 by
    name."""
    axis = (np.arange(120, dtype=np.float32) - 59.5) / 40
    names, pictures, extents = [], [], {}
    for name, distance in render.SHAPE_DISTANCES.items():
        for turn in (0.0,) if name == "circle" else np.radians((-10, -5, 0, 5, 10)):
            x = axis[None] * math.cos(turn) + axis[:, None] * math.sin(turn)
            y = axis[:, None] * math.cos(turn) - axis[None] * math.sin(turn)
            d = distance(x, y)
            area = (d < 0).sum() / 1600
            extents[name] = area, ((d < 0.1).sum() / 1600 - area) / 0.1
            for growth in (0.0, 0.06, 0.12):
                names.append(name)
                pictures.append(_normalised(np.clip(0.5 - (d - growth) / 0.08, 0, 1)))
    return names, np.array(pictures), extents


_TEMPLATES = _templates()


def _shape_of(weight):
    """The name of the shape that matches a weight map best."""
    names, pictures, _ = _TEMPLATES
    seen = _normalised(weight)
    match = np.minimum(pictures, seen).sum(1) / np.maximum(pictures, seen).sum(1)
    return names[int(match.argmax())]


def _radius_of(shape, area):
    """The radius in pixels of a shape that covers area pixels, half of a possible outline included."""
    unit_area, unit_perimeter = _TEMPLATES[2][shape]
    edge = unit_perimeter * render.STROKE / 2
    return (math.sqrt(edge ** 2 + 4 * unit_area * area) - edge) / (2 * unit_area)


def _core(mask):
    """The innermost pixels of a mask: as deep as still leaves a tenth of it."""
    enough = max(10, 0.08 * mask.sum())
    for _ in range(6):
        inner = _eroded(mask)
        if inner.sum() < enough:
            break
        mask = inner
    return mask


_COLOUR_NAMES = list(scenes.COLOURS) + ["black"]
_COLOUR_VALUES = np.array(list(scenes.COLOURS.values()) + [scenes.fill_rgb("black", "outline")], float)


def _colour_name(rgb):
    """The named colour nearest to an RGB value."""
    return _COLOUR_NAMES[int(((_COLOUR_VALUES - rgb) ** 2).sum(1).argmin())]


def _background_colour(pixels):
    """The named colour whose range of tints lies nearest to background pixels [count, 3]."""
    best = {}
    for name, style, pattern in itertools.product(scenes.COLOURS, ("flat", "outline"), ("gradient", "stripes")):
        start, end = (np.array(tint) for tint in scenes.background_tints(name, pattern, style))
        along = end - start
        t = np.clip((pixels - start) @ along / (along @ along), 0, 1)
        distance = np.sqrt(((pixels - start - t[:, None] * along) ** 2).sum(1))
        best[name] = min(best.get(name, np.inf), float(np.minimum(distance, 90).mean()))
    return min(best, key=best.get)


def _seen_thing(pixels, contrast, region):
    """Names the thing whose region (mask [rows, columns]) stands out by contrast; None if it is no thing."""
    strength = float(np.percentile(contrast[region], 75))
    weight = np.clip(contrast / strength * 2 - 0.5, 0, 1) * region
    mask = _filled((weight > 0.5) & region)
    area = float(np.maximum(weight, mask).sum())
    if strength < _SURE_CONTRAST or area < MIN_AREA:
        return None
    shape = _shape_of(np.maximum(weight, mask))
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    radius = _radius_of(shape, area)
    size = "small" if radius < SIZE_LIMITS[0] else "medium" if radius < SIZE_LIMITS[1] else "large"
    colour = _colour_name(np.median(pixels[_core(mask)], 0))
    return Seen(shape, colour, size, (columns[0] + columns[-1] + 1) / 2, (rows[0] + rows[-1] + 1) / 2, radius)


def _outer_regions(mask):
    """The large regions of a mask with their holes closed, less those that lie in a hole of another."""
    labels, count = labelled(mask)
    areas = np.bincount(labels.ravel(), minlength=count + 1)
    regions = sorted((_filled(labels == k) for k in range(1, count + 1) if areas[k] >= MIN_AREA),
                     key=lambda region: -region.sum())
    outer = []
    for region in regions:
        if not any((region & other).any() for other in outer):
            outer.append(region)
    return outer


def _leaning(values, where):
    """Values [rows, columns] less the plane that fits them best at the pixels `where`, and the plane's full rise."""
    y, x = (np.arange(n) / n - 0.5 for n in values.shape)
    plane = np.stack(np.broadcast_arrays(1.0, x[None], y[:, None]), 2)
    slope = np.linalg.lstsq(plane[where], values[where], rcond=None)[0]
    return values - plane @ slope, float(np.hypot(slope[1], slope[2]))


def _tones(pixels, behind):
    """Position of every pixel [rows, columns] along the colours' widest spread in the background, in RGB levels."""
    sample = pixels[behind]
    middle = sample.mean(0)
    axis = np.linalg.svd(np.cov((sample - middle).T))[0][:, 0]
    return (pixels - middle) @ axis


def _pattern(pixels, behind):
    """The pattern of the background, which shows at the pixels `behind` of the mask."""
    tones = _tones(pixels, behind)
    level, rise = _leaning(tones, behind)
    light = level > (np.percentile(level[behind], 4) + np.percentile(level[behind], 96)) / 2
    local = level - _blurred(level * behind, 15) / np.maximum(_blurred(behind * 1.0, 15), 1e-3)
    if np.abs(local[behind]).mean() < _PATTERN_DEPTH:
        return "gradient" if rise > _GRADIENT_RISE else "plain"
    share = light[behind].mean()
    if min(share, 1 - share) < 0.37:
        return "dots"
    return "stripes" if min(_disagreement(light, behind, *way) for way in _WAYS) < 0.25 else "checkerboard"


def _disagreement(light, behind, dx, dy):
    """Share of pixels whose tint differs from the tints some steps away in one direction."""
    different = total = 0
    for steps in (4, 8, 12, 16):
        x, y = dx * steps, dy * steps
        rows, columns = light.shape
        here = (slice(0, rows - y), slice(max(0, -x), columns - max(0, x)))
        there = (slice(y, rows), slice(max(0, x), columns + min(0, x)))
        both = behind[here] & behind[there]
        different += ((light[here] != light[there]) & both).sum()
        total += both.sum()
    return different / max(1, total)


def _is_outlined(light, region, behind):
    """Whether a line much darker than the region's core and than `behind` runs along its edge; lightness throughout."""
    ring = _blurred(region * 1.0, 2) > 0.1
    core = float(np.median(light[_core(region)]))
    darkest = np.inf
    for _ in range(7):
        inner = _eroded(ring)
        shell = ring & ~inner
        if shell.sum() < 20:
            break
        darkest = min(darkest, float(np.median(light[shell])))
        ring = inner
    return darkest < _INKED * min(core, behind)


def see(picture):
    """The Sight of a picture uint8 [128, 128, 3]."""
    sharp = np.asarray(picture, np.float32)
    pixels = _blurred(sharp)
    contrast = _contrast(pixels, _common_colours(_border(pixels)))
    regions = _outer_regions(contrast > _SEED_CONTRAST)
    things = [thing for thing in (_seen_thing(pixels, contrast, region) for region in regions) if thing]
    behind = contrast <= max(_SEED_CONTRAST, np.percentile(contrast, 5))
    background = _background_colour(pixels[behind][::_SAMPLE])
    clear = _blurred(~behind * 1.0, 3) < 0.02
    pattern = _pattern(pixels, clear if clear.any() else behind)
    light = sharp @ _LIGHTNESS
    darkest = float(np.percentile(light[behind], 10))
    outlined = any(_is_outlined(light, region, darkest) for region in regions)
    return Sight(tuple(sorted(things, key=lambda thing: -thing.radius)), background, pattern, outlined)


def stands(relation, first, second):
    """Whether two seen things stand so: clearly apart in that direction, more than across it."""
    dx, dy = second.x - first.x, second.y - first.y
    if relation in ("right of", "below"):
        dx, dy = -dx, -dy
    if relation in ("above", "below"):
        dx, dy = dy, dx
    return dx > _CENTRAL and dx > abs(dy)


def place_of(thing):
    """Where on the picture a thing stands, one of scene.PLACES."""
    dx, dy = thing.x - render.SIZE / 2, thing.y - render.SIZE / 2
    if max(abs(dx), abs(dy)) < _CENTRAL:
        return "middle"
    if abs(dx) > abs(dy):
        return "left" if dx < 0 else "right"
    return "top" if dy < 0 else "bottom"


def see_landscape(picture):
    """What a landscape shows: dict of time, sky ('' where neither sun nor moon is seen) and ground."""
    sharp = np.asarray(picture, np.float32)
    pixels = _blurred(sharp)
    time = _time_of_day(pixels)
    near = np.median(pixels[104:].reshape(-1, 3), 0)
    sky = _sky_object(sharp if time == "night" else pixels, time)  # blur would drown a thin moon between outlines
    return {"time": time, "sky": sky, "ground": "sea" if near[2] - near[1] > 10 else "hills"}


def _time_of_day(pixels):
    """The time whose sky is nearest to the colours of the picture's upper rows."""
    rows = 56
    sky = np.median(pixels[:rows], 1)
    errors = {}
    for time, stops in render.SKIES.items():
        expected = render.column(stops, 72)[:rows]
        errors[time] = float(np.abs(sky - expected).mean())
    return min(errors, key=errors.get)


def _sky_object(pixels, time):
    """'sun' or 'moon' where a bright spot of its colour and extent is in the sky, else ''."""
    sky = pixels[:64]
    red, green, blue = np.moveaxis(sky, 2, 0)
    if time == "night":
        spot, name = (np.minimum(red, green) > 195) & (red + 4 > blue), "moon"
    else:
        usual = np.median(sky, 1)[:, None]
        spot, name = (red > 215) & (green > 185) & (red - blue > 68), "sun"
        if time == "sunset":
            spot &= green - usual[..., 1] > 22
    labels, count = labelled(spot)
    areas = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    return name if areas.size and areas.max() >= MIN_SPOT else ""


@dataclass(frozen=True)
class Verdict:
    """What a picture got right of what was named; None where nothing was named.

    colour, shape, size: one answer for every named shape, in their order. count: as many things as were named.
    style: of objects only, and only whether they are outlined; flat and watercolor are not told apart.
    """

    colour: tuple = ()
    shape: tuple = ()
    size: tuple = ()
    count: bool = None
    place: bool = None
    relation: bool = None
    background: bool = None
    pattern: bool = None
    style: bool = None
    time: bool = None
    sky: bool = None
    ground: bool = None

    def right(self):
        """Whether everything that was named and can be judged is on the picture."""
        single = (self.count, self.place, self.relation, self.background, self.pattern, self.style, self.time,
                  self.sky, self.ground)
        return False not in self.colour + self.shape + self.size + single


def _agrees(named, seen):
    """None where nothing was named, else whether it is what is seen."""
    return None if named is None else named == seen


def _judge_landscape(picture, named):
    seen = see_landscape(picture)
    return Verdict(**{part: _agrees(getattr(named, part), seen[part]) for part in ("time", "sky", "ground")})


def _judge_arrangement(named, things, sight):
    """The verdict on a Sight where things[i], None for a missing one, is taken for named.objects[i]."""
    def answers(part):
        return tuple(_agrees(getattr(want, part), getattr(got, part, "")) for want, got in zip(named.objects, things))

    place = relation = None
    if named.place:
        place = things[0] is not None and place_of(things[0]) == named.place
    if named.relation:
        relation = None not in things and stands(named.relation, *things)
    style = None if named.style is None else sight.outlined == (named.style == "outline")
    return Verdict(answers("colour"), answers("shape"), answers("size"), place=place, relation=relation, style=style,
                   background=_agrees(named.background, sight.background),
                   pattern=_agrees(named.pattern, sight.pattern))


def judge(picture, named):
    """The Verdict on a picture uint8 [128, 128, 3] by a caption.Named.

    The things on the picture are taken for the named ones in the way that agrees best in colour and shape.
    """
    if named.kind == "landscape":
        return _judge_landscape(picture, named)
    sight = see(picture)
    wanted = len(named.objects)
    candidates = sight.things[:4] + (None,) * max(0, wanted - len(sight.things))
    verdicts = [_judge_arrangement(named, order, sight) for order in itertools.permutations(candidates, wanted)]
    best = max(verdicts, key=lambda v: (sum(v.colour) + sum(v.shape), v.relation is not False, v.place is not False))
    return replace(best, count=len(sight.things) == wanted)


def all_of(scene):
    """The caption.Named that names everything about a scene."""
    objects = tuple(caption.NamedThing(thing.shape, thing.colour, thing.size) for thing in scene.objects)
    parts = ("place", "relation", "background", "pattern", "time", "ground")
    said = {part: getattr(scene, part) or None for part in parts}
    return caption.Named(scene.kind, objects, style=scene.style, sky=scene.sky, things=scene.things, **said)


def softened(picture, rng):
    """The picture as a model might have painted it: blurred (sigma 0.8), shifted in colour (12) and noisy (sigma 6)."""
    taps = np.exp(-np.arange(-3, 4) ** 2 / (2 * 0.8 ** 2))
    taps /= taps.sum()
    soft = np.pad(picture.astype(np.float32), ((3, 3), (3, 3), (0, 0)), "edge")
    soft = sum(tap * soft[k:k + render.SIZE] for k, tap in enumerate(taps))
    soft = sum(tap * soft[:, k:k + render.SIZE] for k, tap in enumerate(taps))
    soft = soft + rng.uniform(-12, 12, 3) + rng.normal(0, 6, soft.shape)
    return np.clip(soft + 0.5, 0, 255).astype(np.uint8)


def errors(count, seed, soften):
    """How often each verdict is wrong on count rendered scenes of either kind: ({part: wrong}, {part: judged})."""
    rng = np.random.default_rng(seed)
    wrong, judged = collections.Counter(), collections.Counter()
    for index in range(count):
        scene = render.numbered_scene(f"judge {seed}", index)
        picture = render.render(scene, (seed, index))
        verdict = judge(softened(picture, rng) if soften else picture, all_of(scene))
        for part, answer in vars(verdict).items():
            answers = [a for a in (answer if isinstance(answer, tuple) else (answer,)) if a is not None]
            judged[part] += bool(answers)
            wrong[part] += False in answers
    return wrong, judged


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    for soften in (False, True):
        wrong, judged = errors(options.count, options.seed, soften)
        print("softened" if soften else "as rendered")
        for part in judged:
            print(f"  {part:10} {100 - 100 * wrong[part] / max(1, judged[part]):6.2f} % of {judged[part]}")


if __name__ == "__main__":
    main()
