"""A classifier that a planted cue misleads, mended by ablating few neurons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from export.common.numbers import percent, spread
from export.mend.mender import OURS
from research.mending.benchmark import UNCHANGED, rivals
from research.papers.charts import Bar, bar_chart
from research.papers.context import EvaluationContext
from research.papers.types import Claim, Experiment, Figure, Section, Table


def measure(context: EvaluationContext) -> dict:
    """What `research mending` left in the bundle."""
    return dict(context.bundle.metrics.get("mending", {}))


def report(result: Mapping) -> Section:
    """Worst group and mean by condition with intervals over tasks, and each task and seed."""
    title = "A misled classifier, mended"
    source = "2406.04341, Section 6 (what neurons could be used for); 2310.05916, Section 5.3"
    if not result:
        return Section(title, source, "Not measured; python -m research mending does.", [])
    rows = result["rows"]
    names = list(rows[0]["conditions"])
    tasks = [f"{row['kind']}: {row['task']}" for row in rows]
    worst, mean = (
        {name: _values(rows, name, key) for name in names} for key in ("worst", "average")
    )
    gap = mean[UNCHANGED] - worst[UNCHANGED]
    bars = [
        Bar(name, 100 * float(worst[name].mean()), [100 * e for e in interval(worst[name], tasks)],
            0 if name.startswith(OURS) else 1)
        for name in names
    ]  # fmt: skip
    units = [row["units"] for row in rows]
    return Section(
        title=title,
        source=source,
        text="Pairs of classes in scenes whose companion or ground pulls toward the other class: "
        f"those that mislead this model most. On {result['images']} images, nine tenths of each "
        "class with its own cue, the fewest neurons are sought whose mean-ablation helps the "
        f"worst-read group ({min(units)} to {max(units)} of them); measured on other drawings and "
        "photographs, as many of every group. For real: on their activations, as many of them as "
        "the model itself gains by on left-out images, maybe none. Controls of the same size, "
        "attention heads as TextSpan takes out, a constant for each class, and a linear probe "
        "trained on the same images.",
        parts=[
            Figure(
                bar_chart(bars, "accuracy of the worst group, %"),
                "Mean over tasks and seeds, with 95 % intervals (bootstrap over tasks).",
            ),
            Table(
                "Accuracy in per cent, mean over tasks and seeds; gap: the unchanged model's mean "
                "minus its worst group.",
                ["", "worst group", "mean of groups", "gap closed"],
                [
                    [
                        name,
                        spread(float(worst[name].mean()), interval(worst[name], tasks)),
                        spread(float(mean[name].mean()), interval(mean[name], tasks)),
                        percent(_closed(worst, gap, name), 0),
                    ]
                    for name in names
                ],
            ),
            Table(
                "Worst group by task and seed, per cent; neurons with what they are set to, their "
                "mean over the bundle's data or over the images at hand.",
                ["images", "classes (cues)", "neurons", "for real", *names],
                [
                    [
                        row["kind"], row["task"], _count(row, "units", "means"),
                        _count(row, "real_units", "real_means"),
                        *(percent(row["conditions"][name]["worst"]) for name in names),
                    ]
                    for row in rows
                ],
            ),
        ],
        claims=_claims(worst, mean, gap, names, tasks),
    )  # fmt: skip


def interval(values: np.ndarray, tasks: Sequence[str], draws: int = 10_000) -> list[float]:
    """95 % interval of a mean, by bootstrap over tasks: seeds of one task are not independent."""
    names = sorted(set(tasks))
    totals = np.array([sum(v for v, t in zip(values, tasks, strict=True) if t == n) for n in names])
    counts = np.array([list(tasks).count(name) for name in names])
    drawn = np.random.default_rng(0).integers(len(names), size=(draws, len(names)))
    means = totals[drawn].sum(1) / counts[drawn].sum(1)
    return np.quantile(means, [0.025, 0.975]).tolist()


def _count(row: Mapping, units: str, means: str) -> str:
    """A number of neurons and what they are set to."""
    return f"{row[units]} ({row[means]})" if row[units] else "0"


def _values(rows: Sequence[Mapping], name: str, key: str) -> np.ndarray:
    """A condition's figure in every row."""
    return np.array([row["conditions"][name][key] for row in rows])


def _closed(worst: Mapping[str, np.ndarray], gap: np.ndarray, name: str) -> float:
    return float((worst[name] - worst[UNCHANGED]).mean() / max(float(gap.mean()), 1e-12))


def _claims(
    worst: Mapping[str, np.ndarray],
    mean: Mapping[str, np.ndarray],
    gap: np.ndarray,
    names: Sequence[str],
    tasks: Sequence[str],
) -> list[Claim]:
    best = max(rivals(names), key=lambda name: float(worst[name].mean()))
    lead = worst[OURS] - worst[best]
    low, high = interval(lead, tasks)
    closed, lost = _closed(worst, gap, OURS), float((mean[UNCHANGED] - mean[OURS]).mean())
    ahead = True if low > 0 else False if high < 0 else None
    return [
        Claim(
            "Ablating few neurons closes at least half of the gap between the worst group and the "
            "mean, and costs the mean at most one point.",
            closed >= 0.5 and lost <= 0.01,
            f"{percent(closed, 0)} % of {percent(float(gap.mean()))} points closed, "
            f"{percent(-lost)} points on the mean.",
        ),
        Claim(
            "No control does as much.",
            ahead,
            f"The best control is {best}: ours is {percent(float(lead.mean()))} points ahead "
            f"(95 % {percent(low)} to {percent(high)}).",
        ),
    ]


EXPERIMENT = Experiment("mending", ("vit", "resnet"), (), measure, report, reads=("mending",))
