"""Two sets of images compared: what the page shows and `export shift` writes."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import torch
from PIL import Image

from clipneurons.bundle.unit_words import neuron_and_head, signed_words, unit_name
from clipneurons.notebook import article, bars, gallery, number
from clipneurons.shift.comparison import EmbeddedTextPool, RankedTexts, Shift, compare
from clipneurons.shift.localisation import LocalisedChange, examples, localise_change, where
from clipneurons.shift.pixels import MEASURES
from clipneurons.shift.profile import Profile, Profiler

LEVEL = 0.05  # largest p-value that is significant
TEXTS, UNITS, IMAGES = 20, 12, 16  # in a report
_TOP_IMAGES = 12  # of a unit, a side


@dataclass(frozen=True)
class ChangedText:
    """A text that the new images match more, or less, than the reference."""

    text: str
    score: float


@dataclass(frozen=True)
class ChangedMeasure:
    """A low-level property that changed: "higher" or "lower", by so many standard deviations."""

    measure: str
    direction: str
    change: float
    p: float
    q: float


@dataclass(frozen=True)
class ChangedUnit:
    """A unit that changed by so many standard deviations, with its reliable label's texts.

    ``top_images`` are numbers of images of the ``reference`` and the ``new`` side in which it is
    strongest in the direction of the change.
    """

    layer: int
    unit: int
    name: str
    label: list[str]
    change: float
    p: float
    q: float
    top_images: dict[str, list[int]] = field(repr=False)


@dataclass(frozen=True)
class ChangedPlace:
    """Where images differ: left, top, right, bottom in shares of the image; its texts."""

    box: list[float]
    where: str
    texts: list[ChangedText]


@dataclass(frozen=True)
class SetComparison:
    """Whether two sets of images differ; if they do significantly, in what and where.

    Attributes:
        images: number of images of the ``reference`` and ``new`` side.
        p: p-value of the comparison, significant up to ``level``.
        tests: p-value of each test.
        pixels: low-level properties that changed, largest change first.
        units_changed: number of units at a false-discovery rate of at most the level.
        units: those that changed most.
        more, less: texts that the new images match more, and less.
        changed_images: numbers of the new images that lie farthest along the change.
        localised: the place where images differ, or None.
        shown: thumbnails of the changed images.
    """

    images: dict[str, int]
    p: float
    level: float
    permutations: int
    significant: bool
    tests: dict[str, float]
    pixels: list[ChangedMeasure] = field(default_factory=list)
    units_changed: int = 0
    units: list[ChangedUnit] = field(default_factory=list)
    more: list[ChangedText] = field(default_factory=list)
    less: list[ChangedText] = field(default_factory=list)
    changed_images: list[int] = field(default_factory=list)
    localised: ChangedPlace | None = None
    shown: tuple[Image.Image, ...] = field(default=(), repr=False)

    def to_dict(self) -> dict[str, Any]:
        """In JSON values, as the page's endpoint gives it; without thumbnails."""
        plain = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "shown"}
        for name in ("pixels", "units", "more", "less"):
            plain[name] = [asdict(row) for row in plain[name]]
        return plain | {"localised": self.localised and asdict(self.localised)}

    def __repr__(self) -> str:
        lines = [f"{self._verdict} ({self._note})"]
        lines += [f"  {change.measure} {change.direction}" for change in self.pixels]
        for name, texts in (("more", self.more), ("less", self.less)):
            if texts:
                lines.append(f"  {name}: {', '.join(row.text for row in texts[:5])}")
        if self.units:
            units = (f"{u.layer}·{u.unit} ({number(u.change)} sd)" for u in self.units[:5])
            lines.append(f"  {self.units_changed} units changed: {', '.join(units)}")
        if self.localised:
            lines.append(f"  where: {self.localised.where}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        units = [(f"{u.layer} · {u.unit}  {', '.join(u.label)}", u.change) for u in self.units]
        pixels = [(change.measure, change.change) for change in self.pixels]
        more, less = ([(r.text, r.score) for r in rows[:8]] for rows in (self.more, self.less))
        changed = zip(self.shown, self.changed_images, strict=False)
        return article(
            self._verdict,
            bars("Pixels: change in standard deviations", pixels),
            bars("Texts that new images match more", more),
            bars("Texts that new images match less", less),
            bars("Units: change in standard deviations", units),
            gallery("New images that changed most", [(im, f"image {i}") for im, i in changed]),
            note=self._note,
        )

    @property
    def _verdict(self) -> str:
        return "The sets differ" if self.significant else "No significant difference"

    @property
    def _note(self) -> str:
        sizes = f"{self.images['new']} new images against {self.images['reference']}"
        return f"p = {self.p:.3g}, {sizes}"


@dataclass(frozen=True)
class ImageSet:
    """The images of one side: their profile, and how to see one of them again."""

    profile: Profile
    image: Callable[[int], Image.Image]


def compare_sets(
    profiler: Profiler,
    pool: EmbeddedTextPool,
    reference: ImageSet,
    new: ImageSet,
    *,
    level: float = LEVEL,
    permutations: int = 300,
    seed: int = 0,
) -> SetComparison:
    """Compare two sets; where they differ significantly, say in what and where.

    Raises:
        ValueError: fewer than two images on a side.
    """
    shift = compare(reference.profile, new.profile, pool, permutations, seed)
    images = {"reference": len(reference.profile), "new": len(new.profile)}
    significant = shift.p <= level
    tested = SetComparison(images, shift.p, level, permutations, significant, shift.tests)
    if not significant:
        return tested
    changed_images = shift.changed_images(IMAGES)
    place = localised(profiler, pool, reference, new, changed_images)
    if place:
        place["texts"] = _texts(place["texts"])
    return replace(
        tested,
        pixels=[ChangedMeasure(**row) for row in changed_pixels(shift, level)],
        units_changed=int((shift.units.q <= level).sum()),
        units=[
            _unit(profiler, shift, column, reference.profile, new.profile)
            for column in shift.top_units(UNITS)
        ],
        more=_texts(text_rows(shift.more)),
        less=_texts(text_rows(shift.less)),
        changed_images=changed_images,
        localised=place and ChangedPlace(**place),
    )


def _texts(rows: list[dict]) -> list[ChangedText]:
    return [ChangedText(**row) for row in rows]


def changed_pixels(shift: Shift, level: float) -> list[dict]:
    """Significant changes of low-level properties, largest first."""
    if shift.pixels is None:
        return []
    tests = shift.pixels
    order = tests.score.abs().argsort(descending=True).tolist()
    return [
        {
            "measure": MEASURES[column],
            "direction": "higher" if tests.change[column] > 0 else "lower",
            "change": tests.change[column].item(),
            "p": tests.p[column].item(),
            "q": tests.q[column].item(),
        }
        for column in order
        if tests.q[column] <= level
    ]


def localised(
    profiler: Profiler,
    pool: EmbeddedTextPool,
    reference: ImageSet,
    new: ImageSet,
    changed_images: list[int],
) -> dict | None:
    """Where the changed images differ from the reference: ``box``, ``where`` and ``texts``."""
    if len(changed_images) < 2:
        return None
    usual = [reference.image(number) for number in examples(len(reference.profile))]
    changed = [new.image(number) for number in changed_images]
    place = localise_change(profiler.lens.clip, usual, changed, pool)
    return place and _place(place)


def _place(place: LocalisedChange) -> dict:
    return {"box": list(place.box), "where": where(place.box), "texts": text_rows(place.texts)}


def text_rows(texts: RankedTexts, count: int = TEXTS) -> list[dict]:
    """The first texts as rows of ``text`` and ``score``."""
    return [{"text": text, "score": score} for text, score in texts.top(count)]


def _unit(
    profiler: Profiler, shift: Shift, column: int, reference: Profile, new: Profile
) -> ChangedUnit:
    (layer, unit), bundle = profiler.names[column], profiler.bundle
    heads = bundle.config.units_per_neuron
    name = unit_name(*neuron_and_head(unit, heads), bundle.config.noun)
    return ChangedUnit(
        layer=layer,
        unit=unit,
        name=f"layer {layer}, {name}" if heads == 1 else name,
        label=signed_words(bundle, layer, unit),
        change=shift.units.change[column].item(),
        p=shift.units.p[column].item(),
        q=shift.units.q[column].item(),
        top_images={
            "reference": _top_images(reference, shift, column),
            "new": _top_images(new, shift, column),
        },
    )


def _top_images(profile: Profile, shift: Shift, column: int) -> list[int]:
    """Images in which a unit is strongest in the direction of its change."""
    effect = torch.sign(shift.units.score[column]) * profile.units[:, column]
    return effect.topk(min(_TOP_IMAGES, len(profile))).indices.tolist()
