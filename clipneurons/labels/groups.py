"""Names for the groups of a unit's top images, tested on images that nobody has seen.

A unit that says several things has no one label. Its top images fall into groups by what they show
(`group_alike`); on other images, those that excite the unit and are nearest to a group's centre
belong to it. A name is written on some of them, chosen on others, and tested on the rest by the
share of them that show it (purity) and by how well it detects them (AUC).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from clipneurons.bundle.image_groups import GROUPS
from clipneurons.labels.assess import Parts, Recordings
from clipneurons.labels.detection import auc
from clipneurons.labels.evidence import SCALE
from clipneurons.labels.simulation import standardised
from clipneurons.statistics.clustering import group_alike
from clipneurons.stats.centring import without_shared

# Of held-out images, the share that counts as exciting a unit, and the least number of a group.
STRONG, FEWEST = 0.05, 5
NEAREST, LIFT, SHUFFLED = "nearest text", "lift of probability", "shuffled"
# Units whose strong images are compared with their groups at once, and groups tested at once.
_UNITS, _TESTED = 256, 2048


@dataclass(frozen=True, eq=False)
class Grouped:
    """Groups of units' top images.

    `images` is the group of each image (−1 where there is none, all of a unit with one group),
    `unit` and `group` name the groups that there are, `centres` are unit rows.
    """

    images: Int[Tensor, "unit image"]
    unit: Int[Tensor, " found"]
    group: Int[Tensor, " found"]
    centres: Float[Tensor, "found embed"]

    def columns(self, values: Tensor, empty: float) -> Tensor:
        """One value a group as [unit, group], `empty` where there is no group."""
        table = torch.full((len(self.images), GROUPS), empty, dtype=values.dtype)
        table[self.unit, self.group] = values
        return table


@dataclass(frozen=True, eq=False)
class NamedGroups:
    """Names with how they do on images; NaN for a group of fewer than five of them."""

    text: Int[Tensor, " found"]
    purity: Float[Tensor, " found"]
    auc: Float[Tensor, " found"]

    @property
    def mean_purity(self) -> float:
        """Over the groups that have enough images; 0 without any."""
        known = self.purity[self.purity.isfinite()]
        return float(known.mean()) if len(known) else 0.0


def group_top_images(
    top: Int[Tensor, "unit image"], points: Float[Tensor, "thumbnail embed"], separation: float
) -> Grouped:
    """Groups of each unit's images; `top` are rows of `points` (centred unit rows), −1 pads.

    `separation` is what groups have to exceed (`chance_separation`).
    """
    images = torch.full_like(top, -1)
    units, groups, centres = [], [], []
    for unit, rows in enumerate(top):
        mine = points[rows[rows >= 0]]
        labels = group_alike(mine, separation) if len(mine) else rows[:0]
        if len(labels.unique()) < 2:
            continue
        images[unit, rows >= 0] = labels
        for group in range(int(labels.max()) + 1):
            units.append(unit)
            groups.append(group)
            centres.append(normalize(mine[labels == group].mean(0), dim=0))
    stacked = torch.stack(centres) if centres else points[:0]
    return Grouped(images, torch.tensor(units).long(), torch.tensor(groups).long(), stacked)


def members(
    grouped: Grouped, effects: Float[Tensor, "image unit"], points: Float[Tensor, "image embed"]
) -> Bool[Tensor, "image found"]:
    """Which images belong to each group: they excite its unit and are nearest to its centre.

    Of each unit the 5 % of the images with the largest |effect|.
    """
    strong = effects.abs().topk(max(1, round(STRONG * len(effects))), dim=0).indices
    found = torch.zeros(len(effects), len(grouped.unit), dtype=torch.bool)
    place = torch.full((len(grouped.images), GROUPS), -1)
    place[grouped.unit, grouped.group] = torch.arange(len(grouped.unit))
    for units in grouped.unit.unique().split(_UNITS):
        rows = strong[:, units]  # [strong, unit]
        at = place[units]  # [unit, group]
        near = torch.einsum("sud,ugd->sug", points[rows], grouped.centres[at])
        best = near.masked_fill(at < 0, -torch.inf).argmax(2)
        found[rows.flatten(), at[torch.arange(len(units)), best].flatten()] = True
    return found


def name_groups(
    grouped: Grouped, parts: Parts, texts: Float[Tensor, "text embed"]
) -> tuple[str, dict[str, NamedGroups]]:
    """The way of naming that did best on the images kept for choosing, and all on the test images.

    `texts` are unit rows. The control gives every group another one's name.
    """
    mean = parts.fit.embeddings.mean(0)

    def belong(images: Recordings) -> Bool[Tensor, "image found"]:
        points = normalize(images.embeddings - mean, dim=1)
        return members(grouped, images.effects, points)

    fit, choose, held = (belong(part) for part in (parts.fit, parts.choose, parts.test))
    ways: dict[str, Callable[[], Tensor]] = {
        NEAREST: lambda: _nearest(grouped.centres, texts),
        LIFT: lambda: _lift(fit, parts.fit.embeddings, texts),
    }
    names = {way: write() for way, write in ways.items()}
    best = max(names, key=lambda way: measure_names(names[way], choose, parts.choose).mean_purity)
    order = torch.randperm(len(grouped.unit), generator=torch.Generator().manual_seed(0))
    turned = torch.empty_like(order).scatter_(0, order, order.roll(1))
    names[SHUFFLED] = names[best][turned]
    return best, {way: measure_names(text, held, parts.test) for way, text in names.items()}


def measure_names(
    text: Int[Tensor, " found"], belong: Bool[Tensor, "image found"], images: Recordings
) -> NamedGroups:
    """Purity and AUC of every group's name, by what the judge sees on the images."""
    purity, area = [], []
    for part in torch.arange(len(text)).split(_TESTED):
        mine, shown = belong[:, part], images.present[:, text[part]]
        count = mine.sum(0)
        share = (mine & shown).sum(0) / count.clamp_min(1)
        enough = count >= FEWEST
        purity.append(torch.where(enough, share, torch.nan))
        area.append(torch.where(enough, auc(images.scores[:, text[part]], mine), torch.nan))
    if not purity:
        return NamedGroups(text, torch.zeros(0), torch.zeros(0))
    return NamedGroups(text, torch.cat(purity), torch.cat(area))


def _nearest(
    centres: Float[Tensor, "found embed"], texts: Float[Tensor, "text embed"]
) -> Int[Tensor, " found"]:
    """The centred text nearest to each centre."""
    centred = without_shared(texts)
    return torch.cat([(part @ centred.T).argmax(1) for part in centres.split(_TESTED)] or [_NONE])


def _lift(
    belong: Bool[Tensor, "image found"],
    embeddings: Float[Tensor, "image embed"],
    texts: Float[Tensor, "text embed"],
) -> Int[Tensor, " found"]:
    """The text whose zero-shot probability rises most on the group's images, over its spread."""
    lifted = standardised((SCALE * embeddings @ texts.T).softmax(1))
    parts = belong.float().T.split(_TESTED)
    return torch.cat([(part @ lifted).argmax(1) for part in parts] or [_NONE])


_NONE = torch.zeros(0, dtype=torch.long)
