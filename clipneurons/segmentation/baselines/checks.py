"""Refuse a baseline on a model that it has no rule for."""

from clipneurons.models.clip import ClipModel
from clipneurons.segmentation.methods import why_not


def check_method(name: str, clip: ClipModel) -> None:
    """Raise ValueError, with the reason, where a method cannot read a ViT."""
    reason = why_not(name, clip.anatomy.pooling.kind, clip.anatomy.plain)
    if reason:
        raise ValueError(f"{reason} ({clip.name}): choose another method")
