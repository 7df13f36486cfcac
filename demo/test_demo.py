"""Tests of the demo models' data: scenes, captions, pictures and the judge. Run: python3 demo/test_demo.py"""

import json
import os
import random
import subprocess
import sys
import tempfile
import unittest
from collections import Counter
from dataclasses import replace

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

import numpy as np  # noqa: E402

import caption  # noqa: E402
import judge  # noqa: E402
import render  # noqa: E402
import scene as scenes  # noqa: E402


def red_circle_on_blue(**fields):
    """The example scene, with other fields where given."""
    example = scenes.Scene("objects", "flat", (scenes.Thing("circle", "red"),), place="middle", background="blue",
                           pattern="plain")
    return replace(example, **fields)


class Scenes(unittest.TestCase):
    def test_held_out_is_never_drawn_and_a_tenth_of_triples(self):
        rng = random.Random(1)
        for _ in range(3000):
            self.assertFalse(scenes.is_held_out(scenes.random_scene(rng)))
        for _ in range(300):
            self.assertTrue(scenes.is_held_out(scenes.random_scene(rng, held_out=True)))
        self.assertFalse(scenes.is_held_out(red_circle_on_blue()))
        triples = [red_circle_on_blue(objects=(scenes.Thing(shape, colour),), background=background)
                   for shape in scenes.SHAPES for colour in scenes.COLOURS for background in scenes.COLOURS]
        share = sum(map(scenes.is_held_out, triples)) / len(triples)
        self.assertTrue(0.07 < share < 0.13, share)

    def test_held_out_does_not_depend_on_the_order_of_the_objects(self):
        rng = random.Random(2)
        for held_out in (False, True):
            for _ in range(300):
                scene = scenes.random_scene(rng, held_out)
                self.assertEqual(scenes.is_held_out(replace(scene, objects=scene.objects[::-1])), held_out)

    def test_shares_of_kinds_and_styles(self):
        rng = random.Random(3)
        drawn = [scenes.random_scene(rng) for _ in range(4000)]
        kinds = Counter((scene.kind, len(scene.objects)) for scene in drawn)
        styles = Counter(scene.style for scene in drawn)
        for count, share in ((kinds["objects", 2], 0.45), (kinds["objects", 1], 0.35), (kinds["landscape", 0], 0.20),
                             (styles["flat"], 0.60), (styles["outline"], 0.20), (styles["watercolor"], 0.20)):
            self.assertAlmostEqual(count / 4000, share, delta=0.03)

    def test_scenes_are_possible(self):
        rng = random.Random(4)
        for _ in range(3000):
            scene = scenes.random_scene(rng)
            if scene.kind == "landscape":
                self.assertLessEqual(set(scene.things), set(scenes.THINGS[scene.ground]))
                self.assertIn(scene.sky, ("", "moon" if scene.time == "night" else "sun"))
                continue
            self.assertTrue(all(scenes.visible(t.colour, scene.background, scene.pattern) for t in scene.objects))
            self.assertEqual(len({(t.shape, t.colour) for t in scene.objects}), len(scene.objects))

    def test_json_round_trip(self):
        rng = random.Random(5)
        for _ in range(500):
            scene = scenes.random_scene(rng)
            self.assertEqual(scenes.Scene.from_dict(json.loads(json.dumps(scene.as_dict()))), scene)


class Captions(unittest.TestCase):
    def test_parser_reads_exactly_what_the_writer_named(self):
        rng = random.Random(6)
        texts = set()
        for index in range(20000):
            scene = scenes.random_scene(rng, held_out=index % 10 == 0)
            plan = caption.plan(scene, rng)
            text = caption.word(plan, rng)
            named = caption.parse(text)
            self.assertIsNotNone(named, text)
            self.assertEqual(named.canonical(), plan.canonical(), text)
            self.assertTrue(caption.holds(named, scene), text)
            self.assertEqual(text, text.lower())
            self.assertLessEqual(len(text.split()), caption.MAX_WORDS)
            texts.add(text)
        self.assertGreater(len(texts), 18000)

    def test_what_a_caption_must_say(self):
        rng = random.Random(7)
        said = Counter()
        for _ in range(6000):
            scene = scenes.random_scene(rng)
            plan = caption.plan(scene, rng)
            self.assertEqual(len(plan.objects), len(scene.objects))
            said["all"] += 1
            if scene.kind == "objects":
                said["objects"] += 1
                said["background"] += plan.background is not None
            if len(scene.objects) == 2:
                said["two"] += 1
                said["relation"] += plan.relation is not None
            if scene.style != "flat":
                said["styled"] += 1
                said["style"] += plan.style is not None
        self.assertGreater(said["relation"], 0.85 * said["two"])
        self.assertGreater(said["style"], 0.92 * said["styled"])
        self.assertAlmostEqual(said["background"] / said["objects"], 0.9, delta=0.03)

    def test_what_people_type(self):
        named = caption.parse("Red circle on blue.")
        self.assertEqual(named, caption.Named("objects", (caption.NamedThing("circle", "red"),), background="blue"))
        named = caption.parse("a picture of a small green star on the left, on yellow stripes, watercolour painting")
        self.assertEqual(named.objects, (caption.NamedThing("star", "green", "small"),))
        self.assertEqual((named.place, named.background, named.pattern, named.style),
                         ("left", "yellow", "stripes", "watercolor"))
        named = caption.parse("a pink heart above a black square, white background")
        self.assertEqual((named.objects[0].shape, named.relation), ("heart", "above"))
        named = caption.parse("red cross on the left and blue star on the right, highly detailed")
        self.assertEqual((named.objects[0].shape, named.relation), ("cross", "left of"))
        named = caption.parse("a big purple square with a red heart below it")
        self.assertEqual((named.objects[0].size, named.relation), ("large", "above"))
        named = caption.parse("a house and a tree on green hills at sunset, outlined drawing")
        self.assertEqual((named.ground, named.things, named.time, named.style),
                         ("hills", ("house", "tree"), "sunset", "outline"))
        named = caption.parse("the moon over the sea with a boat at night")
        self.assertEqual((named.sky, named.ground, named.things, named.time), ("moon", "sea", ("boat",), "night"))

    def test_what_is_not_of_the_grammar(self):
        for text in ("", "dog", "a red dog", "a red circle and", "a red circle on red", "the moon by day",
                     "a house on the sea", "a red circle, a red circle", "a red circle above", "a red circle blue",
                     "a red circle and a blue star and a green square", "a red circle on the left on the right",
                     "a red circle on the left and a blue star at the top", "watercolor painting, flat illustration",
                     "a red circle, flat design, watercolor", "a red circle, blue background, green background"):
            self.assertIsNone(caption.parse(text), text)

    def test_holds_tells_true_from_false(self):
        scene = red_circle_on_blue()
        for text, truth in (("a red circle", True), ("red circle on blue", True), ("a red square", False),
                            ("a green circle", False), ("a red circle on yellow", False), ("a big red circle", False),
                            ("a red circle on the left", False), ("red circle, watercolor", False),
                            ("a red circle and a blue star", False), ("the sea at night", False)):
            self.assertEqual(caption.holds(caption.parse(text), scene), truth, text)


class Pictures(unittest.TestCase):
    def test_the_seed_alone_decides(self):
        rng = random.Random(8)
        for _ in range(40):
            scene = scenes.random_scene(rng)
            picture = render.render(scene, 7)
            self.assertEqual((picture.shape, picture.dtype), ((128, 128, 3), np.uint8))
            np.testing.assert_array_equal(picture, render.render(scene, 7))
            self.assertTrue((picture != render.render(scene, 8)).any())

    def test_colours_and_background_are_where_they_belong(self):
        for seed in range(20):
            picture = render.render(red_circle_on_blue(), seed).astype(int)
            self.assertLessEqual(np.abs(picture[64, 64] - scenes.COLOURS["red"]).max(), 7)
            self.assertLessEqual(np.abs(picture[8, 8] - scenes.COLOURS["blue"]).max(), 7)
            covered = (np.abs(picture - picture[64, 64]).sum(2) < 60).sum()
            self.assertAlmostEqual(covered, np.pi * 20 ** 2, delta=0.1 * np.pi * 20 ** 2)

    def test_polygon_distance_against_sampled_edges(self):
        corners = ((0.0, -1.0), (0.9, 0.7), (0.1, 0.2), (-0.8, 0.6))
        axis = np.linspace(-1.5, 1.5, 31)
        distance = render.polygon(axis[None], axis[:, None], corners)
        t = np.linspace(0, 1, 2001)[:, None]
        edge = np.concatenate([np.array(a) * (1 - t) + np.array(b) * t
                               for a, b in zip(corners, corners[1:] + corners[:1])])
        for row, y in enumerate(axis):
            for column, x in enumerate(axis):
                nearest = np.sqrt(((edge - (x, y)) ** 2).sum(1).min())
                self.assertAlmostEqual(abs(distance[row, column]), nearest, delta=2e-3)
        self.assertLess(render.polygon(0.0, 0.0, corners), 0)
        self.assertGreater(render.polygon(0.1, 0.6, corners), 0)

    def test_dataset_is_the_same_for_any_number_of_jobs(self):
        with tempfile.TemporaryDirectory() as folder:
            sets = []
            for jobs in ("1", "2"):
                out = os.path.join(folder, jobs + ".npy")
                subprocess.run([sys.executable, os.path.join(HERE, "render.py"), out, "--count", "300", "--seed", "5",
                                "--jobs", jobs], check=True)
                with open(os.path.join(folder, jobs + ".jsonl"), encoding="utf-8") as lines:
                    sets.append((np.load(out), [json.loads(line) for line in lines]))
            np.testing.assert_array_equal(sets[0][0], sets[1][0])
            self.assertEqual(sets[0][1], sets[1][1])
            self.assertEqual(sets[0][0].shape, (300, 128, 128, 3))
            scene = scenes.Scene.from_dict(sets[0][1][299])
            np.testing.assert_array_equal(sets[0][0][299], render.render(scene, (5, 299)))


class Judge(unittest.TestCase):
    def check_errors(self, soften, allowed):
        """At most the allowed share of every verdict is wrong on rendered truth."""
        wrong, judged = judge.errors(400, 3, soften)
        for part, count in judged.items():
            self.assertGreater(count, 20, part)
            self.assertLessEqual(wrong[part], max(1, allowed[part if part in allowed else "any"] * count), part)

    def test_right_on_rendered_truth(self):
        self.check_errors(False, {"any": 0.01, "size": 0.03, "sky": 0.05})

    def test_right_on_softened_pictures(self):
        self.check_errors(True, {"any": 0.03, "size": 0.05, "sky": 0.10})

    def test_wrong_captions_are_judged_wrong(self):
        rng = random.Random(9)
        checked = Counter()
        while min(checked[part] for part in ("colour", "shape", "background", "relation", "place")) < 15:
            scene = scenes.random_scene(rng)
            if scene.kind != "objects":
                continue
            picture = render.render(scene, 1)
            truth = judge.all_of(scene)
            colours = [c for c in scenes.COLOURS if c not in [t.colour for t in scene.objects] + [scene.background]]
            shapes = [s for s in scenes.SHAPES if s not in [t.shape for t in scene.objects]]
            first, rest = truth.objects[0], truth.objects[1:]
            lies = {"colour": replace(truth, objects=(replace(first, colour=rng.choice(colours)),) + rest),
                    "shape": replace(truth, objects=(replace(first, shape=rng.choice(shapes)),) + rest),
                    "background": replace(truth, background=rng.choice(colours))}
            if truth.relation:
                lies["relation"] = replace(truth, relation=rng.choice(sorted(set(scenes.RELATIONS) - {truth.relation})))
            else:
                lies["place"] = replace(truth, place=rng.choice(sorted(set(scenes.PLACES) - {truth.place})))
            for part, lie in lies.items():
                answer = getattr(judge.judge(picture, lie), part)
                self.assertIn(False, answer if isinstance(answer, tuple) else (answer,), (part, scene))
                checked[part] += 1

    def test_an_empty_or_crowded_picture(self):
        named = caption.parse("a red circle on a blue background")
        blank = np.full((128, 128, 3), scenes.COLOURS["blue"], np.uint8)
        verdict = judge.judge(blank, named)
        self.assertEqual((verdict.count, verdict.colour, verdict.shape, verdict.background, verdict.right()),
                         (False, (False,), (False,), True, False))
        two = red_circle_on_blue(objects=(scenes.Thing("circle", "red"), scenes.Thing("star", "white")), place="",
                                 relation="left of")
        verdict = judge.judge(render.render(two), named)
        self.assertEqual((verdict.count, verdict.colour, verdict.shape), (False, (True,), (True,)))
        self.assertFalse(verdict.right())
        self.assertTrue(judge.judge(render.render(red_circle_on_blue()), named).right())
        noise = np.random.default_rng(1).integers(0, 256, (128, 128, 3)).astype(np.uint8)
        self.assertFalse(judge.judge(noise, named).right())

    def test_regions_against_flood_fill(self):
        mask = np.random.default_rng(2).random((40, 50)) < 0.55
        labels, count = judge.labelled(mask)
        seen = np.zeros_like(mask)
        found = 0
        for start in zip(*np.nonzero(mask)):
            if seen[start]:
                continue
            found += 1
            seen[start] = True
            stack = [start]
            while stack:
                y, x = stack.pop()
                self.assertEqual(labels[y, x], labels[start])
                for ny, nx in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                    if 0 <= ny < 40 and 0 <= nx < 50 and mask[ny, nx] and not seen[ny, nx]:
                        seen[ny, nx] = True
                        stack.append((ny, nx))
        self.assertEqual(count, found)
        self.assertTrue((labels[~mask] == 0).all())


if __name__ == "__main__":
    unittest.main()
