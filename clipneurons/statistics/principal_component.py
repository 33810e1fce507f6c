"""The one direction that a unit's largest effects share (2406.04341, section 3.3)."""

import torch
from jaxtyping import Float
from torch import Tensor

from clipneurons.lens.directions import Directions

# Units decomposed at once: bounds the [unit, k, k] and [unit, head, embed] temporaries.
_CHUNK = 128


def principal_directions(
    rows: Float[Tensor, "unit k head"],
    directions: Directions,
    biases: Float[Tensor, "unit k embed"] | None = None,
) -> tuple[Float[Tensor, "unit embed"], Float[Tensor, " unit"]]:
    """First principal component of each unit's top effects, and its share of their variance.

    ``rows`` are the scores of the top effects, largest first, already centred on the mean
    effect over the data set; they are not centred again. The component has unit norm and the
    sign with which more than half of the top effects project positively; where exactly half
    of them do, the sign that LAPACK's singular value decomposition gives, as in the published
    code. A unit whose top effects are all zero gets a zero direction and explains nothing.
    """
    parts = [
        _principal(
            rows[chunk].double(),
            directions.dense(chunk).double(),
            None if biases is None else biases[chunk].double(),
        )
        for chunk in (slice(i, i + _CHUNK) for i in range(0, len(rows), _CHUNK))
    ]
    components, explained = zip(*parts, strict=True)
    return torch.cat(components), torch.cat(explained)


def _principal(
    rows: Float[Tensor, "unit k head"],
    dense: Float[Tensor, "unit head embed"],
    biases: Float[Tensor, "unit k embed"] | None,
) -> tuple[Float[Tensor, "unit embed"], Float[Tensor, " unit"]]:
    if biases is None and rows.shape[2] < rows.shape[1]:
        # X = rows · dense has rank at most `head`: with dense = Rᵀ Q, Q orthonormal, the right
        # singular vectors of X are those of the small rows · Rᵀ, rotated by Q.
        basis, triangle = torch.linalg.qr(dense.mT)
        small = rows @ triangle.mT  # [unit, k, head]
    else:
        basis = None
        small = rows @ dense if biases is None else rows @ dense + biases
    tall = small.shape[1] >= small.shape[2]
    squares = small.mT @ small if tall else small @ small.mT
    values, vectors = torch.linalg.eigh(squares)
    first, total = values[:, -1].clamp_min(0), values.clamp_min(0).sum(-1)
    component = vectors[..., -1] if tall else (small.mT @ vectors[..., -1:])[..., 0]
    component = torch.nn.functional.normalize(component, dim=-1)
    projections = (small @ component[..., None])[..., 0]
    majority = (projections > 0).sum(-1) - (projections < 0).sum(-1)
    if basis is not None:
        component = (basis @ component[..., None])[..., 0]
    tied = majority == 0
    effects = rows[tied] @ dense[tied]
    if biases is not None:
        effects = effects + biases[tied]
    # LAPACK's sign depends on the order of the rows: ascending norms, as published.
    reference = torch.linalg.svd(effects.flip(1), full_matrices=False).Vh[:, 0]
    sign = majority.double().sign()
    sign[tied] = (reference * component[tied]).sum(-1).sign()
    component = component * sign[:, None]
    alive = total > 0
    explained = torch.where(alive, first / total.where(alive, torch.ones_like(total)), 0.0)
    return (component * alive[:, None]).float(), explained.float()
