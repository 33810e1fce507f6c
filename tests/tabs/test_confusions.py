"""The confusions tab through its handlers: uploads are labelled by their folders, and bounded."""

import io
import json
import re
import zipfile
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from clipneurons.reader import Reader
from tabs.confusions import handlers
from tabs.confusions.handlers import Tab
from tabs.confusions.layout import Widgets
from tabs.server.registry import BundleRegistry
from tabs.server.session import BundleSession
from tabs.server.uploads import uploaded_images
from tests.helpers.models import tiny_vit
from tests.helpers.tiny import tiny_bundle


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    clip = tiny_vit(embed_dim=24)
    session = BundleSession("tiny", tmp_path_factory.mktemp("none"), tiny_bundle(clip=clip))
    session.cached("reader", lambda: Reader(clip, session.bundle))
    # Handlers take components for keys of their answers alone.
    widgets = Widgets(**{field.name: field.name for field in fields(Widgets)})
    return Tab(BundleRegistry([session]), widgets)


def noise(seed: int) -> bytes:
    buffer = io.BytesIO()
    Image.frombytes("RGB", (12, 12), bytes((seed * i) % 256 for i in range(432))).save(
        buffer, "PNG"
    )
    return buffer.getvalue()


def zipped(path, names):
    with zipfile.ZipFile(path, "w") as archive:
        for number, name in enumerate(names):
            archive.writestr(name, noise(number + 1) if name.endswith(".png") else b"text")
    return str(path)


CLASSES = [f"photos/{name}/{number}.png" for name in ("red_car", "dog") for number in range(8)]


@pytest.fixture(scope="module")
def updates(tab, tmp_path_factory):
    folder = tmp_path_factory.mktemp("zip")
    file = zipped(folder / "set.zip", [*CLASSES, "photos/notes.txt", "photos/dog/.hidden.png"])
    return handlers.classify(tab, "tiny", [file])


def test_a_zip_of_class_folders_becomes_a_table_with_headings(tab, updates):
    confusions = updates[tab.widgets.classified].confusions
    assert confusions.class_names == ("dog", "red car")
    page = updates[tab.widgets.matrix]
    assert page.count('scope="col"') == page.count('scope="row"') == 2
    cells = [int(cell or 0) for cell in re.findall(r"<td class[^>]*>(\d*)</td>", page)]
    assert cells == confusions.matrix.flatten().tolist()
    assert sum(cells) == 16


def test_a_pair_shows_its_images_and_units_and_its_ablation_is_measured(tab, updates):
    classified = updates[tab.widgets.classified]
    pair = classified.confusions.pairs[0]
    shown = handlers.choose_pair(tab, classified, 0)
    assert len(shown[tab.widgets.images].value) == len(pair.images)
    assert f"promote {pair.predicted} over {pair.correct}" in shown[tab.widgets.units]
    ablated = handlers.ablate(tab, classified, 0)
    data = json.loads(Path(ablated[tab.widgets.download]).read_text())
    assert data["ablation"]["before"] == data["accuracy"] == classified.confusions.accuracy
    assert f"{data['ablation']['corrected']} corrected" in ablated[tab.widgets.ablation]
    assert "export mend" in updates[tab.widgets.command]


def test_an_image_goes_to_edit_with_its_classes(tab, updates):
    classified = updates[tab.widgets.classified]
    pair = classified.confusions.pairs[0]
    handed = handlers.hand_on(tab, classified, 0, SimpleNamespace(index=0))
    assert handed.class_names == (pair.correct, pair.predicted)
    assert handed.correct == pair.correct
    assert handed.image.size == (32, 32)


@pytest.mark.parametrize(
    ("paths", "classes"),
    [
        ([("z", "a", "cat", "1"), ("z", "a", "dog", "1")], ["cat", "dog"]),
        ([("cats", "1"), ("dogs", "1")], ["cats", "dogs"]),
        ([("cats", "cats", "1"), ("dogs", "dogs", "1")], ["cats", "dogs"]),
        ([("z", "sea_lion", "land", "1"), ("z", "dog", "sea", "1")], ["sea lion", "dog"]),
    ],
    ids=["folders in a zip", "a zip a class", "with folders", "cues below"],
)
def test_the_first_folder_that_differs_is_the_class(paths, classes):
    assert handlers.class_of(paths) == classes


def test_a_folder_s_files_carry_their_folders_in_their_names(tmp_path):
    (tmp_path / "pets,,cat,,1.png").write_bytes(noise(1))
    (upload,) = uploaded_images([tmp_path / "pets,,cat,,1.png"])
    assert upload.path == ("pets", "cat", "1.png")
    assert upload.image.size == (12, 12)


def test_names_and_links_in_a_zip_lead_nowhere(tab, tmp_path):
    file = tmp_path / "evil.zip"
    with zipfile.ZipFile(file, "w") as archive:
        link = zipfile.ZipInfo("cat/link.png")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
        archive.writestr("../../cat/1.png", noise(1))
        archive.writestr("../../dog/1.png", noise(2))
    updates = handlers.classify(tab, "tiny", [str(file)])
    classified = updates[tab.widgets.classified]
    assert (classified.skipped, classified.confusions.class_names) == (1, ("cat", "dog"))
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "Choose a folder, or zip files"),
        (["cat/1.txt"], "Choose a folder, or zip files"),
        (["1.png", "2.png"], "one folder for each class"),
        (["cat/1.png", "cat/2.png"], "one folder for each class"),
        (["cat/1.png", "2.png"], "one folder for each class"),
        ([f"class{i}/1.png" for i in range(21)], "21 classes: send at most 20"),
        ([f"{'ab'[i % 2]}/{i}.png" for i in range(501)], "More than 500 images"),
    ],
)
def test_what_cannot_be_classified_is_one_line(tab, tmp_path, names, message):
    with pytest.raises(ValueError, match=message) as error:
        handlers.classify(tab, "tiny", [zipped(tmp_path / "a.zip", names)])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["4", "4.x", "-1.2", "4.1.2"])
def test_bad_units_are_one_line(text):
    with pytest.raises(ValueError, match=r"expected LAYER\.UNIT, such as"):
        handlers.units_of(text)
