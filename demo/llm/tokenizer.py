"""A small byte-level BPE tokenizer: learned from a text, written into the GGUF, the same cuts as libllama's "gpt-2".

Token ids: the four control tokens, the 256 bytes, then one token per merge in the order in which they were learned.
"""
import collections
import heapq
import json
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))
from make_tiny_llm import SPECIAL, byte_symbols  # noqa: E402

BOS, EOS, START, END = range(len(SPECIAL))
LIGHT = 0.2
_FIRST_MERGE = len(SPECIAL) + 256
_WORD = re.compile(r"'s|'t|'re|'ve|'m|'ll|'d| ?[^\W\d_]+| ?\d+| ?(?:[^\s\w]|_)+|\s+(?!\S)|\s+")
_SYMBOLS = byte_symbols()
_BYTES = {symbol: byte for byte, symbol in _SYMBOLS.items()}


def spell(text):
    """The text's UTF-8 bytes as printable symbols."""
    return "".join(_SYMBOLS[b] for b in text.encode())


class Tokenizer:
    """merges: pairs of symbol strings, the earlier the stronger."""

    def __init__(self, merges):
        self.pairs = [tuple(m) for m in merges]
        self.merges = [f"{a} {b}" for a, b in self.pairs]
        self.tokens = SPECIAL + [_SYMBOLS[b] for b in range(256)] + [a + b for a, b in self.pairs]
        self.index = {t: i for i, t in enumerate(self.tokens)}
        self.rank = {pair: i for i, pair in enumerate(self.pairs)}
        self.cache = {}

    def encode(self, text):
        """Token ids of a plain text; control tokens in it are read as letters."""
        return [i for word in _WORD.findall(text) for i in self._word(word)]

    def decode(self, ids):
        """The text of ids; control tokens are left out, broken UTF-8 is replaced."""
        symbols = "".join(self.tokens[i] for i in ids if i >= len(SPECIAL))
        return bytes(_BYTES[s] for s in symbols).decode("utf-8", "replace")

    def _word(self, word):
        ids = self.cache.get(word)
        if ids is None:
            ids = self._merge(list(spell(word)))
            if len(self.cache) < 100_000:
                self.cache[word] = ids
        return ids

    def _merge(self, parts):
        while len(parts) > 1:
            rank, at = min((self.rank.get(pair, len(self.rank)), i) for i, pair in enumerate(zip(parts, parts[1:])))
            if rank == len(self.rank):
                break
            parts[at:at + 2] = [parts[at] + parts[at + 1]]
        return [self.index[p] for p in parts]

    def chat(self, messages, answer=True):
        """Ids of a ChatML conversation as the worker renders it, and how much each of them counts in learning.

        messages: (role, text), or (role, text, sure): of an answer the first `sure` characters count in full, the rest,
        of which there is a choice, by LIGHT. What others say counts nothing.
        answer: the last message is the assistant's; else the ids end where its answer begins.
        """
        ids, weights = [BOS], [0.0]

        def add(tokens, weight):
            ids.extend(tokens)
            weights.extend([weight] * len(tokens))

        for role, text, *sure in messages:
            add([START] + self.encode(role + "\n"), 0.0)
            tokens = self.encode(text) + [END]
            if role == "assistant":
                count = len(self.encode(text[:sure[0]])) if sure else len(tokens)
                add(tokens[:count], 1.0)
                add(tokens[count:], LIGHT)
            else:
                add(tokens, 0.0)
            add(self.encode("\n"), 0.0)
        if not answer:
            add([START] + self.encode("assistant\n"), 0.0)
        return ids, weights

    def save(self, path):
        Path(path).write_text(json.dumps(self.pairs, ensure_ascii=False))

    @staticmethod
    def load(path):
        return Tokenizer(json.loads(Path(path).read_text()))


class _Counts:
    """How often each pair of neighbours occurs, and in which words."""

    def __init__(self, words):
        self.words = [(list(spell(w)), n) for w, n in words.items()]
        self.count, self.where = collections.Counter(), collections.defaultdict(set)
        for i in range(len(self.words)):
            self._note(i, 1)
        self.heap = [(-n, pair) for pair, n in self.count.items()]
        heapq.heapify(self.heap)

    def _note(self, i, sign):
        parts, n = self.words[i]
        for pair in zip(parts, parts[1:]):
            self.count[pair] += sign * n
            if sign > 0:
                self.where[pair].add(i)

    def best(self):
        """The commonest pair, ties in alphabetical order, or None."""
        while self.heap:
            n, pair = heapq.heappop(self.heap)
            if self.count[pair] == -n:
                return pair if n < -1 else None
        return None

    def join(self, pair):
        """Joins the pair wherever it stands."""
        touched = set()
        for i in sorted(self.where.pop(pair)):
            parts, _ = self.words[i]
            self._note(i, -1)
            touched.update(zip(parts, parts[1:]))
            at = 0
            while at < len(parts) - 1:
                if (parts[at], parts[at + 1]) == pair:
                    parts[at:at + 2] = [parts[at] + parts[at + 1]]
                at += 1
            self._note(i, 1)
            touched.update(zip(parts, parts[1:]))
        for other in touched:
            heapq.heappush(self.heap, (-self.count[other], other))


def learn(texts, size):
    """A tokenizer of `size` tokens learned from an iterable of texts."""
    counts = _Counts(collections.Counter(w for text in texts for w in _WORD.findall(text)))
    merges = []
    while len(merges) < size - _FIRST_MERGE and (pair := counts.best()):
        merges.append(pair)
        counts.join(pair)
    return Tokenizer(merges)
