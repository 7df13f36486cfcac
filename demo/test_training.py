"""Tests of what the demo models are trained with: kernels.c against PyTorch, and the steps between the programs."""
import json
import os
import struct
import tempfile
import unittest

import numpy as np
import torch
import torch.nn.functional as F

import encode
import export
import fast
import heads
import model
import muon
import networks
import png
import probe
import scene
import team
import train_unet

BF16 = 4e-3  # relative error of a sum of bfloat16 results


def gradients(function, inputs, slope):
    """The function's value and the gradients of all its inputs."""
    inputs = [x.clone().requires_grad_() for x in inputs]
    y = function(*inputs)
    y.backward(slope.to(y.dtype))
    return [y.detach(), *(x.grad for x in inputs)]


class KernelTest(unittest.TestCase):
    """Fresh random numbers each time; the reference computes in double precision."""

    def compare(self, ours, reference, inputs, slope):
        got = gradients(ours, inputs, slope)
        want = gradients(reference, [x.double() for x in inputs], slope)
        for a, b in zip(got, want):
            self.assertLess(float((a.double() - b).norm() / b.norm()), BF16)

    def test_group_norm(self):
        for silu in (False, True):
            x, slope = (torch.randn(3, 64, 7, 5).bfloat16() for _ in range(2))
            self.compare(lambda x, g, b: fast.GroupNormFunction.apply(x, g, b, 32, 1e-5, silu),
                         lambda x, g, b: (F.silu if silu else nn_identity)(F.group_norm(x, 32, g, b, 1e-5)),
                         [x, torch.randn(64), torch.randn(64)], slope)

    def test_layer_norm(self):
        x, slope = (torch.randn(2, 33, 48).bfloat16() for _ in range(2))
        self.compare(lambda x, g, b: fast.LayerNormFunction.apply(x, g, b, 1e-5),
                     lambda x, g, b: F.layer_norm(x, (48,), g, b, 1e-5), [x, torch.randn(48), torch.randn(48)], slope)

    def test_geglu(self):
        x, slope = 2 * torch.randn(2, 9, 64), torch.randn(2, 9, 32).bfloat16()
        self.compare(fast.GegluFunction.apply, lambda x: (lambda value, gate: value * F.gelu(gate))(*x.chunk(2, -1)),
                     [x.bfloat16()], slope)

    def test_attention(self):
        for heads, d, queries, keys, causal in ((8, 8, 64, 77, False), (2, 48, 77, 77, True), (1, 32, 5, 5, False)):
            q, slope = (torch.randn(2, queries, heads * d).bfloat16() for _ in range(2))
            k, v = (torch.randn(2, keys, heads * d).bfloat16() for _ in range(2))
            self.compare(lambda q, k, v: fast.fast_attention(q, k, v, heads, causal),
                         lambda q, k, v: REFERENCE_ATTENTION(q, k, v, heads, causal), [q, k, v], slope)

    def test_muon_brings_a_network_down(self):
        torch.manual_seed(0)
        net = torch.nn.Sequential(torch.nn.Linear(16, 64), torch.nn.SiLU(), torch.nn.Linear(64, 16))
        optimizer, x = muon.Muon(list(net.parameters()), 0.9), torch.randn(256, 16)
        losses = []
        for _ in range(100):
            loss = (net(x) - x.flip(1)).square().mean()
            loss.backward()
            optimizer.step(1e-3)
            losses.append(float(loss))
        self.assertLess(losses[-1], 0.2 * losses[0])
        net.load_state_dict(optimizer.average(net))
        self.assertLess(float((net(x) - x.flip(1)).square().mean()), losses[0])

    def test_a_team_does_what_one_does_with_the_whole_batch(self):
        """Compared is how far the weights moved: a gradient that rounds to the other bfloat16 moves Muon by 1 to 2 %."""
        x = torch.randn(64, 16)
        (alone, norms), (both, norms_of_both) = (self.trained(size, x) for size in (1, 2))
        torch.testing.assert_close(norms_of_both, norms, rtol=1e-2, atol=0)
        self.assertLess(float((both - alone).norm() / alone.norm()), 6e-2)

    def trained(self, size, x):
        """How far the weights moved in a few steps by `size` processes, each with its part of x; the gradients' norms."""
        torch.manual_seed(0)
        net, together = torch.nn.Linear(16, 40), team.Team(size)
        optimizer = muon.Muon(list(net.parameters()), 0.9, together)
        before, norms = optimizer.w.clone(), []
        together.start()
        optimizer.bind()
        for _ in range(5):
            (net(x.chunk(size)[together.rank]) ** 2).mean().backward()
            norms.append(optimizer.step(1e-3))
        if together.rank:
            os._exit(0)
        for _ in range(1, size):
            self.assertEqual(os.wait()[1], 0)
        return optimizer.w - before, torch.tensor(norms)

    def test_orthogonal(self):
        singular = torch.linalg.svdvals(muon.orthogonal(torch.randn(3, 24, 100).bfloat16()).float())
        self.assertGreater(float(singular.min()), 0.5)
        self.assertLess(float(singular.max()), 1.4)


def nn_identity(x):
    return x


REFERENCE_ATTENTION = networks.attention


class StepTest(unittest.TestCase):
    def test_folding_leaves_pictures_as_they_are(self):
        vae = model.prepare(model.Vae())
        for part in vae.modules():
            if isinstance(part, networks.VaeResnet):
                torch.nn.init.normal_(part.conv2.weight, std=0.02)
        data = np.random.default_rng().integers(0, 256, (encode.MEASURED, 16, 16, 3), dtype=np.uint8)
        x = torch.randn(2, 3, 16, 16, device=model.DEVICE)

        def through():
            with torch.no_grad(), model.autocast():
                mean, log_variance = vae.quant_conv(vae.encoder(x)).chunk(2, 1)
                y = vae.decoder(vae.post_quant_conv(mean + torch.exp(0.5 * log_variance) * 0.3))
            return mean.float(), y.float()

        before = through()
        encode.fold(vae, data)
        after = through()
        self.assertLess(float((before[1] - after[1]).norm() / before[1].norm()), 0.05)  # bfloat16, 50 layers
        self.assertGreater(float((before[0] - after[0]).abs().max()), 0.1)
        scaled = encode.moments(vae, data, 0, encode.MEASURED)[:, :4] * vae.scale
        self.assertLess(float(scaled.mean((0, 2, 3)).abs().max()), 0.05)

    def test_pictures_come_back_from_png(self):
        picture = np.random.default_rng().integers(0, 256, (16, 24, 3), dtype=np.uint8)
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "a.png")
            png.write(path, picture)
            np.testing.assert_array_equal(png.read(path), picture)

    def test_f8_numbers(self):
        x = torch.tensor([0.0, 2**-9, 2**-6, 1.0, 1.0624, 1.0626, -1.5, 448.0, 1000.0, -2**-11])
        codes = [0x00, 0x01, 0x08, 0x38, 0x38, 0x39, 0xBC, 0x7E, 0x7E, 0x80]
        self.assertEqual(model.f8_codes(x).tolist(), codes)
        torch.testing.assert_close(model.f8_values(torch.tensor(codes[:4])), x[:4])

    def test_labels_put_the_left_or_upper_object_first(self):
        circle, star = scene.Thing("circle", "red", "small"), scene.Thing("star", "blue")
        above = scene.Scene("objects", "flat", (circle, star), relation="above", background="white", pattern="plain")
        below = scene.Scene("objects", "flat", (star, circle), relation="below", background="white", pattern="plain")
        self.assertEqual(heads.labels(above), heads.labels(below))
        one = heads.labels(scene.Scene("objects", "flat", (star,), place="left", background="white", pattern="plain"))
        self.assertEqual(one[:2], [1 + scene.SHAPES.index("star"), 1 + list(scene.COLOURS).index("blue")])
        self.assertEqual(one[4:8], [0] * 4)

    def test_heads_read_what_is_in_the_states(self):
        """A patch's latent comes from its own token, and lies where it belongs."""
        readers = heads.Heads(model.TEXT_WIDTH)
        states = torch.zeros(1, model.TOKENS, model.TEXT_WIDTH)
        states[0, heads.FIRST_PATCH + 6, 3] = 1  # row 1, column 2 of the 4x4 squares
        drawn = (readers(states)[1] - readers(torch.zeros_like(states))[1]).abs().sum((0, 1)) > 0
        self.assertEqual(drawn.nonzero().min(0).values.tolist(), [4, 8])
        self.assertEqual(drawn.nonzero().max(0).values.tolist(), [7, 11])

    def test_captions_are_read_right_when_every_part_is(self):
        readers, wanted = heads.Heads(model.TEXT_WIDTH), torch.zeros(2, 15, dtype=torch.long)
        for part in (*readers.objects, readers.scene):  # whatever they are shown, they see the first of each part
            torch.nn.init.zeros_(part.weight)
            torch.nn.init.zeros_(part.bias)
        wanted[1, heads.OBJECTS[-1]] = 3
        latents = torch.zeros(2, model.CHANNELS, model.LATENT, model.LATENT)
        right = readers.loss(torch.zeros(2, model.TOKENS, model.TEXT_WIDTH), wanted, latents)[1]
        self.assertEqual(right.shape, (2, 15))
        self.assertEqual(right[:, heads.OBJECTS].all(1).tolist(), [True, False])

    def test_probe_tells_what_states_say(self):
        labels = torch.randint(0, 4, (1200, 15))
        said = torch.nn.functional.one_hot(labels[:, heads.OBJECTS]).flatten(1).float() + 0.1 * torch.randn(1200, 16)
        for states, least, most in ((said, 0.99, 1.0), (torch.randn(1200, 16), 0.1, 0.4)):
            for share in probe.accuracies(states[:800], labels[:800], states[800:], labels[800:]):
                self.assertGreaterEqual(share, least)
                self.assertLessEqual(share, most)

    def test_time_steps_where_the_scene_is_laid_out_come_up_more_often(self):
        shares = train_unet.signal_shares()
        often, weights = train_unet.time_steps_often(shares), train_unet.layout_weights(shares)
        self.assertAlmostEqual(float(often[999] / train_unet.min_snr_weights(shares)[999]), train_unet.LAYOUT_OFTEN, 4)
        self.assertAlmostEqual(float((often * weights).sum() / often.sum()), 1, 4)  # the error's mean stays what it was

    def test_sketches_bring_the_coarse_levels_down(self):
        torch.manual_seed(0)
        unet, x = model.prepare(model.unet()), torch.randn(2, model.CHANNELS, model.LATENT, model.LATENT)
        sketches, context = train_unet.Sketches(unet), torch.randn(2, model.TOKENS, model.TEXT_WIDTH)
        optimizer = muon.Muon([*unet.parameters(), *sketches.parameters()], 0.9)
        losses = []
        for _ in range(12):
            with model.autocast():
                unet(torch.zeros_like(x).contiguous(memory_format=torch.channels_last), torch.zeros(2), context)
            losses.append(sketches.loss(x))
            losses[-1].backward()
            optimizer.step(1e-3)
        self.assertLess(float(losses[-1]), 0.8 * float(losses[0]))

    def test_checkpoint_has_the_names_of_stable_diffusion(self):
        vae, text, unet = model.Vae().state_dict(), model.clip().state_dict(), model.unet().state_dict()
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "a.safetensors")
            export.write(path, export.checkpoint(vae, text, unet))
            with open(path, "rb") as file:
                header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
            again = model.read_checkpoint(path)
        for part, weights in (("vae", vae), ("text", text), ("unet", unet)):
            self.assertEqual(set(again[part]), set(weights))
            for name, p in weights.items():
                f8 = name == model.TOKEN_EMBEDDING
                torch.testing.assert_close(again[part][name], p, rtol=0.07 if f8 else 1e-3, atol=1e-3 if f8 else 1e-6)
        self.assertEqual(header["cond_stage_model.transformer.text_model." + model.TOKEN_EMBEDDING]["dtype"], "F8_E4M3")
        self.assertEqual(header["__metadata__"]["modelspec.resolution"], "128x128")
        for name in ("model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight",
                     "first_stage_model.decoder.up.0.block.2.nin_shortcut.weight",
                     "cond_stage_model.transformer.text_model.encoder.layers.3.mlp.fc2.bias"):
            self.assertIn(name, header)


if __name__ == "__main__":
    unittest.main()
