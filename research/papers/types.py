"""What an experiment is: a measurement whose result is JSON, and its account for the page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Options:
    """Sizes of the experiments; the defaults take minutes on two cores for the bundled models."""

    images: int = 1000
    statistics: int = 2000
    indirect_images: int = 400
    indirect_neurons: int = 48
    pools: tuple[str, ...] = ()
    masks: str = "scenes"
    semantic: str = "scenes"
    masked_images: int = 120
    chosen_on: int = 30
    pictures: int = 40
    seeds: int = 2
    describer: str = "templates"
    painter: str = "composer"
    shift_runs: int = 12
    shift_size: int = 200
    shift_pool: int = 1200


# A look at whether everything works, not figures to quote.
QUICK = Options(
    images=200, statistics=400, indirect_images=100, indirect_neurons=8, masked_images=24,
    chosen_on=12, pictures=12, seeds=1, shift_runs=3, shift_size=50, shift_pool=240,
)  # fmt: skip


@dataclass(frozen=True)
class Table:
    """Rows of text under a line of column names."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Figure:
    """A drawing (SVG) and what it shows."""

    svg: str
    caption: str


@dataclass(frozen=True)
class Picture:
    """An image as a data URI, with the words under it."""

    uri: str
    words: str


@dataclass(frozen=True)
class Gallery:
    """Rows of pictures, each with a heading and words about it."""

    caption: str
    rows: Sequence[tuple[str, str, Sequence[Picture]]]


# What a model's training may have asked for, as its MODEL.md says under `trained_for`: that late
# attention brings the image into the class token, and MLPs write little into it.
LATE_CLASS_TOKEN = "late class token"

VERDICTS = ("holds", "holds by construction", "does not hold", "not decided")


@dataclass(frozen=True)
class Claim:
    """A statement of a paper; `holds` is None where the figures cannot decide it.

    `follows_from`: what makes it hold by construction in a model that was trained for that.
    """

    text: str
    holds: bool | None
    evidence: str
    follows_from: str | None = None

    def verdict(self, trained_for: Sequence[str] = ()) -> str:
        """One of `VERDICTS`, for a model whose training asked for some things."""
        if self.holds and self.follows_from in trained_for:
            return "holds by construction"
        return {True: "holds", False: "does not hold", None: "not decided"}[self.holds]


@dataclass(frozen=True)
class Section:
    """The account of one experiment."""

    title: str
    source: str
    text: str
    parts: Sequence[Table | Figure | Gallery]
    claims: Sequence[Claim] = field(default=())


@dataclass(frozen=True)
class Experiment:
    """`measure(context)` gives figures that JSON can hold, `report(figures)` their account.

    `kinds` are the towers that it is for, `options` the sizes that change its result, `reads` the
    parts of the bundle's `metrics.json` that it reports.
    """

    name: str
    kinds: tuple[str, ...]
    options: tuple[str, ...]
    measure: Callable[..., dict]
    report: Callable[[Mapping], Section]
    reads: tuple[str, ...] = ()
