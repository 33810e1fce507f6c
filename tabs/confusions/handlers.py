"""Events of the tab "Confusions": labelled images in, results and updates out."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

import gradio as gr
from PIL import Image

from tabs.confusions.layout import MOST_CLASSES, Widgets, layout
from tabs.confusions.view import (
    Classified,
    ablation_html,
    matrix_html,
    pair_rows,
    units_html,
)
from tabs.server.events import EACH, LATEST, ON_MODEL, PRIVATE
from tabs.server.handlers import HandedImage, Handles, handler, shown_by
from tabs.server.registry import BundleRegistry
from tabs.server.session import BundleSession
from tabs.server.uploads import UploadedImage, uploaded_images
from tabs.ui.former_result import says_whose
from tabs.ui.words import MOST_LETTERS, MOST_NAMES, untrained

if TYPE_CHECKING:
    from clipneurons.edit.confusions import Ablation, ConfusionReader, Progress

# Held-out photographs that ship with the project, animals that are easily confused.
_EXAMPLE = ("leopard", "cougar", "llama", "kangaroo", "elephant", "rhinoceros", "beaver",
            "hedgehog", "dalmatian", "crocodile")  # fmt: skip
_EXAMPLE_IMAGES = 16  # of a class
_SECONDS = 120


@dataclass(frozen=True)
class Tab:
    """The bundles, and the components that a handler's updates are for."""

    registry: BundleRegistry
    widgets: Widgets


def build(registry: BundleRegistry, source: gr.Dropdown) -> Handles:
    """Components and events; `source` holds the key of the chosen bundle."""
    widgets = layout(source)
    tab = Tab(registry, widgets)

    def classify_files(tab, bundle, files, progress=gr.Progress()):  # noqa: B008  Gradio's way
        return classify(tab, bundle, files, shown_by(progress))

    def classify_example(tab, bundle, progress=gr.Progress()):  # noqa: B008
        return example(tab, bundle, shown_by(progress))

    def ablate_pair(tab, classified, number, progress=gr.Progress()):  # noqa: B008
        return ablate(tab, classified, number, shown_by(progress))

    asks = dict(show_progress_on=[widgets.progress], **ON_MODEL, **PRIVATE)
    classified = [
        widgets.go.click(
            handler(tab, classify_files, _SECONDS), [source, widgets.files], widgets.results, **asks
        ),
        widgets.sample.click(
            handler(tab, classify_example, _SECONDS), [source], widgets.results, **asks
        ),
    ]
    says_whose(["confusions-found"], [widgets.files.change, source.change], classified)
    widgets.pair.input(
        handler(tab, choose_pair), [widgets.classified, widgets.pair],
        [widgets.images, widgets.units, widgets.ablation], **LATEST, **PRIVATE,
    )  # fmt: skip
    widgets.ablate.click(
        handler(tab, ablate_pair, _SECONDS), [widgets.classified, widgets.pair],
        [widgets.ablation, widgets.download], show_progress_on=[widgets.ablation],
        **ON_MODEL, **PRIVATE,
    )  # fmt: skip
    handed = widgets.images.select(
        handler(tab, hand_on), [widgets.classified, widgets.pair], [widgets.handed],
        **EACH, **PRIVATE,
    )  # fmt: skip
    units = gr.Textbox("", visible=False, label="Units")
    for function, inputs, name in (
        (confusions, [source, widgets.files, units], "confusions"),
        (confusions_example, [source], "confusions_example"),
    ):
        gr.on(
            [], handler(registry, function, _SECONDS), inputs,
            gr.JSON(visible=False, label="Confusions"), api_name=name, **ON_MODEL,
        )  # fmt: skip
    return Handles(hands=(("edit", handed, widgets.handed),))


# -- requests of programs


def confusions(
    registry: BundleRegistry, bundle: str, files: list[str] | None, ablate: str = ""
) -> dict:
    """Which classes a zero-shot classifier confuses, and the units behind each confusion.

    Returns the confusion matrix (rows: correct class), the accuracy, each image's correct and
    predicted class, and the confused pairs with their images and the units that add most to the
    wrong class over the right one; with `ablate` the accuracy without these units, and without
    random sets of as many.

    Args:
        bundle: key of the bundle, or "" for the one the page opens with.
        files: zip files of class folders, at most 500 images of 20 classes.
        ablate: units as LAYER.UNIT with commas between, such as "4.12, 5.3"; "" for none.
    """
    session, units = registry[bundle], units_of(ablate)
    classified = classify_uploads(session, uploaded_images(files or []))
    data = classified.confusions.to_json() | {
        "bundle": session.key, "skipped": classified.skipped
    }  # fmt: skip
    if not units:
        return data
    return data | {"ablation": asdict(_reader(session, classified).ablate(
        classified.confusions, units
    ))}  # fmt: skip


def confusions_example(registry: BundleRegistry, bundle: str) -> dict:
    """What `confusions` returns for photographs of ten kinds of animals that ship with the page.

    Args:
        bundle: key of the bundle, or "" for the one the page opens with.
    """
    session = registry[bundle]
    classified = classify_uploads(session, example_images())
    return classified.confusions.to_json() | {"bundle": session.key, "skipped": 0}


# -- classifications


def class_of(paths: Sequence[tuple[str, ...]]) -> list[str]:
    """Each file's class: the first folder in which paths of folders and a name differ.

    Raises `ValueError` for fewer than two classes and more than `MOST_CLASSES`.
    """
    folders = [path[:-1] for path in paths]
    levels = enumerate(zip_longest(*folders, fillvalue=""))
    shared = next((level for level, names in levels if len(set(names)) > 1), 0)
    classes = [(path[shared] if len(path) > shared else "").replace("_", " ") for path in folders]
    names = sorted(set(classes))
    if len(names) < 2 or "" in names:
        raise ValueError(
            "Expected images in one folder for each class, such as cats/1.jpg and dogs/1.jpg, or "
            "one zip file for each class."
        )
    if len(names) > MOST_CLASSES:
        raise ValueError(f"{len(names)} classes: send at most {MOST_CLASSES}.")
    return classes


def classify_uploads(
    session: BundleSession, uploads: Iterable[UploadedImage], progress: Progress = lambda *_: None
) -> Classified:
    """Labelled images classified by a bundle's model.

    Raises `ValueError` for no images and what `class_of` refuses.
    """
    import torch

    from clipneurons.edit.confusions import ConfusionReader, eight_bits

    paths, pixels, skipped = [], [], 0
    for upload in uploads:
        progress(len(pixels), 0, "Reading files")
        if upload.image is None:
            skipped += 1
            continue
        paths.append(upload.path)
        pixels.append(eight_bits(session.clip, session.clip.preprocess(upload.image)))
    if not pixels:
        raise ValueError("Choose a folder, or zip files of class folders, first.")
    classes = class_of(paths)
    names = sorted(set(classes))
    labels = torch.tensor([names.index(name) for name in classes])
    reader = ConfusionReader(session.edit_reader, names)
    found = reader.read(torch.stack(pixels), labels, progress)
    return Classified(session.key, found, skipped, tuple(untrained(session, names)))


def example_images() -> Iterable[UploadedImage]:
    """Shipped photographs that no bundled model was trained on, in folders of their classes."""
    from clipneurons.synthetic.photographs import load_photographs

    try:
        photographs = load_photographs()
    except FileNotFoundError:
        raise ValueError("The example's photographs are not installed: bring your own.") from None
    for name in _EXAMPLE:
        for row in photographs.by_name[name][:_EXAMPLE_IMAGES]:
            image = Image.fromarray(photographs.image(row))
            yield UploadedImage((name, str(row)), image)


def units_of(text: str) -> list[tuple[int, int]]:
    """Layers and units of a text such as "4.12, 5.3"; `ValueError` for anything else."""
    units = []
    for item in filter(None, (part.strip() for part in text.split(","))):
        layer, _, unit = item.partition(".")
        if not (layer.isdecimal() and unit.isdecimal()):
            raise ValueError(f"Unit {item!r}: expected LAYER.UNIT, such as 4.12")
        units.append((int(layer), int(unit)))
    return units


def _reader(session: BundleSession, classified: Classified) -> ConfusionReader:
    from clipneurons.edit.confusions import ConfusionReader

    return ConfusionReader(session.edit_reader, classified.confusions.class_names)


# -- updates of the page


def classify(
    tab: Tab, bundle: str, files: list[str] | None, progress: Progress = lambda *_: None
) -> dict:
    """The confusions of uploaded images."""
    session = tab.registry[bundle]
    return _shown(tab, classify_uploads(session, uploaded_images(files or []), progress))


def example(tab: Tab, bundle: str, progress: Progress = lambda *_: None) -> dict:
    """The confusions of photographs that ship with the page."""
    session = tab.registry[bundle]
    classified = session.cached(
        "confusions example", lambda: classify_uploads(session, example_images(), progress)
    )
    return _shown(tab, classified, "Example: held-out photographs of animals")


def choose_pair(tab: Tab, classified: Classified | None, number: int) -> dict:
    """The images of a pair, and the units behind it."""
    widgets = tab.widgets
    if classified is None or number >= len(classified.confusions.pairs):
        return {widgets.ablation: gr.skip()}
    pair = classified.confusions.pairs[number]
    bundle = tab.registry[classified.bundle].bundle
    return {
        widgets.images: gr.Gallery([classified.image(i) for i in pair.images], selected_index=None),
        widgets.units: units_html(bundle, classified.bundle, pair),
        widgets.ablation: "",
    }


def ablate(
    tab: Tab, classified: Classified | None, number: int, progress: Progress = lambda *_: None
) -> dict:
    """Accuracy on all images without the units behind a pair."""
    if classified is None:
        raise ValueError("Find confusions first.")
    session, found = tab.registry[classified.bundle], classified.confusions
    units = [(push.layer, push.unit) for push in found.pairs[number].units]
    ablation = _reader(session, classified).ablate(found, units, progress)
    return {
        tab.widgets.ablation: ablation_html(ablation, len(found.labels)),
        tab.widgets.download: _file(classified, ablation),
    }


def hand_on(tab: Tab, classified: Classified, number: int, event: gr.SelectData) -> HandedImage:
    """The image that was clicked, with as many of its classes as Edit takes."""
    pair, names = classified.confusions.pairs[number], [*classified.confusions.class_names]
    chosen = [pair.correct, pair.predicted]
    for name in names:
        if name not in chosen and len(", ".join([*chosen, name])) <= MOST_LETTERS:
            chosen.append(name)
    image = classified.image(pair.images[event.index])
    return HandedImage(classified.bundle, image, tuple(chosen[:MOST_NAMES]), pair.correct)


def command(session: BundleSession) -> str:
    """What goes on from here on the whole data set."""
    bundle = session.key if "/" in session.key else f"PATH/{session.key}"
    return f"python -m export mend --images FOLDER --bundle {bundle} --out mended"


def _shown(tab: Tab, classified: Classified, title: str = "") -> dict:
    widgets, session = tab.widgets, tab.registry[classified.bundle]
    pairs = pair_rows(classified.confusions)
    updates = {
        widgets.progress: "",
        widgets.classified: classified,
        widgets.found: gr.Column(visible=True),
        widgets.matrix: matrix_html(classified, title),
        widgets.details: gr.Column(visible=bool(pairs)),
        widgets.pair: gr.Radio(pairs or [("", 0)], value=0),
        widgets.download: _file(classified),
        widgets.command: command(session),
    }
    return updates | (choose_pair(tab, classified, 0) if pairs else {})


def _file(classified: Classified, ablation: Ablation | None = None) -> str:
    data = classified.confusions.to_json() | {"bundle": classified.bundle}
    if ablation:
        data |= {"ablation": asdict(ablation)}
    path = Path(tempfile.mkdtemp(prefix="clipneurons-")) / "confusions.json"
    path.write_text(json.dumps(data, indent=1) + "\n")
    return str(path)
