"""A classifier's confusions as HTML: the matrix, the units behind a pair, an ablation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from PIL import Image

from clipneurons.bundle.bundle import Bundle
from tabs.ui.plots import bars, empty, figures, percent, section
from tabs.ui.units import unit_bar
from tabs.ui.words import unknown_words_html

if TYPE_CHECKING:
    from clipneurons.edit.confusions import Ablation, ConfusedPair, Confusions


@dataclass(frozen=True, eq=False)
class Classified:
    """A bundle's confusions on a visitor's images, and how many files could not be read."""

    bundle: str
    confusions: Confusions
    skipped: int = 0
    never_trained: tuple[str, ...] = ()

    def image(self, number: int) -> Image.Image:
        """An image as the model reads it."""
        return Image.fromarray(self.confusions.pixels[number].permute(1, 2, 0).numpy())


def matrix_html(classified: Classified, title: str = "") -> str:
    """Accuracy, and a table of correct by predicted classes."""
    confusions = classified.confusions
    counts, names = confusions.matrix.tolist(), confusions.class_names
    summary = figures([
        (percent(confusions.accuracy), "classified correctly", "Zero-shot top-1 accuracy"),
        (f"{len(confusions.labels)}", "images", f"{classified.skipped} files could not be read"),
        (f"{len(names)}", "classes", ", ".join(names)),
    ])  # fmt: skip
    head = "".join(f'<th scope="col"><span>{escape(name)}</span></th>' for name in names)
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th>{_cells(counts[row], row)}</tr>'
        for row, name in enumerate(names)
    )
    table = (
        '<div class="cn-scroll" tabindex="0"><table class="cn-matrix"><caption>Numbers of '
        "images. Rows: correct class, columns: predicted class.</caption>"
        f"<thead><tr><td></td>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )
    skipped = f" {classified.skipped} files could not be read." if classified.skipped else ""
    return section(
        title or "Confusion matrix",
        unknown_words_html(classified.never_trained) + summary + table,
        skipped.strip(),
    )


def _cells(counts: Sequence[int], correct: int) -> str:
    total = max(1, sum(counts))
    return "".join(
        f'<td class="{"cn-right" if column == correct else "cn-wrong" if count else ""}" '
        f'style="--share:{count / total:.3f}">{count or ""}</td>'
        for column, count in enumerate(counts)
    )


def pair_rows(confusions: Confusions, most: int = 12) -> list[tuple[str, int]]:
    """The pairs that are confused most often, as choices."""
    return [
        (f"{pair.correct} → {pair.predicted}  ({len(pair.images)})", number)
        for number, pair in enumerate(confusions.pairs[:most])
    ]


def units_html(bundle: Bundle, key: str, pair: ConfusedPair) -> str:
    """The units that move the wrong class above the right one."""
    rows = [unit_bar(key, bundle, push.layer, push.unit, push.adds) for push in pair.units]
    title = f"Neurons that promote {pair.predicted} over {pair.correct}"
    note = "What each adds to the margin of the wrong class, the mean over these images."
    body = bars(rows, label=title, wide=True) if rows else empty("No neuron does.")
    return section(title, body, note)


def ablation_html(ablation: Ablation, images: int) -> str:
    """Accuracy before and after, beside random units."""
    count = len(ablation.units)
    random = sum(ablation.random) / len(ablation.random)
    spread = f"{percent(min(ablation.random))} to {percent(max(ablation.random))}"
    numbers = figures([
        (percent(ablation.before), "before", "Zero-shot top-1 accuracy"),
        (percent(ablation.after), f"without these {count} neurons", "Measured by forward passes"),
        (percent(random), f"without {count} random neurons",
         f"Mean of {len(ablation.random)} random sets, {spread}"),
    ])  # fmt: skip
    note = (
        f"Measured on all {images} images: {ablation.corrected} corrected, {ablation.broken} "
        "broken. The neurons were chosen on some of the same images, which favours them."
    )
    return section("All images without these neurons", numbers, note)
