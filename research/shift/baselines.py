"""What the comparison of two image sets is measured against.

Tests: the mean embedding, and a linear classifier (MMD is `clipneurons.stats.two_sample.mmd`).
Naming: the texts along which the units' reconstruction of the embeddings changed.
"""

import torch
from jaxtyping import Float
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from clipneurons.stats.two_sample import permuted_labels, standardised


def mean_difference(
    values: Float[Tensor, "image embed"], labels: Float[Tensor, "permutation image"]
) -> Float[Tensor, " permutation"]:
    """Squared length of the difference of the means under each labelling."""
    return (labels @ (values - values.mean(0))).square().sum(1)


def classifier(
    values: Float[Tensor, "image embed"],
    labels: Float[Tensor, "permutation image"],
    seed: int = 0,
) -> Float[Tensor, " permutation"]:
    """Linear classifier two-sample test (Lopez-Paz and Oquab, 2017) under each labelling.

    Logistic regression on half of the images; the statistic is the difference of the mean
    logits of the other half (the test's more powerful form, Liu et al., 2020), whose labels
    alone are permuted.
    """
    truth = labels[0] > 0
    generator = torch.Generator().manual_seed(seed)
    train = torch.zeros_like(truth)
    for side in (truth, ~truth):
        members = side.nonzero().flatten()
        half = torch.randperm(len(members), generator=generator)[: len(members) // 2]
        train[members[half]] = True
    inputs = standardised(values)
    model = LogisticRegression(class_weight="balanced", max_iter=200)
    model.fit(inputs[train].numpy(), truth[train].numpy())
    logits = torch.from_numpy(model.decision_function(inputs[~train].numpy())).float()
    held = truth[~train]
    tested = permuted_labels(int((~held).sum()), int(held.sum()), len(labels) - 1, seed + 1)
    return tested @ torch.cat([logits[~held], logits[held]])


def text_evidence(
    reconstruction: Float[Tensor, "image embed"],
    labels: Float[Tensor, " image"],
    texts: Float[Tensor, "text embed"],
) -> Float[Tensor, " text"]:
    """Evidence that the reconstruction of embeddings by the units changed along each text.

    For noise of covariance C, a change Δ of the mean is along text t by the likelihood ratio
    ``(tᵀ C⁻¹ Δ)² / tᵀ C⁻¹ t``; this is its square root with the sign of the change, in standard
    errors. C is that of both samples, shrunk towards a multiple of the identity; it is inverted
    along the images' principal axes, which are far fewer than the texts.
    """
    count, embed = reconstruction.shape
    centred = reconstruction - reconstruction.mean(0)
    left, sizes, axes = torch.linalg.svd(centred, full_matrices=False)
    share = embed / (embed + count)
    ridge = share * (sizes.square().sum() / (count * embed)).clamp_min(1e-20)
    variances = (1 - share) * sizes.square() / count + ridge  # along the axes; elsewhere the ridge
    along = texts @ axes.T  # [text, axis]
    spread = texts.square().sum(1) / ridge - along.square() @ (1 / ridge - 1 / variances)
    evidence = (labels @ (left * sizes / variances)) @ along.T
    return evidence / (spread.clamp_min(1e-20).sqrt() * labels.norm())
