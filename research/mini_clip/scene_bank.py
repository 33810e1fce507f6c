"""Scenes composed once and kept, so that both image towers read them instead of composing."""

from dataclasses import fields
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from tqdm import tqdm

from clipneurons.synthetic.pictograms import Pictograms
from export.common.errors import UserError
from research.mini_clip.scene_batches import SIZE, Facts, Sprites, compose_batch

SCENES, FACTS = "scenes.npy", "scenes.safetensors"
CLEAN = 0.25  # of a bank, at its beginning: one large drawing on plain ground, nearly as drawn


def clean_in(count: int) -> int:
    """How many scenes of a bank are clean."""
    return round(count * CLEAN)


def make_bank(
    packs: list[Pictograms], exclude: tuple[str, ...], run: Path, count: int, device: str
):
    """Compose `count` scenes once, into `run`: clean ones, then easy and hard ones of one to three
    objects."""
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    images = np.lib.format.open_memmap(
        run / "scenes.tmp.npy", mode="w+", dtype=np.uint8, shape=(count, 3, SIZE, SIZE)
    )
    made = []
    with torch.device(device):
        sprites = Sprites.load(packs, exclude)
        for start in tqdm(range(0, count, 256), "composing", disable=None):
            size = min(256, count - start)
            objects, easy, vary, emoji = 1, 1.0, 0.15, 1.0
            if start >= clean_in(count):
                objects = int(rng.choice([1, 2, 3], p=[0.75, 0.2, 0.05]))
                easy, vary, emoji = rng.random() ** 0.7, 0.6, 0.75 if packs[1:] else 1.0
            image, facts = compose_batch(sprites, size, objects, rng, easy, vary, emoji)
            images[start : start + size] = image.cpu().numpy()
            made.append(facts)
    images.flush()
    (run / "scenes.tmp.npy").replace(run / SCENES)
    columns = {f.name: torch.cat([getattr(m, f.name) for m in made]).cpu() for f in fields(Facts)}
    save_file(columns, str(run / FACTS))


def load_facts(run: Path) -> Facts:
    """What the scenes of a bank show; `UserError` where there is none."""
    if not (run / FACTS).is_file():
        raise UserError(
            f"{run / FACTS} is missing: run `python -m research mini-clip scenes` first"
        )
    return Facts(**load_file(str(run / FACTS)))
