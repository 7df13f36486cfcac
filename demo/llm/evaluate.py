#!/usr/bin/env python3
"""Measures the demo language model through the real server: its routes, its worker, its default sampling.

    evaluate.py MODEL.gguf [--prompts N] [--seed N] [--server build/bin/mysti_server] [--state STATE_DIR] [--show N]

Prints a table. --state: also compares the greedy texts with the PyTorch network of that training. --show: prints some
wrong answers.
"""
import argparse
import http.client
import json
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import corpus
import questions
import words
from corpus import ROOT, caption, scene
from tokenizer import END

WORD_LIMIT = 80


class Server:
    """mysti_server with one language model, on free ports, in a folder of its own."""

    def __init__(self, program, model):
        self.folder = tempfile.TemporaryDirectory()
        self.port = free_ports()
        place = Path(self.folder.name)
        (place / "models").mkdir()
        args = [str(program), "--listen-port", str(self.port), "--model-dir", str(place / "models"),
                "--output-dir", str(place / "out"), "--data-dir", str(place / "data"),
                "--llm-model", str(model.resolve())]
        self.log = open(place / "log", "w+")
        self.process = subprocess.Popen(args, stdout=self.log, stderr=subprocess.STDOUT)
        self.wait()

    def wait(self):
        """Until the model is loaded; a minute at most."""
        for _ in range(600):
            try:
                if json.loads(self.request("GET", "/health").read())["workers"]["llm"]["loaded"]:
                    return
            except OSError:
                pass
            if self.process.poll() is not None:
                break
            time.sleep(0.1)
        self.log.seek(0)
        sys.exit(f"the server has not loaded the model:\n{self.log.read()}")

    def request(self, method, path, body=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        headers = {"Content-Type": "application/json"} if body else {}
        connection.request(method, path, body and json.dumps(body), headers)
        return connection.getresponse()

    def stream(self, path, body):
        """(text, finish reason, usage, seconds from the first piece to the last) of a streamed answer."""
        reply = self.request("POST", path, {**body, "stream": True, "stream_options": {"include_usage": True}})
        text, finish, usage, first = "", None, None, None
        if reply.status != 200:
            raise RuntimeError(reply.read().decode())
        for line in reply:
            if not line.startswith(b"data: {"):
                continue
            event = json.loads(line[6:])
            if "error" in event:
                raise RuntimeError(event["error"]["message"])
            usage = event.get("usage") or usage
            for choice in event["choices"]:
                piece = choice["delta"].get("content", "")
                first = first or (piece and time.monotonic())
                text += piece
                finish = choice["finish_reason"] or finish
        return text, finish, usage, time.monotonic() - (first or time.monotonic())

    def wand(self, prompt, **more):
        return self.stream("/v1/prompt/enhance", {"prompt": prompt, **more})

    def chat(self, *turns, **more):
        """turns: user, assistant, user, ... in turn."""
        messages = [{"role": ("user", "assistant")[i % 2], "content": t} for i, t in enumerate(turns)]
        return self.stream("/v1/chat/completions", {"messages": messages, "max_tokens": 200, **more})

    def stop(self):
        self.process.terminate()
        self.process.wait()
        self.log.close()
        self.folder.cleanup()


def free_ports():
    """A port that is free with the two behind it."""
    while True:
        port = random.randint(10000, 29000)
        try:
            for p in range(port, port + 3):
                with socket.socket() as s:
                    s.bind(("127.0.0.1", p))
            return port
        except OSError:
            continue


class Table:
    """Counts of yes and no by row, and the answers that were wrong."""

    def __init__(self):
        self.rows, self.wrong = defaultdict(list), defaultdict(list)

    def note(self, row, right, asked, answer):
        self.rows[row].append(bool(right))
        if not right:
            self.wrong[row].append((asked, answer))

    def print(self, show):
        for row, results in self.rows.items():
            print(f"{row:58s} {sum(results):4d} of {len(results):4d}  {100 * sum(results) / len(results):5.1f} %")
            for asked, answer in self.wrong[row][:show]:
                print(f"    {asked!r}\n      -> {answer!r}")


def covers(richer, named):
    """Whether the richer prompt still says all that was named."""
    richer, named = richer.canonical(), named.canonical()
    if not same_objects(richer.objects, named.objects):
        return False
    rest = {field: value for field, value in vars(named).items() if field != "objects"}
    return all(value in (None, (), getattr(richer, field)) for field, value in rest.items())


def same_objects(richer, named):
    return len(richer) == len(named) and all(
        (r.shape, r.colour) == (n.shape, n.colour) and n.size in (None, r.size) for r, n in zip(richer, named))


def check_rewrite(table, kind, prompt, named, answer):
    text, finish, _, _ = answer
    richer = caption.parse(text)
    table.note(f"{kind}: grammatical", richer, prompt, text)
    table.note(f"{kind}: keeps all named things", richer and covers(richer, named), prompt, text)
    table.note(f"{kind}: names nothing else", richer and richer.canonical() == named.canonical(), prompt, text)
    short = finish == "stop" and len(text.split()) <= WORD_LIMIT
    table.note(f"{kind}: ends by itself within {WORD_LIMIT} words", short, prompt, text)
    table.note(f"{kind}: longer than what was typed", len(text.split()) > len(prompt.split()), prompt, text)


def held_out_prompts(count, rng):
    """(prompt, named) of scenes that training never sees."""
    for _ in range(count):
        named = caption.plan(scene.random_scene(rng, held_out=True), rng)
        yield caption.word(named, rng), named


def landscapes(count, rng):
    """(prompt, named) of landscapes; there are too few to hold some out."""
    while count:
        shown = scene.random_scene(rng)
        if shown.kind == "landscape":
            named = caption.plan(shown, rng)
            yield caption.word(named, rng), named
            count -= 1


def rewrites(server, table, count, rng):
    """The wand and the chat on held-out prompts."""
    prompts = list(held_out_prompts(count, rng))
    for prompt, named in prompts:
        check_rewrite(table, "wand", prompt, named, server.wand(prompt, seed=rng.randrange(1 << 30)))
    for prompt, named in prompts[:count // 3]:
        check_rewrite(table, "wand, greedy", prompt, named, server.wand(prompt, temperature=0))
    for prompt, named in prompts[:count // 3]:
        asked = rng.choice(corpus.REQUESTS).format(prompt)
        check_rewrite(table, "chat", asked, named, server.chat(asked, seed=rng.randrange(1 << 30)))
    for prompt, named in prompts[:count // 3]:
        (_, first), (_, answer, _) = corpus.question(rng)
        asked = f"enhance: {prompt}"
        second = server.chat(first, answer, asked, seed=rng.randrange(1 << 30))
        check_rewrite(table, "chat, second turn", asked, named, second)
    for prompt, named in landscapes(count // 3, rng):
        check_rewrite(table, "wand, landscapes", prompt, named, server.wand(prompt, seed=rng.randrange(1 << 30)))


def copies(server, table, count, rng):
    """Prompts the model knows nothing about: are all words still there, in order?"""
    for kind, draw in (("known words", ordinary_prompt), ("one invented word", strange_prompt)):
        for _ in range(count):
            prompt = draw(rng)
            text = server.wand(prompt, seed=rng.randrange(1 << 30))[0]
            table.note(f"wand, other prompts, {kind}: kept word by word", text.startswith(prompt), prompt, text)


def ordinary_prompt(rng):
    """'a happy cat on a mat'"""
    noun, other = rng.sample(words.NOUNS, 2)
    return f"a {rng.choice(words.ADJECTIVES)} {noun} {rng.choice(words.PREPOSITIONS)} a {other}"


def strange_prompt(rng):
    """'a happy blorf on a mat'"""
    return f"a {rng.choice(words.ADJECTIVES)} {corpus.invented_word(rng)} on a {rng.choice(words.NOUNS)}"


def answers(server, table, count, rng):
    """Questions in wordings that training never sees."""
    for _ in range(count):
        topic = rng.choice(questions.TOPICS)
        held_out = [w for w in questions.wordings(topic) if questions.is_held_out(w)]
        if held_out:
            asked = rng.choice(held_out) + "?"
            text = server.chat(asked, seed=rng.randrange(1 << 30))[0]
            table.note("questions in held-out wordings: the right answer", text in topic.answers, asked, text)
    for _ in range(count // 2):
        (_, asked), _ = corpus.off_topic(rng, ())
        text = server.chat(asked, seed=rng.randrange(1 << 30))[0]
        table.note("other questions: says what it can instead", text in questions.FALLBACKS, asked, text)


def speed(server):
    """Tokens a second of one stream, as its reader sees them; the middle of nine."""
    rates = []
    for seed in range(9):
        _, _, usage, seconds = server.wand("a red circle on a blue background", seed=seed, max_tokens=150,
                                           ignore_eos=True)
        rates.append(usage["completion_tokens"] / seconds)
    return sorted(rates)[len(rates) // 2]


def compare(server, table, state, count, rng):
    """The worker's greedy text against PyTorch's, of which the GGUF was made."""
    from export import load
    network, tokenizer = load(state)
    for prompt, _ in held_out_prompts(count, rng):
        ids, _ = tokenizer.chat([("system", corpus.WAND), ("user", prompt)], answer=False)
        wanted = tokenizer.decode(network.greedy(ids, 200, END))
        text = server.wand(prompt, temperature=0)[0]
        table.note("greedy text as in PyTorch", text == wanted, wanted, text)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("model", type=Path)
    p.add_argument("--prompts", type=int, default=300)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--server", type=Path, default=ROOT / "build/bin/mysti_server")
    p.add_argument("--state", type=Path)
    p.add_argument("--show", type=int, default=0)
    a = p.parse_args()
    rng, table = random.Random(f"evaluate {a.seed}"), Table()
    server = Server(a.server, a.model)
    try:
        rewrites(server, table, a.prompts, rng)
        copies(server, table, a.prompts // 3, rng)
        answers(server, table, a.prompts, rng)
        if a.state:
            compare(server, table, a.state, a.prompts // 10, rng)
        table.print(a.show)
        print(f"{'tokens a second, one stream':58s} {speed(server):.0f}")
    finally:
        server.stop()


if __name__ == "__main__":
    main()
