"""The map of all units: directions laid out in two dimensions, near ones beside each other."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from clipneurons.bundle.bundle import Bundle
from clipneurons.bundle.stacked_units import StackedUnits

# Fewer units are laid out by their principal components alone; dimensions that t-SNE reads.
_FEW, _DIMENSIONS = 500, 50


def with_map(bundle: Bundle) -> Bundle:
    """The bundle with its units' places on a map; dead units are at (0, 0)."""
    directions = StackedUnits.of(bundle.layers).directions
    alive = directions.any(1)
    places = torch.zeros(len(directions), 2)
    places[alive] = unit_places(directions[alive]).half().float()
    counts = [len(arrays.directions) for arrays in bundle.layers.values()]
    return replace(bundle, positions=dict(zip(bundle.layers, places.split(counts), strict=True)))


def unit_places(directions: Float[Tensor, "unit embed"]) -> Float[Tensor, "unit 2"]:
    """Places in [-1, 1] x [-1, 1]: t-SNE of unit rows, started from their principal components.

    Euclidean distances between unit rows order them as cosines do. Fewer than 500 rows are laid
    out by their first two components.
    """
    components = _components(directions)
    places = components[:, :2]
    if len(directions) >= _FEW:
        from sklearn.manifold import TSNE

        layout = TSNE(init="pca", perplexity=30.0, random_state=0)
        places = torch.from_numpy(layout.fit_transform(components.numpy()))
    places = places - (places.amax(0) + places.amin(0)) / 2 if len(places) else places
    return places / places.abs().amax().clamp_min(1e-12) if len(places) else places


def _components(rows: Float[Tensor, "unit embed"]) -> Float[Tensor, "unit component"]:
    """Centred rows in the basis of their principal components, each with a fixed sign."""
    centred = rows - rows.mean(0)
    _, _, basis = torch.linalg.svd(centred.double(), full_matrices=False)
    basis = basis[:_DIMENSIONS]
    largest = basis.gather(1, basis.abs().argmax(1, keepdim=True))
    components = centred.double() @ (basis * largest.sign()).T
    missing = max(0, 2 - components.shape[1])
    return torch.nn.functional.pad(components, (0, missing)).float()
