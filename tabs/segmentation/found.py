"""What a search in an image finds, as data and as files."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from clipneurons.images.convert import to_rgb
from clipneurons.segmentation.methods import method_names
from tabs.server.session import BundleSession

if TYPE_CHECKING:
    from clipneurons.bundle.config import BundleConfig
    from clipneurons.segmentation.presence import Presence
    from clipneurons.segmentation.segmenters import Segmentation, Segmenter

_MASKS = 100  # names beyond which masks are not written out


@dataclass(frozen=True)
class Found:
    """What a visitor's last search found, kept for the sliders, clicks and downloads.

    `presence` says of each name whether it is in the picture at all.
    """

    bundle: str
    image: Image.Image
    result: Segmentation
    presence: list[Presence]


def methods_of(config: BundleConfig) -> tuple[str, ...]:
    """Names of the methods for a bundle's model, the best first."""
    return method_names(config.kind, config.pooling)


def methods(session: BundleSession) -> dict[str, Segmenter]:
    """The methods for a session's model, made once."""
    from clipneurons.segmentation.segmenters import segmenters

    return session.cached("segmenters", lambda: segmenters(session.clip, session.bundle.directions))


def contrast_texts(session: BundleSession):
    """What class names are held against: the bundle's class names, else its phrases."""
    from clipneurons.text.embedding import embed_texts

    def make():
        names = session.bundle.config.data.class_names
        if len(names) < 2:
            return session.bundle.text_embeddings
        return embed_texts(session.clip, list(names), "photo")

    return session.cached("contrast texts", make)


def names_of(words: str | None) -> list[str]:
    """The names between commas."""
    return [name for name in (words or "").split(",") if name.strip()]


def search(
    session: BundleSession,
    image: Image.Image | None,
    words: str,
    method: str,
    finer: bool,
    refine: bool,
) -> Found:
    """Segment an image by comma-separated words."""
    from clipneurons.segmentation.presence import presences
    from clipneurons.segmentation.segmenters import segment

    if image is None:
        raise ValueError("Choose an image first.")
    names = names_of(words)
    if not names:
        raise ValueError("Write what to look for, such as: cat, tree")
    known = methods(session)
    if method not in known:
        raise ValueError(f"There is no method {method!r} here. Choose one of: {', '.join(known)}")
    result = segment(
        session.clip, image, names, known[method], others=contrast_texts(session),
        scale=2.0 if finer else None, refine=refine,
    )  # fmt: skip
    shown = to_rgb(image).resize(result.scores.shape[:0:-1])
    there = presences(session.clip, image, result.names, session.bundle.text_embeddings)
    return Found(session.key, shown, result, there)


def found_data(found: Found, threshold: float) -> dict:
    """What was found, as the API gives it."""
    from clipneurons.segmentation.masks import rle

    names = found.result.names
    if len(names) > _MASKS:
        raise ValueError(f"At most {_MASKS} names at once, please, not {len(names)}.")
    rows = []
    for index, (name, presence) in enumerate(zip(names, found.presence, strict=True)):
        mask = found.result.mask(index, threshold)
        rows.append({
            "name": name, "mask": rle(mask), "share": mask.float().mean().item(),
            "cosine": presence.cosine, "texts_that_agree_more": presence.above,
            "fit": presence.fit, "rival": presence.rival, "present": presence.present,
        })  # fmt: skip
    return {"bundle": found.bundle, "threshold": threshold, "classes": rows}


def files(found: Found, threshold: float) -> tuple[str, str]:
    """Two files: the first name's mask as PNG, and all masks as COCO's JSON."""
    import torch

    from clipneurons.images.heatmap import mask_image
    from clipneurons.segmentation.masks import coco_annotations

    result = found.result
    masks = torch.stack([result.mask(i, threshold) for i in range(min(len(result.names), _MASKS))])
    folder = Path(tempfile.mkdtemp(prefix="clipneurons-"))
    picture, annotations = folder / "mask.png", folder / "masks.json"
    mask_image(masks[0]).save(picture)
    annotations.write_text(json.dumps(coco_annotations(masks, result.names)))
    return str(picture), str(annotations)
