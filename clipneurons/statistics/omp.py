"""Sparse decomposition of directions over text embeddings: orthogonal matching pursuit.

Second-order lens, section 4.2: ``r ≈ Σ_j coefficient_j · text_j``, texts chosen greedily. Many
targets are pursued at once, so that a step is one matrix product with all texts.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

# A text whose cosine with the residual is smaller says nothing that the texts chosen before did
# not (float32 embeddings are not exact enough to tell); nor does a residual this small. It also
# keeps every chosen text at least this far from the span of the others.
_SMALLEST = 1e-6
# What is left of a unit vector when orthogonalisation has cost it a digit of float64's sixteen.
_MOSTLY_GONE = 0.1
# Texts whose inner products are reduced together while they are in a core's cache. A GPU has
# nothing to gain from small pieces.
_CHUNK = {"cpu": 2048}
_LARGE_CHUNK = 32768
# Only the largest inner product of each block of texts is kept, which is cheap to find; the
# winning block is then searched text by text.
_BLOCK = 16


def omp(
    targets: Float[Tensor, "target embed"],
    texts: Float[Tensor, "text embed"],
    components: int,
    *,
    batch: int = 256,
    progress: Callable[[int], object] | None = None,
) -> tuple[Int[Tensor, "target component"], Float[Tensor, "target component"]]:
    """Write each target as a combination of a few texts, found by orthogonal matching pursuit.

    Texts come in the order they were chosen. A target that needs fewer texts than ``components``
    (it is zero, already explained to 1e-6 of its norm, or no text has a cosine of more than
    1e-6 with what is left, as when there are fewer independent texts) fills up with coefficient
    zero; the index there repeats its first one and means nothing.

    Args:
        targets: vectors to explain, of any norm.
        texts: dictionary with rows of norm 1. Texts are chosen in this tensor's precision;
            orthogonalisation and coefficients are float64 throughout.
        components: texts per target.
        batch: targets pursued together. Working memory is about
            ``batch * components * (embed + components) * 8`` bytes beside the texts.
        progress: called with the number of targets just done, e.g. ``tqdm(...).update``.

    Returns:
        indices into ``texts`` (int64) and coefficients, in the targets' precision and device.

    Raises:
        ValueError: NaN or infinite values, texts that are not of norm 1 (zero rows included),
            different dimensions, devices or precisions other than float32 and float64.
    """
    indices, coefficients = omp_sizes(targets, texts, [components], batch=batch, progress=progress)
    return indices, coefficients[components]


@torch.no_grad()
def omp_sizes(
    targets: Float[Tensor, "target embed"],
    texts: Float[Tensor, "text embed"],
    sizes: Sequence[int],
    *,
    batch: int = 256,
    progress: Callable[[int], object] | None = None,
) -> tuple[Int[Tensor, "target largest"], dict[int, Float[Tensor, "target _"]]]:
    """Decompositions of several sizes for the price of the largest.

    The smaller support is always the beginning of the larger one; only its coefficients differ.

    Returns:
        indices of the largest size, and for each size the coefficients of its first texts.

    Raises:
        ValueError: see `omp`.
    """
    _check(targets, texts, sizes, batch)
    # MPS has no float64; a device that has it does the work itself.
    work = torch.device("cpu") if targets.device.type == "mps" else targets.device
    texts = texts.to(work).contiguous()
    largest = max(sizes)
    indices = targets.new_empty(len(targets), largest, dtype=torch.int64)
    coefficients = {size: targets.new_empty(len(targets), size) for size in sizes}
    for start in range(0, len(targets), batch):
        part = slice(start, start + batch)
        pursued = targets[part].to(work).double()
        indices[part], triangle, projections = _pursue(pursued, texts, largest)
        for size, solved in coefficients.items():
            solved[part] = torch.linalg.solve_triangular(
                triangle[:, :size, :size], projections[:, :size, None], upper=True
            ).squeeze(2)
        if progress is not None:
            progress(len(projections))
    return indices, coefficients


@torch.no_grad()
def reconstruct(
    indices: Int[Tensor, "target component"],
    coefficients: Float[Tensor, "target component"],
    texts: Float[Tensor, "text embed"],
) -> Float[Tensor, "target embed"]:
    """``Σ_j coefficient_j · text_j`` of each target."""
    total = coefficients.new_zeros(len(indices), texts.shape[1])
    # One component at a time: [target, component, embed] would not fit for large layers.
    for index, coefficient in zip(indices.T, coefficients.T, strict=True):
        total.addcmul_(coefficient[:, None], texts[index].to(total.dtype))
    return total


def by_magnitude(
    indices: Int[Tensor, "target component"], coefficients: Float[Tensor, "target component"]
) -> tuple[Int[Tensor, "target component"], Float[Tensor, "target component"]]:
    """The same decompositions with the largest coefficients (of either sign) first."""
    order = coefficients.abs().argsort(dim=1, descending=True, stable=True)
    return indices.gather(1, order), coefficients.gather(1, order)


def _pursue(
    targets: Float[Tensor, "target embed"], texts: Float[Tensor, "text embed"], components: int
) -> tuple[
    Int[Tensor, "target component"],
    Float[Tensor, "target component component"],
    Float[Tensor, "target component"],
]:
    """Chosen texts, with the triangle R and projections p such that R·coefficients = p.

    The chosen texts are kept as an orthonormal basis Q with ``texts[chosen] = Rᵀ Q``, which is
    stable for nearly dependent texts where their Gram matrix would not be.
    """
    count, embed = targets.shape
    steps = min(components, embed, len(texts))
    indices = targets.new_zeros(count, components, dtype=torch.int64)
    basis = targets.new_empty(count, steps, embed)
    triangle = torch.eye(components).to(targets).repeat(count, 1, 1)
    projections = targets.new_zeros(count, components)
    residual = targets.clone()
    explained = _SMALLEST * targets.norm(dim=1)
    search = _Search(texts, count)
    active = torch.ones_like(explained, dtype=torch.bool)
    for step in range(steps):
        norm = residual.norm(dim=1)
        # At norm 1 the search keeps its precision however small the residual is.
        unit = residual / norm.clamp_min(torch.finfo(norm.dtype).tiny)[:, None]
        found = search(unit.to(texts.dtype))
        atom = texts[found].double()
        cosine = (atom * unit).sum(1)
        active &= (norm > explained) & (cosine.abs() > _SMALLEST)
        if not active.any():
            break
        overlap, atom = _orthogonalise(atom, basis[:, :step])
        height = atom.norm(dim=1)
        # Of a near-duplicate little is left, and rounding errors along the basis weigh in it.
        again = (height < _MOSTLY_GONE).nonzero().squeeze(1)
        if len(again):
            more, atom[again] = _orthogonalise(atom[again], basis[again, :step])
            overlap[again] += more
            height = atom.norm(dim=1)
        # Rows that are done keep a zero basis vector and R's identity, so they solve to zero.
        atom = torch.where(active[:, None], atom / height[:, None], 0)
        projection = (atom * residual).sum(1)
        residual -= projection[:, None] * atom
        basis[:, step] = atom
        triangle[:, :step, step] = torch.where(active[:, None], overlap, 0)
        triangle[:, step, step] = torch.where(active, height, 1)
        projections[:, step] = projection
        indices[:, step] = torch.where(active, found, indices[:, 0])
        if step == 0:  # places that stay empty repeat the first index
            indices[:] = indices[:, :1]
    return indices, triangle, projections


def _orthogonalise(
    vectors: Float[Tensor, "vector embed"], basis: Float[Tensor, "vector step embed"]
) -> tuple[Float[Tensor, "vector step"], Float[Tensor, "vector embed"]]:
    """Each vector's part along its own orthonormal basis, and what is left of it."""
    along = torch.bmm(vectors[:, None], basis.mT)  # [vector, 1, step]
    return along.squeeze(1), vectors - torch.bmm(along, basis).squeeze(1)


class _Search:
    """The text with the largest absolute inner product, for many vectors at once."""

    def __init__(self, texts: Float[Tensor, "text embed"], count: int):
        self.texts = texts
        self.chunk = min(_CHUNK.get(texts.device.type, _LARGE_CHUNK), _blocks(len(texts)) * _BLOCK)
        self.products = texts.new_empty(self.chunk, count)
        self.peaks = texts.new_empty(_blocks(len(texts)), count)

    def __call__(self, vectors: Float[Tensor, "vector embed"]) -> Int[Tensor, " vector"]:
        for start in range(0, len(self.texts), self.chunk):
            part = self.texts[start : start + self.chunk]
            blocks = _blocks(len(part))
            products = self.products[: blocks * _BLOCK]
            products[len(part) :] = 0
            torch.mm(part, vectors.T, out=products[: len(part)])
            peaks = self.peaks[start // _BLOCK :][:blocks]
            torch.amax(products.abs_().view(blocks, _BLOCK, -1), dim=1, out=peaks)
        first = self.peaks.argmax(0) * _BLOCK
        rows = first[:, None] + torch.arange(_BLOCK, device=first.device)  # [vector, block]
        rows.clamp_(max=len(self.texts) - 1)
        inner = torch.bmm(vectors[:, None], self.texts[rows].mT).squeeze(1)
        return rows.gather(1, inner.abs().argmax(1, keepdim=True)).squeeze(1)


def _blocks(count: int) -> int:
    return -(-count // _BLOCK)


def _check(targets: Tensor, texts: Tensor, sizes: Sequence[int], batch: int) -> None:
    if not sizes or min(sizes) < 1 or batch < 1:
        raise ValueError(
            f"expected at least 1 component and 1 target a batch, got {list(sizes)} and {batch}"
        )
    if targets.shape[1] != texts.shape[1]:
        raise ValueError(
            f"targets have {targets.shape[1]} dimensions and texts {texts.shape[1]}: "
            "both must come from the same model's joint space"
        )
    if targets.device != texts.device:
        raise ValueError(f"targets are on {targets.device} and texts on {texts.device}")
    for name, tensor in (("targets", targets), ("texts", texts)):
        if tensor.dtype not in (torch.float32, torch.float64):
            raise ValueError(f"{name} must be float32 or float64, not {tensor.dtype}")
        bad = ~tensor.isfinite().all(dim=1)
        if bad.any():
            row = int(bad.nonzero()[0])
            raise ValueError(
                f"{name} must be finite: {int(bad.sum())} of {len(tensor)} rows hold NaN or "
                f"infinite values, the first is row {row}"
            )
    if len(texts) == 0:
        raise ValueError("expected at least one text, got none")
    norms = texts.norm(dim=1)
    bad = (norms - 1).abs() > 1e-3
    if bad.any():
        row = int(bad.nonzero()[0])
        raise ValueError(
            f"texts must have rows of norm 1: {int(bad.sum())} of {len(texts)} have not, "
            f"the first is row {row} with norm {float(norms[row]):.4g}. "
            "Divide each row by its norm, and leave out zero rows"
        )
