"""Captions of scenes in varied wording, and the parser of the very same wording.

plan() decides what a caption names (a Named), word() puts that into words, write() does both. parse() reads a text of
the grammar back into what it names; a text with any other word in it, or that names what no scene can show, is None.
holds() says whether what was named is true of a scene.
"""

import re
from dataclasses import dataclass, replace

import scene as scenes

MAX_WORDS = 60  # of a caption


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


def fitting_fillers(named):
    """The harmless phrases that name nothing and contradict nothing of what is named."""
    choice = FILLERS + (LANDSCAPE_FILLERS if named.kind == "landscape" else OBJECT_FILLERS)
    if named.place in (None, "middle") and named.relation is None:
        choice += CENTRED_FILLERS
    return choice


def _fillers(named, rng):
    """Fillers for a seventh of the captions."""
    if rng.random() >= 0.15:
        return []
    return rng.sample(fitting_fillers(named), rng.choice((1, 2, 2, 3, 4)))


def word(named, rng, bare=None, extras=None):
    """Puts what is named into one of many wordings, at most MAX_WORDS long.

    bare: without articles; drawn where None. extras: the fillers, which are then all kept; drawn where None.
    """
    bare = rng.random() < 0.3 if bare is None else bare
    given = extras is not None
    clause = (_word_landscape if named.kind == "landscape" else _word_objects)(named, rng, bare)
    extras = list(extras) if given else _fillers(named, rng)
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
    return text if given or len(text.split()) <= MAX_WORDS else ", ".join([clause] + extras[:2])


def write(scene, rng):
    """A caption of the scene: lower case, true, varied."""
    return word(plan(scene, rng), rng)


def holds(named, scene):
    """Whether everything that was named is true of the scene."""
    if named.kind != scene.kind:
        return False
    simple = ("style", "background", "pattern", "place", "time", "sky", "ground")
    if any(getattr(named, field) not in (None, getattr(scene, field)) for field in simple):
        return False
    if named.kind == "landscape":
        return set(named.things) <= set(scene.things)
    if len(named.objects) != len(scene.objects):
        return False
    orders = [named] if len(named.objects) == 1 else [named, named.swapped()]
    return any(order.relation in (None, scene.relation) and _same_things(order.objects, scene.objects)
               for order in orders)


def _same_things(named, shown):
    """Whether every named shape is the shown one of the same number."""
    return all((n.shape, n.colour) == (s.shape, s.colour) and n.size in (None, s.size) for n, s in zip(named, shown))


# The parser. A scanner cuts the text into items, each a letter and a value; what a caption may be is then a pattern of
# letters. O object, P place, R relation, I "to its left", B background, S style, K sun or moon, G ground, H house,
# tree or boat, T time, & and, w with, o over, n on, _ what names nothing.

def _one_of(words):
    """A regular expression for any of the words, longest first; American and British spelling alike."""
    return "|".join(re.escape(_normal(word)) for word in sorted(words, key=len, reverse=True))


def _normal(text):
    """Lower case, single spaces, commas as words of their own, one spelling."""
    text = re.sub(r"[.!]+$", "", text.strip().lower())
    text = text.replace("-", " ").replace(",", " , ")
    text = text.replace("colour", "color").replace("centre", "center")
    return " ".join(text.split())


def _value_of(table, phrase):
    """The key of the table whose wording has the phrase."""
    return next(key for key, words in table.items() if phrase in map(_normal, words))


_SIZES_RE = _one_of(word for words in SIZE_WORDS.values() for word in words)
_COLOURS_RE = _one_of(scenes.COLOURS)
_SHAPES_RE = _one_of(scenes.SHAPES)
_ADJECTIVES_RE = _one_of(word for words in PATTERN_ADJECTIVES.values() for word in words)
_NOUNS_RE = _one_of(word for words in PATTERN_NOUNS.values() for word in words)
_OBJECT = re.compile(
    rf"(?:(?:an?|one|the) )?(?:(?P<size>{_SIZES_RE}) )?"
    rf"(?:(?P<colour>{_COLOURS_RE})(?: colored)? (?P<shape>{_SHAPES_RE})|"
    rf"(?P<shape2>{_SHAPES_RE}) in (?P<colour2>{_COLOURS_RE}))(?= |$)")
_LEAD = r"(?:(?:on|against|in front of|with) )?(?:(?:an?|the) )?"
_BACKGROUND_FORMS = [re.compile(form + "(?= |$)") for form in (
    rf"{_LEAD}(?:(?P<adjective>{_ADJECTIVES_RE}) )?(?:(?P<colour>{_COLOURS_RE}) )?background"
    rf"(?: with (?P<noun>{_NOUNS_RE}))?",
    rf"{_LEAD}(?P<colour>{_COLOURS_RE}) (?P<adjective>{_ADJECTIVES_RE}) background",
    rf"(?:on|against) (?:(?:an?|the) )?(?P<colour>{_COLOURS_RE}) (?P<noun>{_NOUNS_RE})",
    rf"(?:on|against) (?P<colour>{_COLOURS_RE})",
    rf"the background is (?P<colour>{_COLOURS_RE})",
)]


def _phrases(letter, table):
    """{phrase: (letter, key)} of a table of wordings."""
    return {_normal(word): (letter, key) for key, words in table.items() for word in words}


def _lexicon(*parts):
    """A scanner's phrases and the regular expression that finds the longest of them."""
    phrases = {",": ("", None), "and": ("&", None), "plus": ("&", None), "with": ("w", None)}
    phrases.update({_normal(f): ("_", None) for f in FILLERS + CENTRED_FILLERS})
    for part in (_phrases("S", STYLE_OPENINGS), _phrases("S", STYLE_WORDS)) + parts:
        phrases.update(part)
    return phrases, re.compile(f"(?:{_one_of(phrases)})(?= |$)")


_OBJECT_LEXICON = _lexicon(
    {_normal(f): ("_", None) for f in OBJECT_FILLERS + OPENINGS},
    _phrases("P", {place: (place,) for place in ("left", "right", "top", "bottom")}), _phrases("P", PLACE_WORDS),
    _phrases("R", RELATION_WORDS), _phrases("I", ITS_WORDS))
_LANDSCAPE_LEXICON = _lexicon(
    {_normal(f): ("_", None) for f in LANDSCAPE_FILLERS + LANDSCAPE_OPENINGS + OPENINGS},
    {"over": ("o", None), "above": ("o", None), "on": ("n", None)},
    {article + thing: ("H", thing) for words in scenes.THINGS.values() for thing in words for article in ("", "a ")},
    {article + sky: ("K", sky) for sky in scenes.SKY_OBJECTS for article in ("", "the ")},
    _phrases("T", TIME_WORDS), _phrases("T", TIME_PARTS), _phrases("K", SKY_PARTS), _phrases("G", GROUND_WORDS))

_ONE_OBJECT = re.compile(r"w?(OP?|PO)")
_TWO_OBJECTS = re.compile(r"w?(O[&w]?O|ORO|OP&?OP|PO&?PO|O[&w]OI)")
_LANDSCAPE = re.compile(r"([&w]?[HKT]|(?<=K)oG|nG|[&w]?G)+")


def _object_item(match):
    """(letter, value) of a match of _OBJECT."""
    size = match["size"] and _value_of(SIZE_WORDS, match["size"])
    return "O", NamedThing(match["shape"] or match["shape2"], match["colour"] or match["colour2"], size)


def _background_item(match):
    """(letter, value) of a match of a background form; None where it names nothing or two patterns."""
    found = {"adjective": None, "noun": None, **match.groupdict()}
    if (found["adjective"] and found["noun"]) or not any(found.values()):
        return None
    pattern = found["adjective"] and _value_of(PATTERN_ADJECTIVES, found["adjective"])
    pattern = pattern or (found["noun"] and _value_of(PATTERN_NOUNS, found["noun"]))
    return "B", (found["colour"], pattern)


def _scan(text, lexicon, with_objects):
    """The items of a normalised text, longest match first; None where a word belongs to none."""
    phrases, pattern = lexicon
    items, at = [], 0
    while at < len(text):
        found = pattern.match(text, at)
        matches = [(found.end(), phrases[found[0]])] if found else []
        if with_objects:
            found = _OBJECT.match(text, at)
            matches += [(found.end(), _object_item(found))] if found else []
            found = [form.match(text, at) for form in _BACKGROUND_FORMS]
            matches += [(match.end(), _background_item(match)) for match in found if match and _background_item(match)]
        if not matches:
            return None
        end, item = max(matches, key=lambda match: match[0])
        items.append(item)
        at = end + 1
    return items


def _only(items, letter):
    """The one value of that letter: (True, value or None), or (False, None) where two differ."""
    values = {value for found, value in items if found == letter}
    return len(values) < 2, next(iter(values), None)


def _relation_of(letters, items):
    """How two objects stand by the items: (True, relation or None), or (False, None) where the places make no pair."""
    values = {letter: [value for found, value in items if found == letter] for letter in "PRI"}
    if values["R"]:
        return True, values["R"][0]
    if values["I"]:
        return True, scenes.OPPOSITE[values["I"][0]]
    if not values["P"]:
        return True, None
    places = tuple(values["P"])
    relation = next((name for name, pair in RELATION_PLACES.items() if pair == places), None)
    return relation is not None, relation


def _parse_objects(items):
    """What an object caption's items name, or None."""
    letters = "".join(letter for letter, _ in items if letter not in ("", "_", "B", "S"))
    one_style, style = _only(items, "S")
    one_background, background = _only(items, "B")
    if not (one_style and one_background):
        return None
    background = background or (None, None)
    objects = tuple(value for letter, value in items if letter == "O")
    distinct = {(thing.shape, thing.colour) for thing in objects}
    if len(distinct) < len(objects) or any(thing.colour == background[0] for thing in objects):
        return None
    if _ONE_OBJECT.fullmatch(letters):
        return Named("objects", objects, _only(items, "P")[1], None, *background, style)
    related, relation = _relation_of(letters, items)
    if not _TWO_OBJECTS.fullmatch(letters) or not related:
        return None
    return Named("objects", objects, None, relation, *background, style)


def _parse_landscape(items):
    """What a landscape caption's items name, or None."""
    letters = "".join(letter for letter, _ in items if letter not in ("", "_", "S"))
    found = {letter: _only(items, letter) for letter in "SKGT"}
    things = sorted(value for letter, value in items if letter == "H")
    if not _LANDSCAPE.fullmatch(letters) or not all(one for one, _ in found.values()) or len(set(things)) < len(things):
        return None
    style, sky, ground, time = (found[letter][1] for letter in "SKGT")
    if sky and time and (sky == "moon") != (time == "night"):
        return None
    if not any(set(things) <= set(scenes.THINGS[place]) for place in scenes.GROUNDS if ground in (None, place)):
        return None
    return Named("landscape", style=style, time=time, sky=sky, ground=ground, things=tuple(things))


def parse(text):
    """What the text names, or None where it is not of the grammar."""
    text = _normal(text)
    items = _scan(text, _OBJECT_LEXICON, with_objects=True)
    if items is not None:
        return _parse_objects(items)
    items = _scan(text, _LANDSCAPE_LEXICON, with_objects=False)
    return None if items is None else _parse_landscape(items)
