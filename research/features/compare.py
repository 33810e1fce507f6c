"""`python -m research features`: what bundles of one layer say, with the same figures for each.

Every bundle has been exported and its labels tested by the same commands; this puts side by side
what they measured, and reads the concepts of the same images with each.

    simulation score     of its labels on images they were not written on, mean over units
    reliable             share of units with a reliable label
    participation ratio  share of images that carry a unit's effect, median over live units
    one direction        variance of a unit's strongest effects along its direction, mean
    recall at 10         share of an image's objects among its ten first concepts
    change of accuracy   zero-shot, all effects of the layer mean-ablated, in points
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from clipneurons.bundle.bundle import Bundle
from clipneurons.models.clip import ClipModel
from export.common.errors import UserError
from research.concepts.recall import recall_by_place

_ABLATED, _DRAWS = "all effects mean-ablated", 1000
COLUMNS = (
    "units", "dead", "variance rebuilt", "simulation score", "reliable", "best 10 % from",
    "participation ratio", "one direction", "recall at 10", "change of accuracy",
)  # fmt: skip


def of_layer(bundle: Bundle, layer: int) -> Bundle:
    """The bundle with one of its layers.

    Raises:
        UserError: a layer that it does not have, labels or figures that were not measured.
    """
    if layer not in bundle.layers:
        raise UserError(f"the bundle has layers {list(bundle.layers)}, not {layer}")
    if not bundle.labels or _ABLATED not in _fidelity(bundle, layer):
        raise UserError("the bundle has no tested labels or no figures: run export evaluate first")
    return replace(
        bundle, config=replace(bundle.config, layers=(layer,)),
        layers={layer: bundle.layers[layer]}, labels={layer: bundle.labels[layer]},
        cues=None, opening={},
    )  # fmt: skip


def figures(bundle: Bundle, clip: ClipModel, scenes: int) -> dict[str, Any]:
    """The figures of a bundle of one layer, by name; intervals are at 95 %."""
    ((layer, arrays),) = bundle.layers.items()
    alive = arrays.directions.any(1)
    labels, note = bundle.labels[layer], bundle.config.features
    score = labels.simulation_score[alive]
    recall = recall_by_place(bundle, clip, scenes)
    ablated = _fidelity(bundle, layer)[_ABLATED]
    return {
        "units": len(alive),
        "dead": int((~alive).sum()),
        "explained_variance": note and round(note.explained_variance, 4),
        "active": note and round(note.active, 2),
        "dense": note and note.dense,
        "simulation_score": round(float(score.mean()), 4),
        "simulation_score_interval": interval(score),
        "simulation_score_quantiles": [
            round(q, 4) for q in score.quantile(torch.tensor([0.25, 0.5, 0.75, 0.9])).tolist()
        ],
        "reliable_share": round(float(labels.reliable[alive].float().mean()), 4),
        "reliable_interval": interval(labels.reliable[alive].float()),
        "participation_ratio": round(float(arrays.participation_ratio[alive].median()), 4),
        "one_direction": round(float(arrays.explained_variance[alive].mean()), 4),
        "recall_at_10": recall["recall_at_10"]["by_place"],
        "recall_interval": recall["interval_95"]["by_place"],
        "change": ablated.get("change"),
        "change_interval": ablated.get("change_interval"),
    }


def interval(values: Float[Tensor, " unit"], seed: int = 0) -> list[float]:
    """95 % interval of the mean over units, which are drawn with replacement."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(len(values), (_DRAWS, len(values)), generator=generator)
    means = values[drawn].mean(1)
    return [round(q, 4) for q in means.quantile(torch.tensor([0.025, 0.975])).tolist()]


def table(found: Mapping[str, Mapping[str, Any]]) -> str:
    """The figures as Markdown, a row a bundle."""
    lines = [f"| layer | {' | '.join(COLUMNS)} |", f"|---{'|---' * len(COLUMNS)}|"]
    for name, row in found.items():
        cells = (
            f"{row['units']:,}",
            f"{row['dead']:,}",
            "–" if row["explained_variance"] is None else f"{row['explained_variance']:.0%}",
            _with(row["simulation_score"], row["simulation_score_interval"], "{:.3f}"),
            _with(row["reliable_share"], row["reliable_interval"], "{:.0%}"),
            f"{row['simulation_score_quantiles'][-1]:.2f}",
            f"{row['participation_ratio']:.4f}",
            f"{row['one_direction']:.1%}",
            _with(row["recall_at_10"], row["recall_interval"], "{:.1%}"),
            _points(row["change"], row["change_interval"]),
        )
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _with(value: float, limits: Sequence[float], form: str) -> str:
    low, high = map(form.format, limits)
    return f"{form.format(value)} ({low} to {high})"


def _points(value: float | None, limits: Sequence[float] | None) -> str:
    if value is None or limits is None:
        return "–"
    return f"{100 * value:+.1f} ({100 * limits[0]:+.1f} to {100 * limits[1]:+.1f})"


def _fidelity(bundle: Bundle, layer: int) -> Mapping[str, Any]:
    return bundle.metrics.get("fidelity", {}).get("layers", {}).get(f"layer {layer}", {})
