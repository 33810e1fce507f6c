"""Part of `evaluate --labels`: a name for each group of a unit's top images, tested."""

from __future__ import annotations

from io import BytesIO

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize
from tqdm import tqdm

from clipneurons.bundle.bundle import Bundle
from clipneurons.bundle.image_groups import NAMED, SHOWN, ImageGroups, shown_images
from clipneurons.labels.assess import Parts
from clipneurons.labels.groups import Grouped, NamedGroups, group_top_images, name_groups
from clipneurons.models.clip import ClipModel
from clipneurons.statistics.clustering import chance_separation
from clipneurons.stats.centring import without_shared

_BATCH = 64


def measure(
    bundle: Bundle, clip: ClipModel, parts: Parts
) -> tuple[dict, dict[int, ImageGroups | None]]:
    """Figures for `metrics.json`, and the groups of every unit of every layer.

    A bundle without thumbnails has no groups.
    """
    if not len(bundle.examples):
        return {}, dict.fromkeys(bundle.layers)
    shown = [
        [image for image, _ in shown_images(*row, bundle.examples)]
        for arrays in bundle.layers.values()
        for row in zip(arrays.top_activating_images, arrays.top_norms, strict=True)
    ]
    images = sorted({image for mine in shown for image in mine})
    place = {image: row for row, image in enumerate(images)}
    top = torch.full((len(shown), SHOWN), -1)
    for unit, mine in enumerate(shown):
        top[unit, : len(mine)] = torch.tensor([place[image] for image in mine])
    embeddings = _thumbnails(bundle, clip, images)
    points = without_shared(embeddings)
    grouped = group_top_images(top, points, chance_separation(points, SHOWN))
    best, names = name_groups(grouped, parts, normalize(bundle.text_embeddings, dim=1))
    return _figures(best, names, len(shown), grouped), _by_layer(bundle, grouped, names[best])


def in_words(found: dict) -> str:
    """A line for the terminal."""
    if not found:
        return "labels   groups of top images: the bundle keeps no thumbnails"
    best = found["ways"][found["way"]]
    return (
        f"labels   {found['units']:,} units have {found['groups']:,} groups of top images;"
        f" {best['named']:.1%} of these get a name ({found['way']}, mean purity"
        f" {best['purity']:.3f}; other groups' names {found['ways']['shuffled']['purity']:.3f})"
    )


@torch.no_grad()
def _thumbnails(
    bundle: Bundle, clip: ClipModel, images: list[int]
) -> Float[Tensor, "thumbnail embed"]:
    """Unit embeddings of gallery pictures."""
    found = []
    for start in tqdm(
        range(0, len(images), _BATCH), desc="thumbnails", unit="batches", disable=None
    ):
        pictures = (bundle.examples[image] for image in images[start : start + _BATCH])
        pixels = [clip.preprocess(Image.open(BytesIO(one)).convert("RGB")) for one in pictures]
        found.append(normalize(clip.encode_image(torch.stack(pixels)), dim=1).cpu())
    return torch.cat(found)


def _figures(best: str, names: dict[str, NamedGroups], units: int, grouped: Grouped) -> dict:
    def mean(values: Tensor) -> float:
        known = values[values.isfinite()]
        return round(float(known.mean()), 4) if len(known) else 0.0

    return {
        "units": len(grouped.unit.unique()),
        "of_units": units,
        "groups": len(grouped.unit),
        "way": best,
        "ways": {
            way: {
                "purity": mean(one.purity),
                "auc": mean(one.auc),
                "named": round(float((one.purity >= NAMED).float().mean()), 4)
                if len(one.purity)
                else 0.0,
            }
            for way, one in names.items()
        },
    }


def _by_layer(
    bundle: Bundle, grouped: Grouped, names: NamedGroups
) -> dict[int, ImageGroups | None]:
    columns = {
        "images": grouped.images,
        "text": grouped.columns(names.text, -1),
        "purity": grouped.columns(names.purity, torch.nan),
        "auc": grouped.columns(names.auc, torch.nan),
    }
    return {layer: ImageGroups(**mine) for layer, mine in bundle.by_layer(columns).items()}
