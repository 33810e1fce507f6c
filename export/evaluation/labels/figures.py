"""Figures of `evaluate labels` over all units together, and these in words."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Bool
from torch import Tensor

from clipneurons.bundle.labels import LayerLabels, told_apart
from clipneurons.labels.assess import Assessment, Parts, Tested, mean_interval
from clipneurons.labels.detection import auc, average_precision, iou
from clipneurons.labels.sanity import sanity
from clipneurons.labels.simulation import pearson

# Texts that enough and not too many images show, for the check of the metrics.
_CHECKED, _RARE, _OFTEN = 200, 10, 0.5
_HISTOGRAM = 40


def figures(found: Assessment, parts: Parts, layers: Mapping[int, LayerLabels]) -> dict:
    """Everything about all units together."""
    shipped = found.shipped
    every, sure = found.methods | found.rivals, shipped.reliable
    edges = torch.linspace(-1, 1, _HISTOGRAM + 1)
    return {
        "method": found.best,
        "methods": {name: _method(tested, edges) for name, tested in every.items()},
        "ahead_of": {
            name: _ahead(shipped, tested) for name, tested in every.items() if name != found.best
        },
        "histogram_edges": [round(float(edge), 4) for edge in edges],
        "told_apart": _over(shipped, told_apart(shipped.q_value)),
        "reliable": _over(shipped, sure) | {"chosen_elsewhere": _chosen_elsewhere(shipped, sure)},
        "layers": {
            str(layer): {
                "simulation": _round(mine.simulation.mean()),
                "reliable": _round(mine.reliable.float().mean()),
            }
            for layer, mine in layers.items()
        },
        "units": {
            name: _spread(torch.cat([getattr(mine, name) for mine in layers.values()]))
            for name in ("concept_iou", "monosemanticity")
        },
        "sanity": checked_metrics(parts),
    }


def in_words(found: Mapping) -> str:
    """A line a method, the best first, and how many labels are reliable."""
    lines = []
    ranked = sorted(found["methods"].items(), key=lambda pair: -pair[1]["simulation"])
    for name, one in ranked:
        low, high = one["interval"]
        mark = " (shipped)" if name == found["method"] else ""
        lines.append(
            f"labels   {one['simulation']:.3f} ({low:.3f} to {high:.3f}) {name}{mark};"
            f" told from others' {one['told_apart']:.1%}, reliable {one['reliable']:.1%}"
        )
    sure = found["reliable"]
    mean = ""
    if sure["units"]:
        mean = (
            f", mean {sure['simulation']:.3f}; of as many taken on other images"
            f" {sure['chosen_elsewhere']:.3f}"
        )
    lines.append(f"labels   reliable: {sure['units']:,} of {found['units_tested']:,} units{mean}")
    return "\n".join(lines)


def checked_metrics(parts: Parts) -> dict:
    """The two checks of the metrics, on units that show a text exactly, and some noise."""
    present = parts.test.present
    shown = present.float().sum(0)
    usable = ((shown >= _RARE) & (shown <= _OFTEN * len(present))).nonzero()[:, 0][:_CHECKED]
    if not len(usable):
        return {}
    truth = present[:, usable]
    noise = torch.randn(truth.shape, generator=torch.Generator().manual_seed(0))
    effects = truth.float() + 0.1 * noise
    metrics = {
        "simulation correlation": lambda e, y: pearson(e, y.float()),
        "AUPRC": average_precision,
        "IoU": lambda e, y: iou(e > 0.5, y),
        "AUC": auc,
    }
    return {
        name: {
            "missing": round(checked.missing, 4),
            "extra": round(checked.extra, 4),
            "passed": checked.passed,
        }
        for name, metric in metrics.items()
        if (checked := sanity(metric, effects, truth))
    }


def _over(tested: Tested, units: Bool[Tensor, " unit"]) -> dict:
    """How many these units are, and how well their labels predict them."""
    low, high = mean_interval(tested.draws, units)
    return {
        "units": int(units.sum()),
        "share": _round(units.float().mean()),
        "simulation": _round(tested.simulation[units].mean()) if units.any() else None,
        "interval": [_round(low), _round(high)] if units.any() else None,
    }


def _chosen_elsewhere(tested: Tested, units: Bool[Tensor, " unit"]) -> float | None:
    """The mean over as many units, taken by their correlation on the images of the choice.

    Units taken by what the test images say of them look better there than they are.
    """
    taken = tested.validation.topk(int(units.sum())).indices
    return _round(tested.simulation[taken].mean()) if len(taken) else None


def _method(tested: Tested, edges: Tensor) -> dict:
    low, high = mean_interval(tested.draws)
    quantiles = tested.simulation.quantile(torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95]))
    result = {
        "simulation": _round(tested.simulation.mean()),
        "interval": [_round(low), _round(high)],
        "top": _round(tested.top.mean()),
        "quantiles": [_round(q) for q in quantiles],
        "histogram": torch.histogram(tested.simulation, edges).hist.int().tolist(),
        "shuffled_line": _round(tested.shuffled.line.mean()),
        "told_apart": _round(told_apart(tested.q_value).float().mean()),
        "reliable": _round(tested.reliable.float().mean()),
    }
    if tested.validation is not None:
        result |= {"chosen_on": _round(tested.validation.mean()), "phrases": tested.sizes}
    return result


def _ahead(ours: Tested, theirs: Tested) -> dict:
    """By how much our mean correlation is larger, on the same draws of images and units."""
    low, high = mean_interval(ours.draws - theirs.draws)
    difference = (ours.simulation - theirs.simulation).mean()
    return {"difference": _round(difference), "interval": [_round(low), _round(high)]}


def _spread(values: Tensor) -> list[float] | None:
    """Quartiles of what could be measured."""
    known = values[values.isfinite()]
    if not len(known):
        return None
    return [_round(q) for q in known.quantile(torch.tensor([0.25, 0.5, 0.75]))]


def _round(value: Tensor | float) -> float:
    return round(float(value), 4)
