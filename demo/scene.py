"""What a demo picture can show: the vocabulary, random scenes and the rule that puts some of them aside.

A scene is one or two coloured shapes on a background, or a small landscape. Scenes are frozen dataclasses that as_dict
and from_dict take through JSON and back. Randomness comes only from the random.Random passed in.
"""

import zlib
from dataclasses import asdict, dataclass

COLOURS = {
    "red": (216, 38, 44),
    "orange": (245, 135, 31),
    "yellow": (250, 216, 60),
    "green": (52, 158, 78),
    "blue": (40, 96, 212),
    "purple": (126, 58, 172),
    "pink": (246, 142, 188),
    "brown": (124, 78, 46),
    "black": (28, 28, 34),
    "white": (250, 249, 245),
}
SHAPES = ("circle", "square", "triangle", "star", "heart", "cross")
SIZES = {"small": 13.0, "medium": 20.0, "large": 29.0}  # radius in pixels of 128
PLACES = ("middle", "left", "right", "top", "bottom")
RELATIONS = ("left of", "right of", "above", "below")
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
BACKGROUNDS = ("plain", "gradient", "stripes", "checkerboard", "dots")
STYLES = ("flat", "outline", "watercolor")
TIMES = ("day", "sunset", "night")
SKY_OBJECTS = ("sun", "moon")
GROUNDS = ("hills", "sea")
THINGS = {"hills": ("house", "tree"), "sea": ("boat",)}

_STYLE_WEIGHTS = (60, 20, 20)
_BACKGROUND_WEIGHTS = (55, 11.25, 11.25, 11.25, 11.25)
_KIND_WEIGHTS = {"two": 45, "one": 35, "landscape": 20}
_WHITE_WEIGHT = 2.5  # white backgrounds are what people ask for most
_MIN_CONTRAST = 58.0  # RGB distance of an object's colour from every tint of its background
_CHARCOAL = (60, 60, 68)
_SALT = b"scene-1"


@dataclass(frozen=True)
class Thing:
    """One shape: its form, colour and size."""

    shape: str
    colour: str
    size: str = "medium"


@dataclass(frozen=True)
class Scene:
    """Everything a caption may name. Fields of the other kind are empty.

    objects: one or two; with two, objects[0] stands `relation` objects[1]; with one, it stands at `place`.
    things: what stands on the ground of a landscape, sorted.
    """

    kind: str
    style: str
    objects: tuple = ()
    place: str = ""
    relation: str = ""
    background: str = ""
    pattern: str = ""
    time: str = ""
    sky: str = ""
    ground: str = ""
    things: tuple = ()

    def as_dict(self):
        """A dict that JSON can hold."""
        return asdict(self)

    @staticmethod
    def from_dict(fields):
        """The scene of as_dict's dict, also after a trip through JSON."""
        fields = dict(fields)
        fields["objects"] = tuple(Thing(**thing) for thing in fields["objects"])
        fields["things"] = tuple(fields["things"])
        return Scene(**fields)


def tint(rgb, amount):
    """rgb mixed with white by amount (0 to 1)."""
    return tuple(channel + (255 - channel) * amount for channel in rgb)


def fill_rgb(colour, style):
    """The RGB that a named colour is painted with; black is charcoal where dark outlines must show on it."""
    return _CHARCOAL if (colour, style) == ("black", "outline") else COLOURS[colour]


def background_tints(colour, pattern, style="flat"):
    """The two RGB colours between which every pixel of a background lies; equal for a plain one."""
    rgb = fill_rgb(colour, style)
    if pattern == "plain":
        return rgb, rgb
    if colour == "white":
        return rgb, (224.0, 227.0, 232.0)
    lighter = tint(rgb, 0.2 if colour == "black" else 0.34)
    if pattern == "gradient":
        return tuple(channel * 0.88 for channel in rgb), lighter
    return rgb, lighter


def _distance_to_segment(point, start, end):
    """Euclidean distance of an RGB point to the segment from start to end."""
    along = [e - s for s, e in zip(start, end)]
    length = sum(a * a for a in along)
    t = 0.0
    if length > 0:
        t = sum((p - s) * a for p, s, a in zip(point, start, along)) / length
        t = min(1.0, max(0.0, t))
    return sum((p - s - t * a) ** 2 for p, s, a in zip(point, start, along)) ** 0.5


def visible(colour, background, pattern):
    """Whether an object of that colour stands out from that background."""
    start, end = background_tints(background, pattern)
    return colour != background and _distance_to_segment(COLOURS[colour], start, end) >= _MIN_CONTRAST


def _aside(*fields):
    """Whether a stable hash puts these fields into the tenth that is held out."""
    return zlib.crc32(_SALT + "|".join(fields).encode()) % 10 == 0


def is_held_out(scene):
    """Whether the scene shows a combination that training never sees.

    Held out are a tenth of all triples (shape, colour, background colour) and a tenth of all unordered pairs of
    (shape, colour). A red circle on blue, the example of the tests and the documentation, counts as seen.
    """
    if scene.kind != "objects":
        return False
    if any(_aside("triple", t.shape, t.colour, scene.background) for t in scene.objects):
        return True
    if len(scene.objects) < 2:
        return False
    return _aside("pair", *sorted(f"{t.colour} {t.shape}" for t in scene.objects))


def _random_background(rng):
    """A background's colour and pattern."""
    weights = [_WHITE_WEIGHT if name == "white" else 1.0 for name in COLOURS]
    colour = rng.choices(list(COLOURS), weights)[0]
    return colour, rng.choices(BACKGROUNDS, _BACKGROUND_WEIGHTS)[0]


def _random_thing(rng, background, pattern, sizes):
    """A shape that can be seen on the background."""
    colours = [name for name in COLOURS if visible(name, background, pattern)]
    return Thing(rng.choice(SHAPES), rng.choice(colours), rng.choice(sizes))


def _random_one(rng, style):
    background, pattern = _random_background(rng)
    thing = _random_thing(rng, background, pattern, tuple(SIZES))
    place = rng.choices(PLACES, (44, 14, 14, 14, 14))[0]
    return Scene("objects", style, (thing,), place=place, background=background, pattern=pattern)


def _random_two(rng, style):
    background, pattern = _random_background(rng)
    sizes = ("small", "medium", "medium")
    first = _random_thing(rng, background, pattern, sizes)
    second = _random_thing(rng, background, pattern, sizes)
    while (second.shape, second.colour) == (first.shape, first.colour):
        second = _random_thing(rng, background, pattern, sizes)
    relation = rng.choice(RELATIONS)
    return Scene("objects", style, (first, second), relation=relation, background=background, pattern=pattern)


def _random_landscape(rng, style):
    time = rng.choice(TIMES)
    sky = ("moon" if time == "night" else "sun") if rng.random() < 0.75 else ""
    ground = rng.choice(GROUNDS)
    sets = [(), ("boat",), ("boat",), ("boat",), ("boat",)]
    if ground == "hills":
        sets = [(), ("house",), ("tree",), ("house", "tree"), ("house", "tree")]
    return Scene("landscape", style, time=time, sky=sky, ground=ground, things=rng.choice(sets))


def random_scene(rng, held_out=False):
    """A random scene from outside the held-out set, or from inside it (always objects then)."""
    kinds = [kind for kind in _KIND_WEIGHTS if kind != "landscape" or not held_out]
    kind = rng.choices(kinds, [_KIND_WEIGHTS[name] for name in kinds])[0]
    draw = {"one": _random_one, "two": _random_two, "landscape": _random_landscape}[kind]
    while True:
        scene = draw(rng, rng.choices(STYLES, _STYLE_WEIGHTS)[0])
        if is_held_out(scene) == held_out:
            return scene
