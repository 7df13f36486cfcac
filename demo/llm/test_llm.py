"""Tests of what the demo language model learns from, and of its tokenizer. Run: python3 demo/llm/test_llm.py"""
import random
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import corpus  # noqa: E402
import questions  # noqa: E402
import tokenizer as bpe  # noqa: E402
from corpus import caption, scene  # noqa: E402

try:
    import torch
except ImportError:
    torch = None


class Rewriting(unittest.TestCase):
    def test_a_richer_prompt_names_the_same_and_adds_only_fillers(self):
        rng = random.Random(1)
        for _ in range(2000):
            prompt, named = corpus.domain_prompt(rng)
            richer, sure = corpus.enrich(prompt, rng)
            self.assertEqual(caption.parse(richer).canonical(), named.canonical(), richer)
            self.assertLessEqual(len(richer.split()), caption.MAX_WORDS)
            self.assertTrue(set(richer[sure:].split(", ")[1:]) <= set(caption.FILLERS), richer)

    def test_prompts_of_the_domain_are_from_the_training_set(self):
        rng = random.Random(2)
        for _ in range(2000):
            _, named = corpus.domain_prompt(rng)
            if named.kind == "objects" and named.background:
                things = tuple(scene.Thing(o.shape, o.colour) for o in named.objects)
                self.assertFalse(scene.is_held_out(scene.Scene("objects", "flat", things, background=named.background)))

    def test_other_prompts_are_kept_word_by_word(self):
        rng = random.Random(3)
        for _ in range(1000):
            prompt = corpus.foreign_prompt(rng, ())
            self.assertIsNone(caption.parse(prompt))
            self.assertTrue(corpus.enrich(prompt, rng)[0].startswith(prompt.rstrip(" .,!?\n")))

    def test_the_wand_is_learned_with_the_words_that_the_server_sends(self):
        self.assertRegex(corpus.WAND, r"^You improve prompts .* at most 80 words\.$")


class Questions(unittest.TestCase):
    def test_patterns_expand(self):
        self.assertEqual(sorted(questions.expand("(a|b (c|d)|) e")), [" e", "a e", "b c e", "b d e"])
        self.assertEqual(questions.expand("(a|b) \\(x\\)"), ["a (x)", "b (x)"])

    def test_every_wording_belongs_to_one_topic_and_some_are_held_out(self):
        seen = {}
        for topic in questions.TOPICS:
            wordings = questions.wordings(topic)
            self.assertTrue(any(questions.is_held_out(w) for w in wordings), topic.name)
            self.assertFalse(all(questions.is_held_out(w) for w in questions.expand(topic.wordings[0])), topic.name)
            for wording in wordings:
                self.assertEqual(seen.setdefault(wording, topic.name), topic.name, wording)


class Tokens(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.tokenizer = bpe.learn(corpus.texts(500, 1), 600)

    def test_every_text_survives(self):
        for text in ("a red circle on a blue background", "  two  spaces\n\nand\tmore ", corpus.WAND,
                     "Grünkohl 日本 🚀 (blue:1.3), it's"):
            self.assertEqual(self.tokenizer.decode(self.tokenizer.encode(text)), text)

    def test_frequent_words_are_one_token_and_tokens_are_unique(self):
        self.assertEqual(len(self.tokenizer.encode(" circle")), 1)
        self.assertEqual(len(set(self.tokenizer.tokens)), 600)

    def test_a_conversation_is_chatml_and_only_answers_are_learned(self):
        ids, weights = self.tokenizer.chat([("user", "hi"), ("assistant", "hello, you", 5)])
        plain = [self.tokenizer.decode([i]) if i >= len(bpe.SPECIAL) else bpe.SPECIAL[i] for i in ids]
        self.assertEqual("".join(plain), "<|bos|><|im_start|>user\nhi<|im_end|>\n"
                                         "<|im_start|>assistant\nhello, you<|im_end|>\n")
        self.assertEqual(self.tokenizer.decode([i for i, w in zip(ids, weights) if w == 1]), "hello")
        rest = [i for i, w in zip(ids, weights) if w == bpe.LIGHT]
        self.assertEqual((self.tokenizer.decode(rest), rest[-1]), (", you", bpe.END))


@unittest.skipIf(torch is None, "no PyTorch for this Python (apt install python3-torch)")
class Training(unittest.TestCase):
    def test_the_fast_way_has_the_loss_and_gradients_of_the_plain_one(self):
        import fast
        fast.compare()

    def test_two_steps_at_once_and_in_pieces_are_the_same(self):
        import tempfile
        import train
        from network import Network, Shape
        tokenizer = bpe.learn(corpus.texts(200, 1), 400)
        batches = train.batches(tokenizer, random.Random(1), Shape(1).context)[:2]
        runs = []
        for pause in (False, True):
            with tempfile.TemporaryDirectory() as folder:
                torch.manual_seed(0)
                run = train.Run(Path(folder), tokenizer, "cpu")
                for batch in batches:
                    run.learn(batch, 10)
                    if pause:
                        run.save()
                        run = train.Run(Path(folder), tokenizer, "cpu")
                runs.append(run.network)
        for p, q in zip(runs[0].parameters(), runs[1].parameters()):
            self.assertTrue(torch.equal(p, q))


if __name__ == "__main__":
    unittest.main()
