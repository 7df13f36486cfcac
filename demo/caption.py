"""Captions of scenes in varied wording, and the parser of the very same wording.

plan() decides what a caption names (a Named), word() puts that into words, write() does both.
"""

from dataclasses import dataclass, replace

try:
    from demo import scene as scenes
except ImportError:
    import scene as scenes

MAX_WORDS = 60


@dataclass(frozen=True)
class NamedThing:
    """A shape as a caption names it; size is None where it is not said."""

    shape: str
    colour: str
    size: str = None


@dataclass(frozen=True)
class Named:
    """What a caption names; None where it says nothing. things is sorted."""

    kind: str
    objects: tuple = ()
    place: str = None
    relation: str = None
    background: str = None
    pattern: str = None
    style: str = None
    time: str = None
    sky: str = None
    ground: str = None
    things: tuple = ()

    def canonical(self):
        """The same content with two objects in one fixed order."""
        if len(self.objects) < 2:
            return self
        if self.relation in ("right of", "below"):
            return self.swapped()
        if self.relation is None and repr(self.objects[0]) > repr(self.objects[1]):
            return self.swapped()
        return self

    def swapped(self):
        """The same content with the two objects named in the other order."""
        relation = scenes.OPPOSITE[self.relation] if self.relation else None
        return replace(self, objects=self.objects[::-1], relation=relation)


# The wording. Every phrase of the grammar stands in one of these tables; the parser reads them too.
SIZE_WORDS = {"small": ("small", "small", "little", "tiny"), "large": ("large", "big", "big", "huge"),
              "medium": ("medium", "medium-sized")}
PLACE_WORDS = {
    "middle": ("in the middle", "in the center", "in the centre", "at the center"),
    "left": ("on the left", "on the left side", "at the left", "to the left", "on the left side of the picture"),
    "right": ("on the right", "on the right side", "at the right", "to the right", "on the right side of the picture"),
    "top": ("at the top", "near the top", "on the top", "at the top of the picture", "in the upper part"),
    "bottom": ("at the bottom", "near the bottom", "on the bottom", "at the bottom of the picture",
               "in the lower part"),
}
RELATION_WORDS = {
    "left of": ("to the left of", "left of", "on the left of"),
    "right of": ("to the right of", "right of", "on the right of"),
    "above": ("above", "above", "over", "on top of"),
    "below": ("below", "below", "under", "beneath", "underneath"),
}
ITS_WORDS = {
    "left of": ("to its left", "on its left", "to the left of it"),
    "right of": ("to its right", "on its right", "to the right of it"),
    "above": ("above it", "over it"),
    "below": ("below it", "under it", "beneath it"),
}
RELATION_PLACES = {"left of": ("left", "right"), "right of": ("right", "left"),
                   "above": ("top", "bottom"), "below": ("bottom", "top")}
PATTERN_NOUNS = {"gradient": ("gradient",), "stripes": ("stripes",), "checkerboard": ("checkerboard", "checkers"),
                 "dots": ("dots", "polka dots")}
PATTERN_ADJECTIVES = {"plain": ("plain", "solid", "plain"), "gradient": ("gradient",), "stripes": ("striped",),
                      "checkerboard": ("checkerboard", "checkered"), "dots": ("dotted", "polka dot")}
STYLE_OPENINGS = {
    "flat": ("a flat illustration of", "flat illustration of", "a simple flat drawing of"),
    "outline": ("an outlined drawing of", "a line drawing of", "an outline drawing of", "outlined drawing of"),
    "watercolor": ("a watercolor painting of", "a watercolor of", "watercolor painting of",
                   "a watercolour painting of"),
}
STYLE_WORDS = {
    "flat": ("flat illustration", "flat design", "flat style", "in a flat style", "flat colors"),
    "outline": ("line drawing with thick outlines", "outlined drawing", "with thick outlines", "thick outlines",
                "in outline style", "outline style", "bold dark outlines", "drawn with thick outlines"),
    "watercolor": ("watercolor painting", "watercolor", "in watercolor", "painted in watercolor", "watercolor style",
                   "watercolour painting", "as a watercolor painting", "in watercolor style"),
}
OPENINGS = ("a picture of", "an image of", "picture of", "a drawing of", "an illustration of", "a simple picture of",
            "image of", "a picture with", "there is")
LANDSCAPE_OPENINGS = ("a landscape with", "a landscape of", "a picture of", "landscape with", "an image of",
                      "a scene with")
TIME_WORDS = {
    "day": ("by day", "during the day", "at daytime", "in daylight"),
    "sunset": ("at sunset", "at sunset", "during sunset", "in the evening"),
    "night": ("at night", "at night", "by night", "during the night"),
}
TIME_PARTS = {"day": ("daytime", "day", "day sky"), "sunset": ("sunset", "sunset sky", "evening"),
              "night": ("night", "night sky", "night scene")}
SKY_PARTS = {"sun": ("the sun in the sky", "with the sun in the sky", "under the sun", "the sun is in the sky"),
             "moon": ("the moon in the sky", "with the moon in the sky", "under the moon", "the moon is in the sky")}
GROUND_WORDS = {"hills": ("green hills", "hills", "the hills", "the green hills", "rolling hills"),
                "sea": ("the sea", "the sea", "the blue sea", "the ocean")}
FILLERS = (
    "highly detailed", "soft light", "bold simple shapes", "minimalist", "vivid colors", "bright colors",
    "calm mood",
    "balanced composition", "high quality", "simple and clean", "playful mood", "harmonious colors", "beautiful",
    "modern design", "clear shapes", "lots of empty space", "children's book illustration", "cheerful mood",
    "the colors are bright and clear", "the whole picture feels calm and balanced", "everything is easy to recognize",
    "the composition is simple and pleasing", "warm atmosphere", "carefully composed", "strong contrast",
)
OBJECT_FILLERS = ("every shape stands out clearly from the background", "geometric design", "neat geometric shapes",
                  "the edges are smooth and precise")
LANDSCAPE_FILLERS = ("peaceful scene", "wide view", "dreamy mood", "quiet countryside mood", "serene atmosphere")
CENTRED_FILLERS = ("centered composition", "centred composition")


def _named_size(size, rng, chance):
    """The size if it is to be said."""
    return size if rng.random() < (0.06 if size == "medium" else chance) else None


def plan(scene, rng):
    """What a caption of the scene is to name."""
    said_style = scene.style if rng.random() < (0.12 if scene.style == "flat" else 0.95) else None
    if scene.kind == "landscape":
        return Named("landscape", style=said_style, ground=scene.ground, things=scene.things,
                     time=scene.time if scene.time != "day" or rng.random() < 0.6 else None,
                     sky=scene.sky if scene.sky and rng.random() < 0.9 else None)
    objects = tuple(NamedThing(t.shape, t.colour, _named_size(t.size, rng, 0.85)) for t in scene.objects)
    background = scene.background if rng.random() < 0.9 else None
    pattern = scene.pattern if rng.random() < (0.1 if scene.pattern == "plain" else 0.9) else None
    if background is None and (pattern == "plain" or rng.random() < 0.5):
        pattern = None
    place = relation = None
    if len(objects) == 1 and rng.random() < (0.25 if scene.place == "middle" else 0.93):
        place = scene.place
    if len(objects) == 2 and rng.random() < 0.9:
        relation = scene.relation
    named = Named("objects", objects, place, relation, background, pattern, said_style)
    return named.swapped() if len(objects) == 2 and rng.random() < 0.5 else named


def _article(phrase):
    """The indefinite article before the phrase."""
    return ("an " if phrase[0] in "aeiou" else "a ") + phrase


def _object(thing, rng, bare):
    """A noun phrase: 'a big red circle', without the article where bare."""
    size = rng.choice(SIZE_WORDS[thing.size]) + " " if thing.size else ""
    how = rng.random()
    if how < 0.90:
        phrase = f"{size}{thing.colour} {thing.shape}"
    elif how < 0.96:
        phrase = f"{size}{thing.colour} {rng.choice(('colored', 'coloured'))} {thing.shape}"
    else:
        phrase = f"{size}{thing.shape} in {thing.colour}"
    if bare:
        return phrase
    return "one " + phrase if rng.random() < 0.03 else _article(phrase)


def _two_objects(named, rng, bare):
    """Both objects and, where named, how they stand."""
    first, second = (_object(thing, rng, bare) for thing in named.objects)
    if named.relation is None:
        return f"{first}{rng.choice((' and ', ' and ', ', ', ' with ', ' plus '))}{second}"
    how = rng.random()
    if how < 0.62:
        return f"{first} {rng.choice(RELATION_WORDS[named.relation])} {second}"
    if how < 0.80:
        here, there = RELATION_PLACES[named.relation]
        if bare and rng.random() < 0.5:
            return f"{first} {here}, {second} {there}"
        word_here, word_there = rng.choice(PLACE_WORDS[here][:3]), rng.choice(PLACE_WORDS[there][:3])
        return f"{first} {word_here}{rng.choice((' and ', ', '))}{second} {word_there}"
    its = rng.choice(ITS_WORDS[scenes.OPPOSITE[named.relation]])
    return f"{first} with {second} {its}"


def _background(named, rng, bare):
    """The phrase for the background and whether it must follow a comma; None where nothing is named."""
    colour, pattern = named.background, named.pattern
    if colour is None and pattern is None:
        return None
    colour = colour + " " if colour else ""
    forms = []
    if pattern is None:
        forms += [f"{colour}background"] * 4
        if rng.random() < 0.2:
            return ("on " + colour.strip(), False)
        if rng.random() < 0.06:
            return ("the background is " + colour.strip(), True)
    else:
        adjective = rng.choice(PATTERN_ADJECTIVES[pattern])
        forms += [f"{adjective} {colour}background", f"{colour}{adjective} background"]
        if pattern != "plain":
            noun = rng.choice(PATTERN_NOUNS[pattern])
            if colour:
                article = _article if noun in ("gradient", "checkerboard") and not bare else str
                if rng.random() < 0.35:
                    return ("on " + article(f"{colour}{noun}"), False)
            if noun != "gradient":
                forms.append(f"{colour}background with {noun}")
    form = rng.choice(forms)
    if bare or rng.random() < 0.25:
        return (rng.choice(("", "", "with " + ("" if bare else "a "))) + form, True) if rng.random() < 0.8 else \
            ("on " + form, False)
    lead = rng.choice(("on", "on", "on", "on", "against", "in front of", "with"))
    return (f"{lead} {_article(form)}", False)


def _word_objects(named, rng, bare):
    """The main clause of an object caption, without style and filler."""
    if len(named.objects) == 2:
        clause = _two_objects(named, rng, bare)
    else:
        clause = _object(named.objects[0], rng, bare)
        if named.place:
            place = rng.choice(PLACE_WORDS[named.place])
            how = rng.random()
            if how < 0.1:
                clause = f"{place}{rng.choice((', ', ' '))}{clause}"
            elif how < 0.2 and bare:
                clause = f"{clause}, {place}"
            else:
                clause = f"{clause} {place}"
    background = _background(named, rng, bare)
    if background is None:
        return clause
    phrase, comma = background
    if not comma and rng.random() < 0.12:
        comma = True
    return clause + (", " if comma else " ") + phrase


def _word_landscape(named, rng, bare):
    """The main clause of a landscape caption, without style and filler."""
    ground = rng.choice(GROUND_WORDS[named.ground])
    things = [thing if bare else _article(thing) for thing in named.things]
    rng.shuffle(things)
    time = rng.choice(TIME_WORDS[named.time]) if named.time else None
    things_said = rng.choice((" and ", " and ", " and ", " with ")).join(things)
    sky = named.sky and (named.sky if bare else "the " + named.sky)
    parts = []
    if sky and rng.random() < 0.5:
        clause = f"{sky} {rng.choice(('over', 'over', 'above'))} {ground}"
        if things:
            clause += " with " + things_said.replace(" with ", " and ")
        sky = None
    elif not things:
        clause = ground
    elif rng.random() < 0.65:
        clause = f"{things_said} on {ground}"
    else:
        clause = f"{ground}{rng.choice((' with ', ', '))}{things_said.replace(' with ', ' and ')}"
    if time and rng.random() < 0.75:
        clause += rng.choice((" ", " ", " ", ", ")) + time
        time = None
    if sky:
        parts.append(sky if bare and rng.random() < 0.5 else rng.choice(SKY_PARTS[named.sky]))
    if time:
        parts.append(rng.choice(TIME_PARTS[named.time]))
    rng.shuffle(parts)
    return ", ".join([clause] + parts)


def _fillers(named, rng):
    """Harmless phrases that name nothing, for a seventh of the captions."""
    if rng.random() >= 0.15:
        return []
    choice = FILLERS + (LANDSCAPE_FILLERS if named.kind == "landscape" else OBJECT_FILLERS)
    if named.place in (None, "middle") and named.relation is None:
        choice += CENTRED_FILLERS
    return rng.sample(choice, rng.choice((1, 2, 2, 3, 4)))


def word(named, rng):
    """Puts what is named into one of many wordings, at most MAX_WORDS long."""
    bare = rng.random() < 0.3
    clause = (_word_landscape if named.kind == "landscape" else _word_objects)(named, rng, bare)
    extras = _fillers(named, rng)
    style = named.style
    leading_place = clause.startswith(("in ", "on ", "at ", "near ", "to "))
    if style and not leading_place and rng.random() < 0.35:
        clause = f"{rng.choice(STYLE_OPENINGS[style])} {clause}"
        style = None
    elif not leading_place and rng.random() < 0.2:
        clause = f"{rng.choice(LANDSCAPE_OPENINGS if named.kind == 'landscape' else OPENINGS)} {clause}"
    if style:
        phrase = rng.choice(STYLE_WORDS[style])
        if rng.random() < 0.12:
            clause = f"{phrase}, {clause}"
        else:
            extras.insert(rng.randrange(len(extras) + 1), phrase)
    text = ", ".join([clause] + extras)
    return text if len(text.split()) <= MAX_WORDS else ", ".join([clause] + extras[:2])


def write(scene, rng):
    """A caption of the scene: lower case, true, varied."""
    return word(plan(scene, rng), rng)
