"""The several things a unit says: clusters of its top images, groups of a neuron's heads."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize


@dataclass(frozen=True)
class Cluster:
    """Images that are alike: places in the list that was clustered, and the texts nearest them."""

    members: tuple[int, ...]
    texts: tuple[str, ...]


def clusters(
    embeddings: Float[Tensor, "image embed"],
    texts: list[str],
    text_embeddings: Float[Tensor, "text embed"],
    mean: Float[Tensor, " embed"],
    most: int = 4,
    names: int = 3,
    separation: float = 0.12,
) -> list[Cluster]:
    """Group images by what they show; the largest group first.

    `mean` is the mean embedding of many images: without what all images share, cosines tell
    contents apart. The number of groups (1 to `most`) is the one with the best mean silhouette;
    less than `separation` counts as one group. Deterministic.
    """
    if not len(embeddings):
        return []
    points = normalize(normalize(embeddings, dim=1) - mean, dim=1)
    best, labels = separation, torch.zeros(len(points), dtype=torch.long)
    for count in range(2, min(most, len(points) - 1) + 1):
        found = _spherical_means(points, count)
        score = silhouette(points, found)
        if score > best:
            best, labels = score, found
    centred_texts = normalize(text_embeddings - text_embeddings.mean(0), dim=1)
    groups = []
    for label in labels.unique().tolist():
        members = (labels == label).nonzero().flatten()
        centre = normalize(points[members].mean(0), dim=0)
        near = (centred_texts @ centre).topk(min(names, len(texts))).indices.tolist()
        groups.append(Cluster(tuple(members.tolist()), tuple(texts[i] for i in near)))
    return sorted(groups, key=lambda group: (-len(group.members), group.members))


def _spherical_means(
    points: Float[Tensor, "image embed"], count: int, steps: int = 20
) -> Int[Tensor, " image"]:
    """k-means on the sphere from farthest-first starts; empty groups vanish."""
    starts = [int((points @ normalize(points.mean(0), dim=0)).argmax())]
    while len(starts) < count:
        starts.append(int((points @ points[starts].T).amax(1).argmin()))
    centres = points[starts]
    labels = (points @ centres.T).argmax(1)
    for _ in range(steps):
        sums = torch.zeros_like(centres).index_add_(0, labels, points)
        moved = (points @ normalize(sums, dim=1).T).argmax(1)
        if torch.equal(moved, labels):
            break
        labels = moved
    return labels


def silhouette(points: Float[Tensor, "image embed"], labels: Int[Tensor, " image"]) -> float:
    """Mean silhouette by cosine distance, in [−1, 1]; a group of one counts 0, as usual."""
    if len(labels.unique()) < 2:
        return -1.0
    distance = 1 - points @ points.T
    member = torch.nn.functional.one_hot(labels.unique(return_inverse=True)[1]).to(distance.dtype)
    sums, sizes = distance @ member, member.sum(0)  # [image, group], [group]
    own = member.bool()
    others = sizes[None] - member
    mean = sums / others.clamp_min(1)
    inside = mean[own]
    outside = mean.masked_fill(own, torch.inf).amin(1)
    score = (outside - inside) / torch.maximum(inside, outside).clamp_min(1e-12)
    score[sizes[own.int().argmax(1)] == 1] = 0.0
    return float(score.mean())


def linked(directions: Float[Tensor, "unit embed"], similar: float) -> list[list[int]]:
    """Group unit rows by average linkage; each group in ascending order.

    The two most similar groups are joined as long as the mean cosine between their members is at
    least ``similar``.
    """
    cosine = directions @ directions.T
    groups = [[unit] for unit in range(len(directions))]
    while len(groups) > 1:
        best, (one, other) = max(
            (float(cosine[groups[i]][:, groups[j]].mean()), (i, j))
            for i, j in combinations(range(len(groups)), 2)
        )
        if best < similar:
            break
        groups[one] = sorted(groups[one] + groups.pop(other))
    return groups
