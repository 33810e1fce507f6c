"""Which images the fidelity figures are measured on, and the classes they are sorted into."""

from __future__ import annotations

import torch
from torch import Tensor

from clipneurons.bundle.bundle import Bundle
from clipneurons.models.clip import ClipModel
from clipneurons.text.embedding import embed_texts
from export.common.settings import Settings
from export.data.dataset import Source
from export.data.open_source import SCENES, is_scenes, open_source, ships

# Scenes for the figures: with one object each, from a seed of their own.
HELDOUT_SCENES = f"{SCENES}:1000"


def heldout_images(settings: Settings, clip: ClipModel) -> Source:
    """Images that the statistics did not see, where there are any."""
    spec = settings.heldout or settings.images
    if not settings.heldout and ships(spec):
        parts = spec.split("+")
        spec = "+".join(HELDOUT_SCENES if is_scenes(part) else part for part in parts)
    own = spec == settings.images
    return open_source(
        spec,
        split=settings.split if own else None,
        limit=settings.limit if own else None,
        seed=settings.seed + 1,
        image_size=max(clip.image_size),
        heldout=ships(spec),
    )


def class_embeddings(
    names: tuple[str, ...], clip: ClipModel, bundle: Bundle, templates: str | None = None
) -> Tensor:
    """Unit rows to choose among: the classes' prompts, or the bundle's texts without classes."""
    if not names:
        return torch.nn.functional.normalize(bundle.text_embeddings, dim=1).to(clip.device)
    if templates is None:
        templates = "photo" if bundle.config.model == "." else "simple"
    return embed_texts(clip, list(names), templates)
