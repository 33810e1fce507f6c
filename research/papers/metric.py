"""What conditions are compared by, accuracy or agreement, and how shares are written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from export.common.numbers import percent
from research.papers.charts import Line


@dataclass(frozen=True)
class Metric:
    """What conditions are compared by: `name` is a key of their figures, `base` the model's own."""

    name: str
    base: float
    note: str = ""

    def __call__(self, figures: Mapping) -> tuple[float, Sequence[float]]:
        """A condition's value and its 95 % interval."""
        return figures[self.name], figures[f"{self.name}_interval"]

    def line(self, label: str, x: Sequence[float], conditions: Iterable[Mapping]) -> Line:
        """A chart's line in per cent, with intervals, through one condition for each ``x``."""
        values = [self(figures) for figures in conditions]
        return Line(
            label,
            x,
            [100 * value for value, _ in values],
            [[100 * end for end in interval] for _, interval in values],
        )

    @property
    def axis(self) -> str:
        """Name of a chart's axis."""
        return {"accuracy": "accuracy, %", "agreement": "same class as unchanged, %"}[self.name]


# Below this accuracy there is too little to lose.
_ACCURATE = 0.2


def metric(baseline: Mapping) -> Metric:
    """Accuracy; agreement with the unchanged model where it is hardly ever right, or unknown."""
    accuracy = baseline.get("accuracy")
    if accuracy is not None and accuracy >= _ACCURATE:
        return Metric("accuracy", accuracy)
    known = "The images have no labels"
    if accuracy is not None:
        known = f"The unchanged model is right on only {percent(accuracy)} % of these images"
    note = f" {known}, so what is given is the share that keeps the unchanged model's class."
    return Metric("agreement", 1.0, note)
