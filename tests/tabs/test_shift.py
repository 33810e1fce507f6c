"""The tab that compares sets on a tiny bundle, and which archives it refuses."""

import json
import zipfile
from dataclasses import fields, replace
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from clipneurons.bundle.unit_words import signed_words
from clipneurons.reader import Reader
from tabs.server import uploads
from tabs.server.registry import BundleRegistry
from tabs.server.session import BundleSession
from tabs.shift.handlers import CompareRequest, Handlers, compare_images, example_sets
from tabs.shift.layout import Widgets
from tabs.shift.view import (
    ALL_UNITS,
    differences_html,
    images,
    p_text,
    unit_html,
    unit_rows,
    verdict_html,
)
from tests.helpers.models import tiny_resnet, tiny_vit
from tests.helpers.tiny import tiny_bundle


@pytest.fixture(scope="module", params=["vit", "resnet"])
def session(request, tmp_path_factory):
    clip = tiny_vit(embed_dim=24) if request.param == "vit" else tiny_resnet(embed_dim=24)
    bundle = tiny_bundle(clip=clip)
    session = BundleSession("tiny", tmp_path_factory.mktemp("none"), bundle)
    session.cached("reader", lambda: Reader(clip, session.bundle))
    return session


def noise(count, tint, seed):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 128, (count, 40, 40, 3)) + np.array(tint)
    return [Image.fromarray(part.astype(np.uint8)) for part in pixels]


def png(image):
    buffer = BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def zipped(path, entries):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return str(path)


@pytest.fixture(scope="module")
def tinted(session):
    """Thirty images compared with twenty red ones."""
    return compare_images(session, noise(30, (60, 60, 60), 0), noise(20, (127, 0, 0), 1))


def test_a_tint_is_found_and_its_images_shown(session, tinted):
    report = tinted.report
    assert report["significant"]
    assert "The sets differ" in verdict_html(report, 3)
    assert "3 files could not be read" in verdict_html(report, 3)
    before, after = images(replace(tinted, report=report | {"localised": None}), 0)
    assert all(any(shown is image for image in tinted.new) for shown in after)
    assert len(before) == len(after) == 16
    unit = report["units"][1]
    profiler = session.reader.profiler
    column = profiler.names.index((unit["layer"], unit["unit"]))
    values = profiler.of_images(tinted.reference).units[:, column]
    before, after = images(tinted, 2)
    assert before[0] is tinted.reference[(values if unit["change"] > 0 else -values).argmax()]
    assert len(after) == 12


def test_low_level_changes_come_before_texts(tinted):
    assert tinted.report["pixels"][0]["measure"] == "saturation"
    page = differences_html(tinted.report)
    assert page.index("saturation higher") < page.index("Texts matched more")


def test_units_are_rows_with_their_labels(session, tinted):
    report = tinted.report
    (whole, zero), *rows = unit_rows(report, session.bundle)
    assert (whole, zero) == (ALL_UNITS, 0)
    assert [number for _, number in rows] == list(range(1, 13))
    for (text, _), unit in zip(rows, report["units"], strict=True):
        label = signed_words(session.bundle, unit["layer"], unit["unit"])
        assert unit["label"] == label
        assert ", ".join(label) in text
        assert text.startswith("−" if unit["change"] < 0 else "+")
    chosen = unit_html(report, 2, session.key)
    unit = report["units"][1]
    assert f"layer={unit['layer']}&amp;unit={unit['unit']}&amp;bundle=tiny" in chosen
    assert "changed most" in unit_html(report, 0, session.key)


def test_without_a_significant_difference_nothing_is_listed(session):
    usual = noise(20, (60, 60, 60), 0)
    compared = compare_images(session, usual, usual)
    report = compared.report
    assert "No significant difference" in verdict_html(report)
    assert not any(report[part] for part in ("pixels", "units", "more", "less", "changed_images"))
    assert report["localised"] is None
    assert differences_html(report) == ""
    assert images(compared, 0) == ([], [])


def test_a_change_at_one_place_is_localised_and_framed(session):
    usual, new = noise(30, (60, 60, 60), 0), noise(30, (60, 60, 60), 1)
    for image in new:
        image.paste("red", (26, 26, 40, 40))
    compared = compare_images(session, usual, new)
    assert "Where the images differ: " in differences_html(compared.report)
    framed = np.asarray(images(compared, 0)[1][0])
    left, top, _, _ = (round(share * 39) for share in compared.report["localised"]["box"])
    assert framed[top, left].tolist() == [0x00, 0x72, 0xB2]
    assert not (np.asarray(new[0]) == [0x00, 0x72, 0xB2]).all(-1).any(), "the image itself is not"


def test_a_change_without_a_place_is_said_to_have_none(tinted):
    assert "at no single place" in differences_html(tinted.report | {"localised": None})


@pytest.mark.parametrize(("p", "text"), [(1 / 301, "≤ 0.0033"), (2 / 301, "0.00664"), (0.5, "0.5")])
def test_the_smallest_p_value_is_a_bound(p, text):
    assert p_text(p, {"permutations": 300}) == text


def test_a_comparison_survives_json(session, tinted):
    again = json.loads(json.dumps(tinted.report))
    for make in (verdict_html, differences_html, lambda report: unit_rows(report, session.bundle)):
        assert make(again) == make(tinted.report)


def test_progress_counts_the_images_read(session):
    seen = []
    usual = noise(20, (60, 60, 60), 0)
    compare_images(session, usual, usual, lambda *step: seen.append(step))
    assert seen[0] == (0, 40, "Reading images")
    assert seen[-1] == (40, 40, "Comparing the sets")
    assert [read for read, _, _ in seen] == sorted(read for read, _, _ in seen)


def test_another_bundle_does_not_replace_the_result_of_the_visitors_own_images(session, tmp_path):
    widgets = Widgets(**{part.name: part.name for part in fields(Widgets)})
    page = Handlers(BundleRegistry([session]), widgets)
    files = []
    for number, image in enumerate(noise(4, (60, 60, 60), 0)):
        image.save(tmp_path / f"{number}.png")
        files.append(str(tmp_path / f"{number}.png"))
    for request in (CompareRequest("", files, None), CompareRequest("", files, files)):
        assert widgets.verdict not in page.bundle_changed(request)
        assert widgets.found not in page.bundle_changed(request)
    answer = page.bundle_changed(CompareRequest("", None, None))
    assert answer[widgets.compared] is None, "a tiny bundle ships no example"
    answer = page.compare(CompareRequest("", files[:2], files[2:]), lambda *_: None)
    assert answer[widgets.compared].report["images"] == {"reference": 2, "new": 2}
    chosen = page.unit_chosen(answer[widgets.compared], 0)
    assert set(chosen) == {widgets.unit, widgets.before, widgets.after}
    with pytest.raises(ValueError, match="both sides"):
        page.compare(CompareRequest("", files, None), lambda *_: None)


def test_the_example_marks_its_share(session):
    old, new, word = example_sets(session)
    assert len(old) == len(new) == 10
    assert isinstance(word, str)
    plain = [session.image(number) for number in session.sample(20)]
    assert [image.tobytes() for image in old] == [image.tobytes() for image in plain[::2]]
    assert sum(a.tobytes() != b.tobytes() for a, b in zip(new, plain[1::2], strict=True)) == 4


def test_archives_are_read_in_memory(tmp_path):
    shots = noise(3, (60, 60, 60), 0)
    path = zipped(
        tmp_path / "a.zip",
        {
            "../../outside.png": png(shots[0]), "b/two.png": png(shots[1]),
            "__MACOSX/two.png": b"no", "notes.txt": b"no", "broken.png": b"no",
        },
    )  # fmt: skip
    shots[2].save(tmp_path / "c.png")
    opened, skipped = uploads.open_images([path, str(tmp_path / "c.png")])
    assert (len(opened), skipped) == (3, 1)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.zip", "c.png"]
    assert opened[2].tobytes() == shots[2].tobytes()


def test_too_much_is_refused(tmp_path, monkeypatch):
    image = png(noise(1, (0, 0, 0), 0)[0])
    path = zipped(tmp_path / "a.zip", {f"{i}.png": image for i in range(8)})
    monkeypatch.setattr(uploads, "MOST_IMAGES", 5)
    with pytest.raises(ValueError, match="More than 5 images"):
        uploads.open_images([path])
    monkeypatch.setattr(uploads, "_MOST_ENTRIES", 7)
    with pytest.raises(ValueError, match="8 files"):
        uploads.open_images([path])
    bomb = zipped(tmp_path / "bomb.zip", {"a.png": bytes(uploads.MAX_BYTES + 1)})
    with pytest.raises(ValueError, match=r"at least two images that can be read, found 0"):
        uploads.open_images([bomb])
    monkeypatch.setattr(uploads, "MAX_BYTES", 1000)
    monkeypatch.setattr(uploads, "_MOST_BYTES", 1500)
    bombs = zipped(tmp_path / "bombs.zip", {f"{i}.png": bytes(2000) for i in range(4)})
    with pytest.raises(ValueError, match="MB of images"):
        uploads.open_images([bombs])
    monkeypatch.setattr(uploads, "_MOST_BYTES", 100)
    with pytest.raises(ValueError, match="MB of images"):
        uploads.open_images([zipped(tmp_path / "b.zip", {"1.png": image, "2.png": image})])


def test_a_damaged_archive_is_a_message(tmp_path):
    path = tmp_path / "a.zip"
    zipped(path, {"a.png": png(noise(1, (0, 0, 0), 0)[0])})
    data = bytearray(path.read_bytes())
    data[60:90] = bytes(30)
    path.write_bytes(bytes(data))
    with pytest.raises(ValueError, match="cannot be unpacked"):
        uploads.open_images([str(path)])
