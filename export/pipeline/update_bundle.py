"""Change a bundle in its folder: other figures, other texts, the card rendered again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from clipneurons.bundle.bundle import Bundle, load_bundle, save_bundle
from clipneurons.bundle.config import MODEL_CARD, check_clip
from clipneurons.bundle.hub import resolve
from clipneurons.models.clip import ClipModel
from export.common.errors import UserError
from export.common.models import open_clip_model
from export.pipeline.card import local_name, render_card

SKIPPED = "skipped.csv"


def open_bundle(source: str | Path, device: str | None = None) -> tuple[Bundle, ClipModel]:
    """A bundle, from a folder or the Hub, and the model it was made with."""
    bundle = load_bundle(source)
    return bundle, open_model(bundle, source, device)


def open_model(bundle: Bundle, source: str | Path, device: str | None = None) -> ClipModel:
    """The model that the bundle at `source` was made with, checked against it."""
    config = bundle.config
    folder = resolve(source, weights=True) if config.carries_model else Path()
    clip = open_clip_model(
        str(config.model_of(folder)), config.pretrained, device, **config.load_options
    )
    check_clip(config, clip)
    return clip


def rewrite(bundle: Bundle, folder: Path, repository: str | None = None) -> Bundle:
    """Save a changed bundle where it was, with its card rendered from what it now holds."""
    bundle = replace(bundle, card=card_of(bundle, folder, repository or local_name(folder)))
    path = folder / SKIPPED
    save_bundle(bundle, folder, {SKIPPED: path.read_bytes()} if path.is_file() else None)
    return bundle


def card_of(bundle: Bundle, folder: Path, repository: str) -> str:
    """The card under the name by which `load_bundle` will find the bundle."""
    command = bundle.metrics.get("command", "")
    return render_card(bundle, bundle.metrics, command, repository, model_card(folder))


def model_card(folder: str | Path) -> str:
    """The text of the model's own card, where the folder has one."""
    path = Path(folder) / MODEL_CARD
    return path.read_text() if path.is_file() else ""


def local_folder(text: str) -> Path:
    """The folder of a bundle that is to be changed; one on the Hub cannot be."""
    folder = Path(text)
    if not folder.is_dir():
        raise UserError(f"--bundle {text} is no folder; download it first to change it")
    return folder
