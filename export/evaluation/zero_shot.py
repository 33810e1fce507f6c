"""The classes that images are sorted into, as text embeddings."""

from __future__ import annotations

import torch
from torch import Tensor

from clipneurons.bundle.bundle import Bundle
from clipneurons.models.clip import ClipModel
from clipneurons.text.embedding import embed_texts


def templates_of(
    names: tuple[str, ...], clip: ClipModel, bundle: Bundle, chosen: str | None = None
) -> str | None:
    """Prompts of classes: the chosen ones, else those that fit the model; None without classes."""
    if not names:
        return None
    fitting = "photo" if bundle.config.model == "." or bundle.config.ships_model else "simple"
    return chosen or ("siglip" if clip.siglip else fitting)


def class_embeddings(
    names: tuple[str, ...], clip: ClipModel, bundle: Bundle, templates: str | None = None
) -> Tensor:
    """Unit rows to choose among: the classes' prompts, or the bundle's texts without classes."""
    if not names:
        return torch.nn.functional.normalize(bundle.text_embeddings, dim=1).to(clip.device)
    return embed_texts(clip, list(names), templates_of(names, clip, bundle, templates))
