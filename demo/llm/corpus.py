"""What the demo language model learns from: conversations, made without end from the scenes' grammar and the questions.

A conversation is a list of (role, text). Rewriting is learned in the form that the Magic Wand sends (system: its
instruction, user: the prompt) and as an ordinary chat; questions and small talk only in the latter.
"""
import random
import re
import string
import sys
from dataclasses import replace
from pathlib import Path

import questions
import words

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "demo"))

import caption  # noqa: E402
import scene  # noqa: E402

MAX_FILLERS = 7


def wand_instruction():
    """The system message of the Magic Wand, from its one place in the server."""
    source = (ROOT / "src/server/llm_api.c").read_text()
    literal = re.search(r"llm_enhance_instruction\[\] =\s*((?:\"[^\"]*\"\s*)+);", source)[1]
    return "".join(re.findall(r'"([^"]*)"', literal))


WAND = wand_instruction()
SYSTEMS = (
    "You are a helpful assistant.", "You are a friendly assistant.", "You are Mysti's assistant.", "Answer briefly.",
    "Be polite and short.", "You write prompts for an image generator.", "You are an expert for image prompts.",
    "You help with a local studio for images and text.",
)
REQUESTS = (
    "enhance: {}", "Enhance: {}", "improve this prompt: {}", "make this prompt better: {}",
    "make this prompt richer: {}", "rewrite this prompt: {}", "Improve this prompt: {}", "prompt: {}", "draw {}",
    "paint {}", "make {}", "please draw {}",
    "please improve: {}", "enhance this prompt: {}", "can you improve this prompt: {}", "improve the prompt \"{}\"",
    "enhance \"{}\"", "make it better: {}", "write a better prompt for {}", "write a prompt for {}", "I want {}",
    "i would like {}", "create {}", "generate {}", "more detail: {}", "add details: {}", "expand: {}", "show me {}",
    "enrich: {}", "a richer prompt for: {}", "rewrite: {}", "enhance {}", "improve: {}", "Please enhance: {}",
)
AGAIN = ("again", "another one", "one more", "another version", "once more", "try again", "a different one",
         "another", "again please", "give me another one", "do it again", "one more please", "can you do another one?",
         "something else", "more")


# ---- prompts of the domain --------------------------------------------------------------------------------------

def sparse(named, rng):
    """The same with fewer things named: people write short prompts."""
    drop = {}
    for field in ("background", "pattern", "style", "place", "relation", "time", "sky"):
        if rng.random() < (0.25 if field == "background" else 0.1):
            drop[field] = None
    if "background" in drop:
        drop["pattern"] = None
    return replace(named, **drop)


def enrich(prompt, rng):
    """(the prompt word by word with fillers behind it, how many characters of it are the prompt's).

    The fillers are those that fit any picture and that the prompt has not, in the order of their table: whoever picks
    the likeliest next one comes to an end. A prompt of the domain is then one of the domain, and not longer than
    caption.MAX_WORDS words.
    """
    body = prompt.rstrip(" .,!?\n")
    count = rng.randint(3, 5) if len(body.split()) < 25 else rng.randint(1, 2)
    fitting = [f for f in caption.FILLERS if f not in body.lower()]
    fillers = sorted(rng.sample(fitting, min(count, len(fitting))), key=caption.FILLERS.index)
    while len(fillers) > 1 and len(" ".join([body] + fillers).split()) > caption.MAX_WORDS:
        fillers.pop()
    return ", ".join([body] + fillers), len(body)


def as_typed(text, rng):
    """A prompt as somebody might have typed it: capitals, a full stop."""
    how = rng.random()
    if how < 0.08:
        text = text[0].upper() + text[1:]
    elif how < 0.11:
        text = text.title()
    elif how < 0.13:
        text = text.upper()
    return text + (rng.choice(".!,") if rng.random() < 0.08 else "")


def domain_prompt(rng):
    """(prompt, what it names) of a scene that training may see."""
    named = caption.plan(scene.random_scene(rng), rng)
    if rng.random() < 0.5:
        named = sparse(named, rng)
    extras = rng.sample(caption.fitting_fillers(named), rng.choice((1, 1, 2, 3, 4, 5))) if rng.random() < 0.25 else ()
    return as_typed(caption.word(named, rng, extras=extras), rng), named


def slip(text, rng):
    """The text with one long word misspelled: a letter less, doubled, or two in the wrong order."""
    parts = text.split(" ")
    long = [i for i, w in enumerate(parts) if len(w) >= 5 and w.isalpha()]
    if not long:
        return text
    i = rng.choice(long)
    w, at = parts[i], rng.randrange(1, len(parts[i]) - 1)
    parts[i] = rng.choice((w[:at] + w[at + 1:], w[:at] + w[at] + w[at:], w[:at] + w[at + 1] + w[at] + w[at + 2:]))
    return " ".join(parts)


# ---- prompts of any other kind: kept word by word ---------------------------------------------------------------

def invented_word(rng):
    """A word nobody knows."""
    if rng.random() < 0.7:
        syllable = lambda: rng.choice(words.ONSETS) + rng.choice(words.VOWELS) + rng.choice(words.CODAS)  # noqa: E731
        return "".join(syllable() for _ in range(rng.choice((1, 2, 2, 3))))
    return "".join(rng.choice(string.ascii_lowercase) for _ in range(rng.randint(2, 9)))


def odd_word(rng):
    """What also stands in prompts: numbers, weights, other scripts, names."""
    how = rng.random()
    if how < 0.25:
        return str(rng.choice((rng.randint(0, 20), rng.randint(0, 9999))))
    if how < 0.45:
        return f"({any_word(rng)}:{rng.randint(5, 16) / 10})"
    if how < 0.6:
        return any_word(rng).capitalize()
    if how < 0.7:
        return f"{any_word(rng)}{rng.choice('-/_')}{any_word(rng)}"
    if how < 0.8:
        return rng.choice(("[{}]", "<{}>", "\"{}\"", "({})", "{{{}}}", "'{}'", "#{}", "@{}")).format(any_word(rng))
    if how < 0.9:
        word = list(any_word(rng))
        word[rng.randrange(len(word))] = rng.choice(words.FOREIGN)
        return "".join(word)
    return "".join(rng.choice(words.FOREIGN) for _ in range(rng.randint(1, 4)))


def any_word(rng, tokens=()):
    """A common word, an invented one, or a token of the vocabulary."""
    how = rng.random()
    if tokens and how < 0.3:
        return rng.choice(tokens)
    return rng.choice(words.COMMON) if how < 0.65 else invented_word(rng)


def phrase(rng, tokens):
    """A noun phrase out of known and unknown words."""
    noun = rng.choice(words.NOUNS) if rng.random() < 0.55 else any_word(rng, tokens)
    if rng.random() < 0.25:
        noun = rng.choice(scene.SHAPES + ("house", "tree", "boat", "sun", "moon", "sea", "hills"))
    adjective = ""
    if rng.random() < 0.5:
        known = words.ADJECTIVES + tuple(scene.COLOURS)
        adjective = (rng.choice(known) if rng.random() < 0.75 else any_word(rng, tokens)) + " "
    article = rng.choices(("a ", "the ", "", "two ", "three ", "some ", "my ", "many "), (60, 12, 16, 3, 3, 2, 2, 2))[0]
    return article + adjective + noun


def foreign_prompt(rng, tokens):
    """A prompt that is not of the grammar."""
    while True:
        how = rng.random()
        if how < 0.6:
            text = phrase(rng, tokens)
            for _ in range(rng.choice((0, 1, 1, 1, 2, 2, 3))):
                text += ", " if rng.random() < 1 / 3 else f" {rng.choice(words.PREPOSITIONS)} "
                text += phrase(rng, tokens)
            if rng.random() < 0.2:
                text += ", " + rng.choice(words.STYLES)
        elif how < 0.9:
            n = min(rng.randint(1, 30), rng.randint(1, 30))
            text = " ".join(odd_word(rng) if rng.random() < 0.12 else any_word(rng, tokens) for _ in range(n))
            if rng.random() < 0.3:
                text = text.replace(" ", ", ", rng.randint(1, 5))
        elif how < 0.95:
            text = caption.word(caption.plan(scene.random_scene(rng), rng), rng)
            parts = text.split(" ")
            parts[rng.randrange(len(parts))] = any_word(rng, tokens)
            text = " ".join(parts)
        else:
            text = rng.choice(questions.wordings(rng.choice(questions.TOPICS)))
        if caption.parse(text) is None:
            return text if rng.random() < 0.85 else text[0].upper() + text[1:]


# ---- questions --------------------------------------------------------------------------------------------------

POLITE_HEAD = ("please tell me, ", "hey, ", "hi, ", "hello, ", "tell me: ", "i wonder, ", "excuse me, ", "sorry, ",
               "one question: ", "ok, ", "so ", "and ", "question: ", "quick question: ")
POLITE_TAIL = (" please", ", please", " then", " exactly", " here", " in mysti", " now")


def as_asked(text, rng):
    """A question as somebody might have typed it."""
    if rng.random() < 0.15:
        text = rng.choice(POLITE_HEAD) + text
    if rng.random() < 0.08:
        text += rng.choice(POLITE_TAIL)
    if rng.random() < 0.08:
        text = slip(text, rng)
    mark = "?" if rng.random() < 0.65 else rng.choice(("", "", ".", "!", " ?", "??"))
    how = rng.random()
    text = text[0].upper() + text[1:] if how < 0.4 else text.upper() if how < 0.43 else text
    return text + mark


SURE = 40  # characters after which an answer from the table goes on by itself


def question(rng):
    """Question about the studio, in a wording that training may see, and answer."""
    topic = rng.choice(questions.TOPICS)
    while True:
        wording = rng.choice(rng.choice(_wordings(topic)))
        if not questions.is_held_out(wording):
            return ("user", as_asked(wording, rng)), ("assistant", rng.choice(topic.answers), SURE)


_by_topic = {}


def _wordings(topic):
    """The wordings of each pattern of a topic: patterns are drawn evenly, however many wordings they have."""
    if topic.name not in _by_topic:
        _by_topic[topic.name] = [questions.expand(p) for p in topic.wordings]
    return _by_topic[topic.name]


def off_topic(rng, tokens):
    """Question about anything else, and answer."""
    pattern = rng.choice(words.OFF_TOPIC)
    fields = {"noun": rng.choice(words.NOUNS), "word": any_word(rng, tokens), "adjective": rng.choice(words.ADJECTIVES),
              "name": invented_word(rng).capitalize(), "n": rng.randint(0, 99), "m": rng.randint(0, 99)}
    return ("user", as_asked(pattern.format(**fields), rng)), ("assistant", rng.choice(questions.FALLBACKS), SURE)


def can_you_draw(rng):
    """A question that names a picture of the domain: the answer is its prompt."""
    named = sparse(caption.plan(scene.random_scene(rng), rng), rng)
    asked = caption.word(named, rng, bare=False, extras=())
    begin, (richer, sure) = "Yes. Try this prompt: ", enrich(asked, rng)
    return ("user", as_asked(f"can you draw {asked}", rng)), ("assistant", begin + richer, len(begin) + sure)


# ---- conversations ----------------------------------------------------------------------------------------------

def some_prompt(rng, tokens):
    return domain_prompt(rng)[0] if rng.random() < 0.55 else foreign_prompt(rng, tokens)


def wand(rng, tokens):
    """What the Magic Wand sends, and sometimes a second turn of it."""
    turns = [("system", WAND)]
    for _ in range(1 if rng.random() < 0.93 else 2):
        prompt = some_prompt(rng, tokens)
        turns += [("user", prompt), ("assistant", *enrich(prompt, rng))]
    return turns


def chat_turn(rng, tokens, turns):
    """Adds a question and its answer to turns."""
    how = rng.random()
    if how < 0.35:
        prompt = asked = some_prompt(rng, tokens)
        if prompt.split(" ")[0].lower() in words.QUESTION_WORDS or rng.random() < 0.6:
            asked = rng.choice(REQUESTS).format(prompt)
        turns += [("user", asked), ("assistant", *enrich(prompt, rng))]
        while rng.random() < 0.1 and len(turns) < 7:
            turns += [("user", as_asked(rng.choice(AGAIN), rng)), ("assistant", *enrich(prompt, rng))]
    elif how < 0.82:
        turns += question(rng)
    elif how < 0.96:
        turns += off_topic(rng, tokens)
    else:
        turns += can_you_draw(rng)


def chat(rng, tokens):
    """An ordinary conversation of one to four turns."""
    turns = [("system", rng.choice(SYSTEMS))] if rng.random() < 0.15 else []
    for _ in range(rng.choices((1, 2, 3, 4), (82, 12, 4, 2))[0]):
        chat_turn(rng, tokens, turns)
    return turns


def conversation(rng, tokens=()):
    """Any of them. tokens: strings of the vocabulary, among which unknown words are also drawn."""
    return wand(rng, tokens) if rng.random() < 0.2 else chat(rng, tokens)


def texts(count, seed):
    """Texts for learning the vocabulary."""
    rng = random.Random(seed)
    for _ in range(count):
        for role, text, *_ in conversation(rng):
            if text != WAND:
                yield text
    for w in words.COMMON:
        yield from (" " + w,) * 20
    yield from [WAND] * 1000
    yield from list(SYSTEMS) * 100
    yield from ("system\n", "user\n", "assistant\n") * 100
    for topic in questions.TOPICS:
        yield from list(topic.answers) * 20
