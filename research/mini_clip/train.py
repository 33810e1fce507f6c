"""The stages of making the small CLIPs, each of which goes on from its checkpoint after a kill."""

import math
import time
import timeit
from collections.abc import Callable
from pathlib import Path

import torch

from clipneurons.shipped import ARTIFACTS
from clipneurons.synthetic.photographs import save_photographs
from clipneurons.synthetic.pictograms import load_pictograms
from export.common.errors import UserError
from research.mini_clip import model, photographs, processes, text_tower
from research.mini_clip.image_towers import ImageTrainer, ResNetTrainer, ViTTrainer
from research.mini_clip.recipe import VALIDATION_STYLE, Recipe
from research.mini_clip.scene_bank import make_bank
from research.mini_clip.text_tower import TextTrainer
from research.mini_clip.trainer import Trainer
from research.mini_clip.word_space import Space


def training_packs(run: Path) -> list:
    """The shipped drawings, and the training-only line icons where they have been made."""
    lines = run / "lines.safetensors"
    return [load_pictograms(), *([load_pictograms(lines)] if lines.is_file() else [])]


def build_space(run: Path) -> None:
    """Where words lie; the classes of the prepared photographs among them."""
    Space.build(load_pictograms(), photographs.class_entries(run)).save(run / "space.safetensors")


def build_scenes(run: Path, count: int, device: str) -> None:
    """The scenes that the image towers learn from."""
    run.mkdir(parents=True, exist_ok=True)
    make_bank(training_packs(run), (VALIDATION_STYLE,), run, count, device)


def open_trainer(
    recipe: Recipe,
    run: Path,
    device: str = "cpu",
    start: Path | None = None,
    bfloat16: bool = False,
) -> Trainer:
    """The trainer of a recipe's stage, from its checkpoint where there is one."""
    if recipe.stage == "text":
        return TextTrainer(recipe, run, device)
    kind: type[ImageTrainer] = {"vit": ViTTrainer, "rn": ResNetTrainer}[recipe.stage]
    return kind(recipe, run, device, load_pictograms(), bfloat16, start)


def bfloat16_is_faster() -> bool:
    """Whether this processor multiplies bf16 matrices faster than float32 ones: some have units
    for it, others take a hundred times as long."""
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        a = torch.ones(256, 256, dtype=dtype)
        seconds[dtype] = min(timeit.repeat(lambda a=a: a @ a, number=1, repeat=5))
    return seconds[torch.bfloat16] < seconds[torch.float32]


def train(trainer: Trainer, every: float = 180.0, say: Callable[[str], None] = print) -> None:
    """Train to the end of the recipe; a line of figures and a checkpoint every so many seconds,
    by the first of several processes."""
    recipe, last, losses = trainer.recipe, time.monotonic(), []
    reports, images = processes.index() == 0, recipe.batch * processes.count()
    if reports:
        say(f"{recipe}\nfrom step {trainer.step}, {images} images each")
    first, begun = trainer.step, trainer.seconds
    while trainer.progress < 1:
        losses.append(trainer.train_step())
        if not math.isfinite(losses[-1]):
            raise UserError(
                f"the loss is not finite at step {trainer.step}: lower --muon or --adam; "
                f"{trainer.path} holds the last good state"
            )
        if reports and (time.monotonic() - last > every or trainer.progress >= 1):
            speed = (trainer.step - first) * images / max(trainer.seconds - begun, 1e-9)
            say(
                f"{time.strftime('%H:%M')} step {trainer.step} {trainer.progress:.1%} loss "
                f"{sum(losses) / len(losses):.3f} {trainer.validate()} {speed:.0f}/s"
            )
            trainer.save()
            first, begun, last, losses = trainer.step, trainer.seconds, time.monotonic(), []


def export(run: Path, out: Path) -> list[Path]:
    """Write out/mini-vit and out/mini-rn from the averages in the run folder.

    The text tower is the run's or, if none was trained there, the shipped one; the second folder
    shares the first one's.
    """
    kinds = [kind for kind in model.VISION if (run / f"{kind}.pt").is_file()]
    if not kinds:
        raise UserError(
            f"{run} holds no trained image tower: run `python -m research mini-clip vit` first"
        )
    trained = (run / "text.pt").is_file()
    text = text_tower.weights(run) if trained else model.text_of(ARTIFACTS / "mini-vit")
    for kind in kinds:
        state = torch.load(run / f"{kind}.pt", map_location="cpu", weights_only=True)
        shared = f"mini-{kinds[0]}" if kind != kinds[0] else None
        model.export(kind, state["average"], text, out / f"mini-{kind}", shared)
    return [out / f"mini-{kind}" for kind in kinds]


def pack_photographs(packs: list[Path], out: Path) -> int:
    """Write the photographs that may be shipped; how many they are."""
    chosen = [
        found for pack in photographs.open_packs(packs) if (found := photographs.shipped(pack))
    ]
    if len(chosen) != 1:
        raise UserError(f"{len(chosen)} of the packs hold Caltech-101; expected exactly one")
    save_photographs(out / "photographs.safetensors", chosen[0])
    return len(chosen[0])
