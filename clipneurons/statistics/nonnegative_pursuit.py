"""Non-negative matching pursuit: ``r ≈ Σ_j γ_j · text_j`` with every γ_j ≥ 0.

As orthogonal matching pursuit (`omp`), but a text is chosen by its largest positive inner product
with what is left, and the coefficients are the non-negative least squares of the chosen texts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

# Sweeps of coordinate descent: a few between steps, each from the step before, and more for
# coefficients that are kept.
_SWEEPS, _KEPT_SWEEPS = 8, 100
# A text whose inner product with a unit residual is smaller adds nothing.
_SMALLEST = 1e-6


@torch.no_grad()
def nonnegative_pursuit(
    targets: Float[Tensor, "target embed"],
    texts: Float[Tensor, "text embed"],
    sizes: Sequence[int],
    *,
    batch: int = 1024,
    progress: Callable[[int], object] | None = None,
) -> tuple[Int[Tensor, "target largest"], dict[int, Float[Tensor, "target _"]]]:
    """Non-negative decompositions of several sizes for the price of the largest.

    Args:
        targets: vectors to explain, of any norm.
        texts: dictionary with rows of norm 1.
        sizes: texts per target.
        batch: targets pursued together.
        progress: called with the number of targets just done.

    Returns:
        indices into ``texts`` in the order they were chosen, and for each size the coefficients
        of its first texts. A target that no further text would help fills up with zeros.

    Raises:
        ValueError: no or empty sizes, different dimensions.
    """
    if not sizes or min(sizes) < 1 or targets.shape[1] != texts.shape[1]:
        raise ValueError(
            f"expected sizes of at least 1 and one dimension, got {list(sizes)}, targets of "
            f"{targets.shape[1]} and texts of {texts.shape[1]}"
        )
    largest = max(sizes)
    indices = torch.zeros(len(targets), largest, dtype=torch.int64, device=targets.device)
    coefficients = {size: targets.new_zeros(len(targets), size) for size in sizes}
    for start in range(0, len(targets), batch):
        part = slice(start, start + batch)
        indices[part], found = _pursue(targets[part], texts, sizes)
        for size in sizes:
            coefficients[size][part] = found[size]
        if progress is not None:
            progress(len(targets[part]))
    return indices, coefficients


def _pursue(targets: Tensor, texts: Tensor, sizes: Sequence[int]) -> tuple[Tensor, dict]:
    count, largest = len(targets), max(sizes)
    steps = min(largest, len(texts))
    indices = torch.zeros(count, largest, dtype=torch.int64, device=targets.device)
    chosen = targets.new_zeros(count, largest, targets.shape[1])
    gamma = targets.new_zeros(count, largest)
    found, residual = {}, targets
    for step in range(steps):
        inner = residual @ texts.T
        inner.scatter_(1, indices[:, :step], -torch.inf)  # a text is chosen once
        value, place = inner.max(1)
        useful = value > _SMALLEST * targets.norm(dim=1)
        indices[:, step] = torch.where(useful, place, indices[:, 0])
        chosen[:, step] = texts[place] * useful[:, None]
        atoms = chosen[:, : step + 1]
        sweeps = _KEPT_SWEEPS if step + 1 in sizes else _SWEEPS
        inner = (atoms @ targets[..., None])[..., 0]
        _descend(gamma[:, : step + 1], atoms @ atoms.mT, inner, sweeps)
        residual = targets - (gamma[:, None, : step + 1] @ atoms)[:, 0]
        if step + 1 in sizes:
            found[step + 1] = gamma[:, : step + 1].clone()
    for size in sizes:  # more texts asked for than there are
        found.setdefault(size, gamma[:, :size].clone())
    return indices, found


def _descend(
    gamma: Float[Tensor, "target chosen"],
    gram: Float[Tensor, "target chosen chosen"],
    inner: Float[Tensor, "target chosen"],
    sweeps: int,
) -> None:
    """Coordinate descent on ‖r − Σ γ t‖² over γ ≥ 0, in place; an empty place stays zero."""
    for _ in range(sweeps):
        for j in range(gamma.shape[1]):
            height = gram[:, j, j]
            slope = inner[:, j] - (gram[:, j] * gamma).sum(1)
            moved = (gamma[:, j] + slope / height.clamp_min(1e-12)).clamp_min(0)
            gamma[:, j] = torch.where(height > 0, moved, 0.0)
