"""The several things a unit says: clusters of its top images, groups of a neuron's heads."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from clipneurons.stats.centring import without_shared

# Groups at most.
MOST = 4
# Random sets of images behind `chance_separation`, and the share of them below it.
_SETS, _BELOW = 100, 0.95


@dataclass(frozen=True)
class Cluster:
    """Images that are alike: places in the list that was clustered, and the texts nearest them.

    `purity` is the share of them that have the first text among their own nearest: the best
    hundredth of all texts, at most ten.
    """

    members: tuple[int, ...]
    texts: tuple[str, ...]
    purity: float = 1.0


def clusters(
    embeddings: Float[Tensor, "image embed"],
    texts: list[str],
    text_embeddings: Float[Tensor, "text embed"],
    mean: Float[Tensor, " embed"],
    separation: float,
    names: int = 3,
) -> list[Cluster]:
    """Group images by what they show (`group_alike`); the largest group first.

    `mean` is the mean embedding of many images: without what all images share, cosines tell
    contents apart.
    """
    if not len(embeddings):
        return []
    points = normalize(normalize(embeddings, dim=1) - mean, dim=1)
    labels = group_alike(points, separation)
    centred_texts = without_shared(text_embeddings)
    near = (points @ centred_texts.T).topk(min(10, max(1, len(texts) // 100)), dim=1).indices
    groups = []
    for label in labels.unique().tolist():
        members = (labels == label).nonzero().flatten()
        centre = normalize(points[members].mean(0), dim=0)
        best = (centred_texts @ centre).topk(min(names, len(texts))).indices
        purity = float((near[members] == best[0]).any(1).float().mean())
        named = tuple(texts[i] for i in best.tolist())
        groups.append(Cluster(tuple(members.tolist()), named, purity))
    return groups


def group_alike(points: Float[Tensor, "image embed"], separation: float) -> Int[Tensor, " image"]:
    """The group of each image, from unit rows; the largest is 0, of the same size the first met.

    The number of groups (1 to 4) is the one with the best mean silhouette; not more than
    ``separation`` (see `chance_separation`) counts as one group. Deterministic.
    """
    score, labels = _best_split(points)
    if score <= separation:
        return torch.zeros(len(points), dtype=torch.long)
    sizes = labels.bincount()
    first = {label: place for place, label in reversed(list(enumerate(labels.tolist())))}
    order = sorted(first, key=lambda label: (-int(sizes[label]), first[label]))
    rank = {label: place for place, label in enumerate(order)}
    return torch.tensor([rank[label] for label in labels.tolist()], dtype=torch.long)


def chance_separation(points: Float[Tensor, "image embed"], size: int, seed: int = 0) -> float:
    """Mean silhouette that 95 % of random sets of ``size`` images stay below when they are split.

    Images that were put together by chance fall into groups as well, the more the fewer kinds of
    images there are. 1, which nothing exceeds, where there are too few images to draw from.
    """
    if len(points) <= size:
        return 1.0
    generator = torch.Generator().manual_seed(seed)
    drawn = (torch.randperm(len(points), generator=generator)[:size] for _ in range(_SETS))
    scores = torch.tensor([_best_split(points[rows])[0] for rows in drawn])
    return float(scores.quantile(_BELOW))


def _best_split(points: Float[Tensor, "image embed"]) -> tuple[float, Int[Tensor, " image"]]:
    """The mean silhouette and the groups of the best number of groups, two or more."""
    best, labels = -1.0, torch.zeros(len(points), dtype=torch.long)
    for count in range(2, min(MOST, len(points) - 1) + 1):
        found = _spherical_means(points, count)
        score = silhouette(points, found)
        if score > best:
            best, labels = score, found
    return best, labels


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
