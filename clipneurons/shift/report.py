"""Two sets of images compared, as JSON values: what the page shows and `export shift` writes."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from PIL import Image

from clipneurons.bundle.unit_words import neuron_and_head, signed_words, unit_name
from clipneurons.shift.comparison import EmbeddedTextPool, RankedTexts, Shift, compare
from clipneurons.shift.localisation import LocalisedChange, examples, localise_change, where
from clipneurons.shift.pixels import MEASURES
from clipneurons.shift.profile import Profile, Profiler

LEVEL = 0.05  # largest p-value that is significant
TEXTS, UNITS, IMAGES = 20, 12, 16  # in a report
_TOP_IMAGES = 12  # of a unit, a side


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
) -> dict:
    """Compare two sets; where they differ significantly, say in what and where.

    Returns:
        ``images``: number of images of the ``reference`` and ``new`` side.
        ``p``, ``level``, ``permutations``, ``significant``, ``tests``: the p-value of the
        comparison, whether it is at most the level, and the p-value of each test.

        All others are empty, and ``localised`` None, unless the difference is significant:

        ``pixels``: low-level properties that changed, largest change first: ``measure``,
        ``direction`` ("higher", "lower"), ``change`` in standard deviations, ``p`` and ``q``.
        ``units_changed``: number of units at a false-discovery rate of at most the level.
        ``units``: those that changed most: ``layer``, ``unit``, ``name``, ``label`` (texts),
        ``change``, ``p``, ``q``, and ``top_images`` of both sides in the change's direction.
        ``more``, ``less``: texts that the new images match more, and less: ``text``, ``score``.
        ``changed_images``: the new images that lie farthest along the change.
        ``localised``: the place where they differ from the reference, and its texts, or None.

    Raises:
        ValueError: fewer than two images on a side.
    """
    shift = compare(reference.profile, new.profile, pool, permutations, seed)
    significant = shift.p <= level
    report = {
        "images": {"reference": len(reference.profile), "new": len(new.profile)},
        "p": shift.p, "level": level, "permutations": permutations, "significant": significant,
        "tests": shift.tests, "pixels": [], "units_changed": 0, "units": [], "more": [],
        "less": [], "changed_images": [], "localised": None,
    }  # fmt: skip
    if not significant:
        return report
    changed_images = shift.changed_images(IMAGES)
    return report | {
        "pixels": changed_pixels(shift, level),
        "units_changed": int((shift.units.q <= level).sum()),
        "units": [
            _unit(profiler, shift, column, reference.profile, new.profile)
            for column in shift.top_units(UNITS)
        ],
        "more": text_rows(shift.more),
        "less": text_rows(shift.less),
        "changed_images": changed_images,
        "localised": localised(profiler, pool, reference, new, changed_images),
    }


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


def _unit(profiler: Profiler, shift: Shift, column: int, reference: Profile, new: Profile) -> dict:
    (layer, unit), bundle = profiler.names[column], profiler.bundle
    heads = bundle.config.units_per_neuron
    name = unit_name(*neuron_and_head(unit, heads), bundle.config.noun)
    return {
        "layer": layer,
        "unit": unit,
        "name": f"layer {layer}, {name}" if heads == 1 else name,
        "label": signed_words(bundle, layer, unit),
        "change": shift.units.change[column].item(),
        "p": shift.units.p[column].item(),
        "q": shift.units.q[column].item(),
        "top_images": {
            "reference": _top_images(reference, shift, column),
            "new": _top_images(new, shift, column),
        },
    }


def _top_images(profile: Profile, shift: Shift, column: int) -> list[int]:
    """Images in which a unit is strongest in the direction of its change."""
    effect = torch.sign(shift.units.score[column]) * profile.units[:, column]
    return effect.topk(min(_TOP_IMAGES, len(profile))).indices.tolist()
