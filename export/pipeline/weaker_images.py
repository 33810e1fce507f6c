"""Images with a middling and with a weak effect of each unit, for its dashboard.

The top-activating images alone make a unit look purer than it is. A few images of the gallery, the
same for all units, are read once; the unit's histogram says where each lies in its range.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from clipneurons.bundle.bundle import Bundle
from clipneurons.bundle.layer_arrays import LayerArrays
from clipneurons.bundle.weaker_images import FEW, MIDDLE, PAD, sampled
from clipneurons.concepts.concepts import ConceptReader
from export.pipeline.gallery import DecodedGallery

_BATCH = 16


def with_weaker_images(bundle: Bundle, reader: ConceptReader, gallery: DecodedGallery) -> Bundle:
    """The bundle with its layers' `middle_images` and `weak_images`."""
    images, edges = sampled(bundle.examples), torch.tensor(bundle.config.norm_edges)
    norms: dict[int, list[Tensor]] = {layer: [] for layer in bundle.layers}
    for first in range(0, len(images), _BATCH):
        batch = [gallery[image] for image in images[first : first + _BATCH]]
        pixels = torch.stack([reader.lens.clip.preprocess(image) for image in batch])
        for layer, effects in reader(pixels)[1].items():
            norms[layer].append(effects.norms.cpu())
    layers = {
        layer: _with_images(arrays, torch.cat(norms[layer]), edges)
        for layer, arrays in bundle.layers.items()
    }
    return replace(bundle, layers=layers)


def _with_images(
    arrays: LayerArrays, norms: Float[Tensor, "image unit"], edges: Float[Tensor, " edge"]
) -> LayerArrays:
    below = shares_below(norms, arrays.norm_histogram, edges)
    low, high = MIDDLE
    middle = torch.where((below >= low) & (below <= high), (below - 0.5).abs(), torch.inf)
    weak = torch.where(below < low, norms, torch.inf)
    return replace(
        arrays,
        middle_images=least(middle, norms).int(),
        weak_images=least(weak, norms).int(),
    )


def shares_below(
    norms: Float[Tensor, "image unit"],
    histogram: Int[Tensor, "unit bin"],
    edges: Float[Tensor, " edge"],
) -> Float[Tensor, "image unit"]:
    """Share of the data set in which a unit's effect is smaller, half of the own bin counted."""
    counts = histogram.double()
    shares = (counts.cumsum(1) - counts / 2) / counts.sum(1, keepdim=True).clamp_min(1)
    bins = torch.bucketize(norms.T.contiguous(), edges[1:-1])
    return shares.gather(1, bins).T.float()


def least(
    order: Float[Tensor, "image unit"], norms: Float[Tensor, "image unit"]
) -> Int[Tensor, "unit few"]:
    """The images of least finite `order` of each unit, the largest norm first; −1 pads."""
    count = min(FEW, len(order))
    values, images = order.T.topk(count, dim=1, largest=False)
    chosen = torch.full((order.shape[1], FEW), PAD)
    kept = values.isfinite()
    sizes = torch.where(kept, norms.T.gather(1, images), -torch.inf)
    ranks = sizes.argsort(dim=1, descending=True, stable=True)
    chosen[:, :count] = torch.where(kept, images, PAD).gather(1, ranks)
    return chosen
