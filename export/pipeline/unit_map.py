"""The map of all units: those that point to the same texts lie beside each other."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from clipneurons.bundle.bundle import Bundle
from clipneurons.bundle.stacked_units import StackedUnits

# Fewer units are laid out by principal components alone; dimensions that t-SNE reads, its steps.
_FEW, _DIMENSIONS, _STEPS = 500, 50, 500


def with_map(bundle: Bundle) -> Bundle:
    """The bundle with its units' places on a map; dead units are at (0, 0)."""
    directions = StackedUnits.of(bundle.layers).directions
    alive = directions.any(1)
    places = torch.zeros(len(directions), 2)
    profiles = text_profiles(directions[alive], bundle.text_embeddings)
    places[alive] = unit_places(profiles).half().float()
    counts = [len(arrays.directions) for arrays in bundle.layers.values()]
    return replace(bundle, positions=dict(zip(bundle.layers, places.split(counts), strict=True)))


def text_profiles(
    directions: Float[Tensor, "unit embed"], texts: Float[Tensor, "text embed"]
) -> Float[Tensor, "unit text"]:
    """What each direction points to, as unit rows: its squared positive cosines with the texts.

    Directions themselves are near to orthogonal, so that a map of them shows no structure. Texts
    are taken without what all share; squares leave the few that a direction means.
    """
    texts = torch.nn.functional.normalize(texts - texts.mean(0), dim=1)
    return torch.nn.functional.normalize((directions @ texts.T).clamp_min(0).square(), dim=1)


def unit_places(rows: Float[Tensor, "unit column"]) -> Float[Tensor, "unit 2"]:
    """Places in [-1, 1] x [-1, 1]: t-SNE of unit rows, started from their principal components.

    Euclidean distances between unit rows order them as cosines do. Fewer than 500 rows are laid
    out by their first two components.
    """
    components = _components(rows)
    places = components[:, :2]
    if len(rows) >= _FEW:
        from sklearn.manifold import TSNE

        layout = TSNE(init="pca", perplexity=30.0, max_iter=_STEPS, random_state=0)
        places = torch.from_numpy(layout.fit_transform(components.numpy()))
    places = places - (places.amax(0) + places.amin(0)) / 2 if len(places) else places
    return places / places.abs().amax().clamp_min(1e-12) if len(places) else places


def _components(rows: Float[Tensor, "unit column"]) -> Float[Tensor, "unit component"]:
    """Centred rows in the basis of their principal components, each with a fixed sign."""
    centred = rows - rows.mean(0)
    _, _, basis = torch.linalg.svd(centred.double(), full_matrices=False)
    basis = basis[:_DIMENSIONS]
    largest = basis.gather(1, basis.abs().argmax(1, keepdim=True))
    components = centred.double() @ (basis * largest.sign()).T
    missing = max(0, 2 - components.shape[1])
    return torch.nn.functional.pad(components, (0, missing)).float()
