"""The tab that compares two sets of images: what changed, in units, words and pictures."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING

import gradio as gr
import numpy as np
import torch
from PIL import Image, ImageDraw

from tabs.server.gpu import on_gpu
from tabs.server.messages import user_errors
from tabs.server.registry import BundleRegistry
from tabs.server.session import MODEL, BundleSession
from tabs.server.uploads import MOST_IMAGES, open_image, open_images
from tabs.ui import plots
from tabs.ui.neuron_card import unit_bar

if TYPE_CHECKING:
    from clipneurons.shift.comparison import Profile, Shift
    from clipneurons.shift.localisation import Box, LocalisedChange

TITLE = "Shift"
INTRO = (
    "Has something changed? Give two sets of images, as they should be and as they are now. The "
    "units whose mean contribution moved are listed, with what they say and what they saw."
)
_EXAMPLE = 80  # images a side
_SHARE = 0.4  # of the example's new images that carry the mark
_PERMUTATIONS = 300
_LEVEL = 0.05  # largest p-value that is called a difference
_UNITS = 12
_PICTURES = 12
_FRAME = "#0072b2"


@dataclass(frozen=True)
class Compared:
    """A comparison with the pictures of both sides."""

    bundle: str
    shift: Shift
    reference: list[Image.Image]
    new: list[Image.Image]
    profiles: tuple[Profile, Profile]
    names: list[tuple[int, int]]
    place: LocalisedChange | None

    def changes(self) -> list[tuple[int, int, float, float]]:
        """Layer, unit, change and false-discovery rate of the units that changed most."""
        units = self.shift.units
        return [
            (*self.names[column], units.change[column].item(), units.q[column].item())
            for column in self.shift.top_units(_UNITS)
        ]


def compare_images(
    session: BundleSession, reference: list[Image.Image], new: list[Image.Image]
) -> Compared:
    """Profile both sides and compare them; look closer at the images that carry a change."""
    from clipneurons.shift.comparison import EmbeddedTextPool, Profile, Profiler, compare
    from clipneurons.shift.localisation import examples, localise_change

    profiler = session.cached("profiler", lambda: Profiler(session.lens, session.bundle))

    def profile(images: list[Image.Image]) -> Profile:
        pixels = (torch.stack([session.clip.preprocess(i) for i in images[at : at + 32]])
                  for at in range(0, len(images), 32))  # fmt: skip
        return Profile.cat([profiler(batch) for batch in pixels])

    profiles = profile(reference), profile(new)
    pool = EmbeddedTextPool.of(session.bundle)
    shift, place = compare(*profiles, pool, permutations=_PERMUTATIONS), None
    if shift.p <= _LEVEL:
        usual = [reference[i] for i in examples(len(reference))]
        place = localise_change(session.clip, usual, [new[i] for i in shift.top_carriers()], pool)
    return Compared(session.key, shift, reference, new, profiles, profiler.names, place)


def example(session: BundleSession) -> tuple[list[Image.Image], list[Image.Image], str]:
    """Two halves of the bundle's pictures, one drawing stuck on some of the second half."""
    from clipneurons.synthetic.pictograms import load_pictograms

    numbers = session.sample(2 * _EXAMPLE)
    if len(numbers) < 4:
        raise ValueError("This bundle has too few pictures for an example: send your own.")
    pictures = []
    for number in numbers:
        pictures.append(open_image(BytesIO(session.bundle.examples[number])))
    pack = load_pictograms()
    words = [c for c in pack.concepts if c in set(session.bundle.texts)] or list(pack.concepts)
    word = words[len(words) // 2]
    mark = Image.fromarray(np.array(pack.lookup(word, pack.styles_of(word)[0])))
    new = pictures[1::2]
    for picture in new[: round(_SHARE * len(new))]:
        side = round(0.36 * min(picture.size))
        drawn = mark.resize((side, side), Image.Resampling.LANCZOS)
        picture.paste(drawn, (picture.width - side - 2, picture.height - side - 2), drawn)
    return pictures[::2], new, word


def verdict(compared: Compared, skipped: int = 0) -> str:
    """The overall p-value and that of each statistic."""
    shift = compared.shift
    changed = int((shift.units.q <= 0.05).sum())
    text = "The sets differ" if shift.p <= _LEVEL else "No difference found"
    note = f"{len(compared.new)} new images against {len(compared.reference)}."
    if skipped:
        note += f" {skipped} files could not be read."
    cells = [
        (_p_text(shift.p), "p of the comparison", "by permutation, all statistics together"),
        (str(changed), "units changed", "at a false-discovery rate of 5 %"),
    ]
    cells += [(_p_text(p), f"p, {name}", "one of the combined statistics")
              for name, p in shift.tests.items()]  # fmt: skip
    return plots.section(text, plots.figures(cells), note)


def _p_text(p: float) -> str:
    least = 1 / (_PERMUTATIONS + 1)
    return f"≤ {least:.2g}" if p < 1.5 * least else f"{p:.3g}"


def words(compared: Compared) -> str:
    """Words said more and less, and at the place where a change lies."""
    spread = ""
    if compared.place is None and compared.shift.p <= _LEVEL:
        text = "No single place of the images differs: the change is spread over them."
        spread = f'<p class="cn-note">{text}</p>'
    sides = [("Said more", compared.shift.more, ""), ("Said less", compared.shift.less, "")]
    if compared.place is not None:
        from clipneurons.shift.localisation import where

        note = "Where the new images differ most, cut out and read by itself."
        title = f"A closer look: {where(compared.place.box)}"
        sides.insert(0, (title, compared.place.words, note))
    return spread + "".join(
        plots.section(
            title,
            plots.bars([plots.Bar(*pair) for pair in side.top(10)], label=title, digits=1),
            note,
        )
        for title, side, note in sides
    )


def units(compared: Compared, session: BundleSession) -> str:
    """The units that changed most, as bars that lead into the dictionary."""
    rows = []
    for layer, unit, change, rate in compared.changes():
        hint = f"{change:+.2f} standard deviations, false-discovery rate {rate:.2g}"
        rows.append(unit_bar(session.key, session.bundle, layer, unit, change, hint))
    return plots.section(
        "Units that changed most",
        plots.bars(rows, label="Change of each unit", wide=True),
        "Difference of the mean contributions, in standard deviations.",
    )


def pictures(compared: Compared, place: int) -> tuple[list[Image.Image], list[Image.Image]]:
    """Images in which a unit is strongest, on both sides; place 0 is the whole change."""
    if place == 0:
        order = compared.shift.top_carriers(_PICTURES)
        shown = [compared.new[i] for i in order]
        if compared.place is not None:
            shown = [outlined(picture, compared.place.box) for picture in shown]
        return compared.reference[:_PICTURES], shown
    column = compared.shift.top_units(_UNITS)[place - 1]
    sign = 1 if compared.shift.units.score[column] > 0 else -1
    sides = []
    for images, profile in zip((compared.reference, compared.new), compared.profiles, strict=True):
        order = (sign * profile.units[:, column]).topk(min(_PICTURES, len(images))).indices
        sides.append([images[i] for i in order.tolist()])
    return sides[0], sides[1]


def galleries(compared: Compared, place: int) -> tuple[gr.Gallery, gr.Gallery]:
    """The `pictures` of both sides under labels that say which unit they are of."""
    unit = ""
    if place:
        unit = " · {} · {}".format(*compared.names[compared.shift.top_units(_UNITS)[place - 1]])
    before, after = pictures(compared, place)
    return gr.Gallery(before, label=f"Reference{unit}"), gr.Gallery(after, label=f"New{unit}")


def compared_data(compared: Compared) -> dict:
    """A comparison as the API gives it."""
    shift, place = compared.shift, compared.place

    def said(words) -> list[dict]:
        return [{"text": text, "score": score} for text, score in words.top(10)]

    keys = ("layer", "unit", "change", "q")
    units = [dict(zip(keys, row, strict=True)) for row in compared.changes()]
    return {
        "bundle": compared.bundle, "p": shift.p, "tests": shift.tests,
        "more": said(shift.more), "less": said(shift.less), "units": units,
        "carriers": shift.top_carriers(_PICTURES),
        "localised": place and {"box": list(place.box), "words": said(place.words)},
    }  # fmt: skip


def outlined(picture: Image.Image, box: Box) -> Image.Image:
    """The picture with a frame around the box."""
    framed = picture.convert("RGB")
    sides = (picture.width - 1, picture.height - 1) * 2
    corners = [round(share * side) for share, side in zip(box, sides, strict=True)]
    ImageDraw.Draw(framed).rectangle(corners, outline=_FRAME, width=max(2, min(picture.size) // 48))
    return framed


def build(registry: BundleRegistry, source: gr.components.Component) -> None:
    """The tab's components and events; ``source`` holds the chosen bundle's key."""
    state = gr.State()
    gr.Markdown(INTRO, elem_classes="cn-lede")
    with gr.Row():
        options = dict(file_count="multiple", file_types=[".zip", "image"], height=140)
        reference = gr.File(label="As it should be", elem_id="shift-reference", **options)
        new = gr.File(label="As it is now", elem_id="shift-new", **options)
    gr.HTML(
        f'<p class="cn-note">Zip files or images, at most {MOST_IMAGES} a side; with fewer than '
        "50, only gross changes are found.</p>"
    )
    with gr.Row():
        go = gr.Button("Compare", variant="primary", elem_id="shift-go")
        sample = gr.Button("Try the example", elem_id="shift-example")
    summary = plots.html(
        plots.empty("What changed is said here: in words, in neurons and in pictures."),
        elem_id="shift-verdict",
    )
    with gr.Row():
        said = plots.html(elem_id="shift-words")
        changed = plots.html(elem_id="shift-units")
    place = gr.Slider(
        0, _UNITS, 0, step=1, label="Show pictures of unit (0: what carries the change)",
        elem_id="shift-place",
    )  # fmt: skip
    with gr.Row(elem_classes="cn-sides"):
        before = gr.Gallery(label="Reference", columns=6, height="auto", elem_id="shift-before")
        after = gr.Gallery(label="New", columns=6, height="auto", elem_id="shift-after")

    def shown(compared: Compared, session: BundleSession, skipped: int = 0, note: str = ""):
        text = verdict(compared, skipped) + note
        return compared, text, words(compared), units(compared, session), 0, *galleries(compared, 0)

    def compare_given(bundle: str, reference: list[str] | None, new: list[str] | None):
        if not reference or not new:
            raise ValueError("Choose images for both sides first.")
        (old, lost), (fresh, missing) = open_images(reference), open_images(new)
        return compare_images(registry[bundle], old, fresh), lost + missing

    @on_gpu(120)
    @user_errors
    def compare_files(bundle: str, reference: list[str] | None, new: list[str] | None):
        compared, skipped = compare_given(bundle, reference, new)
        return shown(compared, registry[bundle], skipped)

    @on_gpu(120)
    @user_errors
    def compare_sets(bundle: str, reference: list[str] | None, new: list[str] | None) -> dict:
        """Compare two sets of images, each as zip or picture files.

        Returns the p-value of the whole comparison and of each of its tests, the texts said more
        and less, the units that changed most (change in standard deviations, and q, the
        false-discovery rate), the numbers of the new images that carry the change, and the closer
        look: a box (left, top, right, bottom, in shares of the image) with what is said there, or
        null where no place differs.

        Args:
            bundle: key of the bundle, or "" for the one the page opens with.
            reference: zip or picture files as they should be, 2 to 500 images.
            new: zip or picture files as they are now, 2 to 500 images.
        """
        compared, skipped = compare_given(bundle, reference, new)
        return compared_data(compared) | {"skipped": skipped}

    @on_gpu(120)
    @user_errors
    def compare_example(bundle: str) -> dict:
        """Compare the bundle's own pictures, with a drawing stuck on some of them.

        Returns what `compare_sets` does, and the name of the drawing.

        Args:
            bundle: key of the bundle, or "" for the one the page opens with.
        """
        session = registry[bundle]
        old, fresh, word = example(session)
        return compared_data(compare_images(session, old, fresh)) | {"drawing": word}

    @on_gpu(120)
    @user_errors
    def show_example(bundle: str):
        session = registry[bundle]
        old, fresh, word = example(session)
        note = f"A “{word}” was stuck on the corner of {_SHARE:.0%} of the new images."
        return shown(compare_images(session, old, fresh), session, note=plots.empty(note))

    @user_errors
    def turn(compared: Compared | None, place: float):
        return gr.skip() if compared is None else galleries(compared, int(place))

    outputs = [state, summary, said, changed, place, before, after]
    private, lane = {"api_visibility": "private"}, {"concurrency_id": MODEL}
    go.click(compare_files, [source, reference, new], outputs, **private, **lane)
    sample.click(show_example, [source], outputs, **private, **lane)
    place.release(turn, [state, place], [before, after], **private)
    # For programs: nothing on the page triggers them.
    data = gr.JSON(visible=False, label="Comparison")
    gr.on([], compare_sets, [source, reference, new], data, api_name="compare_sets", **lane)
    gr.api(compare_example, api_name="compare_example", **lane)
