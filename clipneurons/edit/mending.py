"""The fewest units whose ablation makes a classifier read its worst-read group better.

A group is a class with a cue that should not matter (dogs in snow). What unit n adds to the margin
of an image between its class and the strongest other one is linear, so the margin without any set
of units is known without running the model again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import softplus

from clipneurons.edit.find_options import FindOptions


@dataclass(frozen=True)
class CrossValidated:
    """What left-out images say of several edits, the first of which changes nothing.

    `worst` and `average` are the groups' accuracy, `loss` is what is minimised.
    """

    worst: tuple[float, ...]
    average: tuple[float, ...]
    loss: tuple[float, ...]

    def fewest(self, options: FindOptions) -> int:
        """Number of the first edit that is nearly as good as the best that costs little."""
        loss, average = torch.tensor(self.loss), torch.tensor(self.average)
        loss = loss.masked_fill(average < average[0] - options.lost, torch.inf)
        enough = loss <= loss[0] - options.kept * (loss[0] - loss.min())
        return int(enough.nonzero()[0])


@dataclass(frozen=True, eq=False)
class Found:
    """Units in the order in which they were taken, and what cross-validation says of each number.

    `units` are the chosen ones, maybe none; `judged` is by the number of units, `sizes`, from 0;
    `folds` are which images were left out, and the order found on the others.
    """

    units: tuple[int, ...]
    order: tuple[int, ...]
    sizes: tuple[int, ...]
    judged: CrossValidated
    folds: tuple[tuple[Tensor, tuple[int, ...]], ...]

    @property
    def loss(self) -> float:
        """Of the chosen units, on left-out images."""
        return self.judged.loss[self.sizes.index(len(self.units))]


def strongest_rivals(
    logits: Float[Tensor, "image class"], labels: Int[Tensor, " image"]
) -> Int[Tensor, " image"]:
    """The class other than its own that each image is nearest to."""
    others = logits.scatter(1, labels[:, None], -torch.inf)
    return others.argmax(1)


def margins(
    values: Float[Tensor, "image ... class"],
    labels: Int[Tensor, " image"],
    rivals: Int[Tensor, " image"],
) -> Float[Tensor, "image ..."]:
    """What speaks for each image's class rather than its rival."""
    rows = torch.arange(len(labels))
    return values[rows, ..., labels] - values[rows, ..., rivals]


def accuracies(
    right: Bool[Tensor, " image"], groups: Int[Tensor, " image"]
) -> Float[Tensor, " group"]:
    """Share of right images in each group that has images, in the order of their numbers."""
    return torch.stack([right[groups == g].float().mean() for g in groups.unique()])


def group_differences(
    effects: Float[Tensor, "image unit"],
    margin: Float[Tensor, " image"],
    labels: Int[Tensor, " image"],
    groups: Int[Tensor, " image"],
) -> Float[Tensor, " unit"]:
    """How much more each unit adds to a class's best-read group than to its worst-read one.

    The difference of the groups' mean effects along the class direction, over classes.
    """
    total = torch.zeros(effects.shape[1])
    for label in labels.unique():
        mine = groups[labels == label].unique()
        read = torch.stack([margin[groups == g].mean() for g in mine])
        best, worst = mine[read.argmax()], mine[read.argmin()]
        total += effects[groups == best].mean(0) - effects[groups == worst].mean(0)
    return total / len(labels.unique())


def take_greedily(
    effects: Float[Tensor, "image unit"],
    margin: Float[Tensor, " image"],
    labels: Int[Tensor, " image"],
    groups: Int[Tensor, " image"],
    options: FindOptions,
) -> list[int]:
    """Units in order: each time the one without which the worst group's loss is least.

    The loss is logistic in the margin, its mean over a group; the soft maximum over groups is
    log Σ_g exp(sharpness · loss_g) / sharpness.
    """
    scale = options.softness * margin.abs().mean().clamp_min(1e-12)
    difference = group_differences(effects, margin, labels, groups)
    candidates = difference.topk(min(options.candidates, len(difference))).indices
    mine = (effects[:, candidates] / scale).contiguous()
    now = margin / scale
    share = _one_hot_means(groups)
    taken = torch.zeros(len(candidates), dtype=torch.bool)
    order = []
    for _ in range(min(options.most, len(candidates))):
        loss = share @ softplus(mine - now[:, None])  # [group, candidate]
        worst = torch.logsumexp(options.sharpness * loss, 0)
        best = int(worst.masked_fill(taken, torch.inf).argmin())
        taken[best] = True
        now = now - mine[:, best]
        order.append(int(candidates[best]))
    return order


def find_units(
    effects: Float[Tensor, "image unit"],
    margin: Float[Tensor, " image"],
    labels: Int[Tensor, " image"],
    groups: Int[Tensor, " image"],
    options: FindOptions | None = None,
    seed: int = 0,
) -> Found:
    """The fewest units whose ablation helps the worst-read group, by cross-validation.

    Args:
        effects: what each unit adds to each image's margin, centred: ablation subtracts it.
        margin: between each image's class and its strongest rival.
        labels: number of each image's class.
        groups: number of each image's group, a class with a cue.

    Raises:
        ValueError: one class only, or a group with fewer images than folds.
    """
    options = options or FindOptions()
    check_groups(labels, groups, options.folds)
    sizes = [0, *(size for size in options.sizes if size <= effects.shape[1])]
    left_out = torch.empty(len(sizes), len(margin))
    folds = []
    for fold in _folds(groups, options.folds, seed):
        rest = ~fold
        order = take_greedily(effects[rest], margin[rest], labels[rest], groups[rest], options)
        left_out[:, fold] = without(effects[fold], margin[fold], order, sizes)
        folds.append((fold, tuple(order)))
    judged = cross_validated(left_out, groups, options)
    order = take_greedily(effects, margin, labels, groups, options)
    size = sizes[judged.fewest(options)]
    return Found(tuple(order[:size]), tuple(order), tuple(sizes), judged, tuple(folds))


def cross_validated(
    left_out: Float[Tensor, "edit image"], groups: Int[Tensor, " image"], options: FindOptions
) -> CrossValidated:
    """Figures of several edits from the margins of left-out images; the first row is unedited."""
    by_group = torch.stack([accuracies(row > 0, groups) for row in left_out])
    scale = options.softness * left_out[0].abs().mean().clamp_min(1e-12)
    loss = softplus(-left_out / scale) @ _one_hot_means(groups).T
    loss = torch.logsumexp(options.sharpness * loss, 1) / options.sharpness
    return CrossValidated(
        tuple(by_group.amin(1).tolist()), tuple(by_group.mean(1).tolist()), tuple(loss.tolist())
    )


def without(
    effects: Float[Tensor, "image unit"],
    margin: Float[Tensor, " image"],
    order: Sequence[int],
    sizes: Sequence[int],
) -> Float[Tensor, "size image"]:
    """Margins without the first so many units of an order."""
    removed = effects[:, list(order)].cumsum(1)
    removed = torch.cat([torch.zeros(len(margin), 1), removed], 1)
    return margin - removed[:, [min(size, len(order)) for size in sizes]].T


def check_groups(labels: Int[Tensor, " image"], groups: Int[Tensor, " image"], least: int) -> None:
    """Refuse one class only, one group a class, and groups of fewer images than `least`."""
    if len(labels.unique()) < 2:
        raise ValueError("one class only: expected images of at least two")
    if len(groups.unique()) == len(labels.unique()):
        raise ValueError("one group a class: expected a class that is read in at least two ways")
    fewest = int(groups.unique(return_counts=True)[1].min())
    if fewest < least:
        raise ValueError(f"a group of {fewest} images: expected at least {least}, one a fold")


def _folds(groups: Int[Tensor, " image"], count: int, seed: int) -> list[Bool[Tensor, " image"]]:
    """Which images are left out, by fold; every group is spread over all folds."""
    rng, fold = np.random.default_rng(seed), torch.empty(len(groups), dtype=torch.long)
    for group in groups.unique():
        rows = (groups == group).nonzero().flatten()
        shuffled = torch.as_tensor(rng.permutation(len(rows)))
        fold[rows[shuffled]] = torch.arange(len(rows)) % count
    return [fold == number for number in range(count)]


def _one_hot_means(groups: Int[Tensor, " image"]) -> Float[Tensor, "group image"]:
    """Matrix whose product with values of images is their means over each group."""
    one_hot = (groups == groups.unique()[:, None]).float()
    return one_hot / one_hot.sum(1, keepdim=True)
