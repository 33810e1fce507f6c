"""Two sets of pictures compared, as data: what a page shows of it and a file can keep."""

from collections.abc import Callable, Sequence

import torch
from PIL import Image

from clipneurons.shift.comparison import EmbeddedTextPool, Shift, Words, compare
from clipneurons.shift.localisation import examples, localise_change
from clipneurons.shift.profile import Profile, Profiler

PERMUTATIONS = 300
LEVEL = 0.05  # largest p-value that is called a difference
WORDS, UNITS, PICTURES = 10, 12, 12


def read_shift(
    profiler: Profiler,
    pool: EmbeddedTextPool,
    reference: Sequence[Image.Image],
    new: Sequence[Image.Image],
    progress: Callable[[int], object] = lambda _: None,
) -> dict:
    """Compare two sets of pictures; look closer at those that carry a change. In JSON values:

    ``p`` and ``tests`` (p-values); ``changed``, how many units did at a false-discovery rate of
    5 %; ``more`` and ``less``, texts with scores; ``units``, those that changed most, with change
    in standard deviations and rate ``q``; ``carriers``, the new pictures that carry the change;
    ``localised``, its box and words, or None; ``counts`` of pictures a side; ``strongest``, for
    each unit of ``units`` the pictures of both sides in which it is strongest.

    Raises `ValueError` for fewer than two pictures on a side. ``progress`` counts pictures read.
    """
    before, after = (profiler.of_pictures(side, progress=progress) for side in (reference, new))
    shift, place = compare(before, after, pool, permutations=PERMUTATIONS), None
    if shift.p <= LEVEL:
        usual = [reference[i] for i in examples(len(reference))]
        carriers = [new[i] for i in shift.top_carriers()]
        place = localise_change(profiler.lens.clip, usual, carriers, pool)
    columns = shift.top_units(UNITS)
    return {
        "p": shift.p, "tests": shift.tests, "changed": int((shift.units.q <= 0.05).sum()),
        "more": _said(shift.more), "less": _said(shift.less),
        "units": [_unit(profiler, shift, column) for column in columns],
        "carriers": shift.top_carriers(PICTURES),
        "localised": place and {"box": list(place.box), "words": _said(place.words)},
        "counts": [len(reference), len(new)],
        "strongest": [
            [_strongest(side, shift, column) for side in (before, after)] for column in columns
        ],
    }  # fmt: skip


def _said(words: Words) -> list[dict]:
    return [{"text": text, "score": score} for text, score in words.top(WORDS)]


def _unit(profiler: Profiler, shift: Shift, column: int) -> dict:
    layer, unit = profiler.names[column]
    change, rate = shift.units.change[column].item(), shift.units.q[column].item()
    return {"layer": layer, "unit": unit, "change": change, "q": rate}


def _strongest(profile: Profile, shift: Shift, column: int) -> list[int]:
    """Pictures in which a unit moves most in the direction of its change."""
    sign = torch.sign(shift.units.score[column])
    return (sign * profile.units[:, column]).topk(min(PICTURES, len(profile))).indices.tolist()
