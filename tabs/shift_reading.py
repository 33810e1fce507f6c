"""What the Shift tab does, as data: sets compared, the bundle's own example, their pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw

from tabs.server.session import BundleSession
from tabs.server.uploads import open_image
from tabs.ui.shift_card import unit_rows, verdict_html, words_html

if TYPE_CHECKING:
    from clipneurons.shift.comparison import EmbeddedTextPool
    from clipneurons.shift.profile import Profiler

_FRAME = "#0072b2"
_NO_READING = (KeyError, TypeError, ValueError, IndexError, AttributeError, FileNotFoundError)


@dataclass(frozen=True)
class Compared:
    """A comparison (`read_shift`) with the pictures of both sides."""

    data: dict
    reference: list[Image.Image]
    new: list[Image.Image]


def compare_images(
    session: BundleSession,
    reference: list[Image.Image],
    new: list[Image.Image],
    progress: Callable[[int], object] = lambda _: None,
) -> Compared:
    """Profile both sides and compare them."""
    from clipneurons.shift.reading import read_shift

    data = read_shift(*prepared(session), reference, new, progress)
    return Compared({"bundle": session.key} | data, reference, new)


def prepared(session: BundleSession) -> tuple[Profiler, EmbeddedTextPool]:
    """What any two sets are compared with, made once."""
    from clipneurons.shift.comparison import EmbeddedTextPool
    from clipneurons.shift.profile import Profiler

    def texts() -> EmbeddedTextPool:
        pool = EmbeddedTextPool.of(session.bundle)
        pool.centred  # noqa: B018  (made here, not in front of an answer)
        return pool

    profiler = session.cached("profiler", lambda: Profiler(session.lens, session.bundle))
    return profiler, session.cached("texts of shifts", texts)


def example(session: BundleSession) -> tuple[list[Image.Image], list[Image.Image], str]:
    """Two halves of the bundle's pictures, one drawing stuck on some of the second half."""
    from clipneurons.shift.planted import IMAGES, planted_mark

    def make():
        numbers = session.sample(2 * IMAGES)
        pictures = [open_image(BytesIO(session.bundle.examples[number])) for number in numbers]
        return planted_mark(pictures, session.bundle.texts)

    return session.cached("shift example", make)


def pictures(compared: Compared, place: int) -> tuple[list[Image.Image], list[Image.Image]]:
    """Pictures in which a unit is strongest, on both sides; place 0 is the whole change."""
    data = compared.data
    if place:
        before, after = data["strongest"][place - 1]
        return [compared.reference[i] for i in before], [compared.new[i] for i in after]
    shown = [compared.new[i] for i in data["carriers"]]
    if data["localised"]:
        shown = [outlined(picture, data["localised"]["box"]) for picture in shown]
    return compared.reference[: len(shown)], shown


def outlined(picture: Image.Image, box: list[float]) -> Image.Image:
    """The picture with a frame around the box (left, top, right, bottom, in shares of it)."""
    framed = picture.convert("RGB")
    sides = (picture.width - 1, picture.height - 1) * 2
    corners = [round(share * side) for share, side in zip(box, sides, strict=True)]
    ImageDraw.Draw(framed).rectangle(corners, outline=_FRAME, width=max(2, min(picture.size) // 48))
    return framed


def opening_shift(session: BundleSession) -> tuple[Compared, str] | None:
    """A comparison of the bundle's own images, and the word of the drawing on some of them.

    None where the bundle, which may come from a stranger, ships none or one of another form. Made
    once, without the model.
    """
    return session.cached("opening shift", lambda: _opening(session))


def _opening(session: BundleSession) -> tuple[Compared, str] | None:
    from clipneurons.shift.planted import planted_mark

    try:
        shipped = session.bundle.opening["shift"]
        images = [session.image(number) for number in shipped["pictures"]]
        old, new, word = planted_mark(images, session.bundle.texts, shipped["word"])
        compared = Compared({"bundle": session.key} | shipped["reading"], old, new)
        data = compared.data
        verdict_html(data), words_html(data), unit_rows(data, session.bundle)
    except _NO_READING:
        return None
    return compared, word
