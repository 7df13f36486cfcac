"""What a caption says as the text encoder's last tokens should tell it, and linear heads that read it from there: train_text.py
begins with them, train_unet.py keeps them along, so that what belongs to what is not forgotten. No file has them in the
end."""
import torch
from torch import nn
from torch.nn import functional as F

import model
import scene as scenes

OBJECT_SLOTS, SCENE_SLOT, FIRST_PATCH, PATCH = (58, 59), 60, 61, 4  # token positions
WHERE = ("", *scenes.PLACES, *scenes.RELATIONS)
OBJECT_PARTS = {"shape": ("", *scenes.SHAPES), "colour": ("", *scenes.COLOURS), "size": ("", *scenes.SIZES),
                "where": WHERE}
SCENE_PARTS = {"background": ("", *scenes.COLOURS), "pattern": ("", *scenes.BACKGROUNDS), "style": scenes.STYLES,
               "time": ("", *scenes.TIMES), "sky": ("", *scenes.SKY_OBJECTS), "ground": ("", *scenes.GROUNDS),
               "things": ((), ("house",), ("tree",), ("house", "tree"), ("boat",))}


def labels(scene):
    """[2 * len(OBJECT_PARTS) + len(SCENE_PARTS)]: the index of each part's value; of two objects the left or upper
    one comes first."""
    objects, relation = list(scene.objects), scene.relation
    if relation in ("right of", "below"):
        objects, relation = objects[::-1], scenes.OPPOSITE[relation]
    wheres = (scene.place, "") if len(objects) < 2 else (relation, scenes.OPPOSITE[relation])
    found = []
    for i in range(2):
        values = (objects[i].shape, objects[i].colour, objects[i].size, wheres[i]) if i < len(objects) else ("",) * 4
        found += [OBJECT_PARTS[part].index(value) for part, value in zip(OBJECT_PARTS, values)]
    return found + [SCENE_PARTS[part].index(getattr(scene, part)) for part in SCENE_PARTS]


OBJECTS = [0, 1, len(OBJECT_PARTS), len(OBJECT_PARTS) + 1]  # labels that say the shapes and the colours, and so the order


class Heads(nn.Module):
    WEIGHT = 0.015  # beside the UNet's error

    def __init__(self, width):
        super().__init__()
        self.objects = nn.ModuleList(nn.Linear(width, sum(map(len, OBJECT_PARTS.values()))) for _ in OBJECT_SLOTS)
        self.scene = nn.Linear(width, sum(map(len, SCENE_PARTS.values())))
        self.patches = nn.Linear(width, model.CHANNELS * PATCH * PATCH)

    def loss(self, states, wanted, latents):
        """What to bring down, and for each part which captions were read right, [n, parts] bool. wanted: labels() of each
        caption, latents [n, 4, 16, 16]."""
        parts, patches = self(states)
        named = sum(F.cross_entropy(part, wanted[:, i]) for i, part in enumerate(parts))
        right = torch.stack([part.argmax(1) == wanted[:, i] for i, part in enumerate(parts)], 1)
        return named + 10 * (patches - latents).square().mean(), right

    def forward(self, states):
        """states [n, 77, width]; returns logits of each part in the order of labels(), and latents [n, 4, 16, 16]."""
        parts = []
        for slot, head in zip(OBJECT_SLOTS, self.objects):
            parts += head(states[:, slot]).split([len(v) for v in OBJECT_PARTS.values()], 1)
        parts += self.scene(states[:, SCENE_SLOT]).split([len(v) for v in SCENE_PARTS.values()], 1)
        side = model.LATENT // PATCH
        patches = self.patches(states[:, FIRST_PATCH : FIRST_PATCH + side * side])
        patches = patches.view(-1, side, side, model.CHANNELS, PATCH, PATCH).permute(0, 3, 1, 4, 2, 5)
        return parts, patches.reshape(-1, model.CHANNELS, model.LATENT, model.LATENT)
