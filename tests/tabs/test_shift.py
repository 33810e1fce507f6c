"""The shift tab's functions on a tiny bundle, and what its archives refuse."""

import json
import zipfile
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from clipneurons.bundle.unit_words import signed_words
from tabs.server import uploads
from tabs.server.session import BundleSession
from tabs.shift_reading import compare_images, example, pictures
from tabs.ui.shift_card import WHOLE, p_text, unit_html, unit_rows, verdict_html, words_html
from tests.helpers.models import tiny_resnet, tiny_vit
from tests.helpers.tiny import tiny_bundle


@pytest.fixture(scope="module", params=["vit", "resnet"])
def session(request, tmp_path_factory):
    clip = tiny_vit(embed_dim=24) if request.param == "vit" else tiny_resnet(embed_dim=24)
    bundle = tiny_bundle(clip=clip)
    session = BundleSession("tiny", tmp_path_factory.mktemp("none"), bundle)
    session.__dict__["_clip"] = clip
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


def test_a_tint_is_found_and_its_pictures_shown(session):
    usual, red = noise(30, (60, 60, 60), 0), noise(20, (127, 0, 0), 1)
    compared = compare_images(session, usual, red)
    data = compared.data
    assert data["p"] <= 0.05
    assert "The sets differ" in verdict_html(data, 3)
    assert "3 files could not be read" in verdict_html(data, 3)
    assert "Said more" in words_html(data)
    before, after = pictures(replace(compared, data=data | {"localised": None}), 0)
    assert all(any(picture is image for image in red) for picture in after)
    assert len(before) == len(after) == 12
    one = data["units"][1]
    profiler = session.cached("profiler", None)
    column = profiler.names.index((one["layer"], one["unit"]))
    values = profiler.of_pictures(usual).units[:, column]
    before, after = pictures(compared, 2)
    assert before[0] is usual[(values if one["change"] > 0 else -values).argmax()]
    assert len(after) == 12


def test_units_are_rows_with_their_signed_words(session):
    data = compare_images(session, noise(30, (60, 60, 60), 0), noise(20, (127, 0, 0), 1)).data
    (whole, zero), *rows = unit_rows(data, session.bundle)
    assert (whole, zero) == (WHOLE, 0)
    assert [number for _, number in rows] == list(range(1, 13))
    for (text, _), one in zip(rows, data["units"], strict=True):
        assert signed_words(session.bundle, one["layer"], one["unit"], 3)[0] in text
        assert text.startswith("−" if one["change"] < 0 else "+")
    chosen = unit_html(data, 2, session.key)
    one = data["units"][1]
    assert f"layer={one['layer']}&amp;unit={one['unit']}&amp;bundle=tiny" in chosen
    assert "carry the change" in unit_html(data, 0, session.key)


def test_equal_sets_do_not_differ(session):
    usual = noise(20, (60, 60, 60), 0)
    data = compare_images(session, usual, usual).data
    assert "No difference" in verdict_html(data)
    assert data["localised"] is None
    assert "spread over them" not in words_html(data)


def test_a_change_at_one_place_is_looked_at_and_framed(session):
    usual, new = noise(30, (60, 60, 60), 0), noise(30, (60, 60, 60), 1)
    for image in new:
        image.paste("red", (26, 26, 40, 40))
    compared = compare_images(session, usual, new)
    assert "A closer look: " in words_html(compared.data)
    framed = np.asarray(pictures(compared, 0)[1][0])
    left, top, _, _ = (round(share * 39) for share in compared.data["localised"]["box"])
    assert framed[top, left].tolist() == [0x00, 0x72, 0xB2]
    assert not (np.asarray(new[0]) == [0x00, 0x72, 0xB2]).all(-1).any(), "the image itself is not"


def test_a_change_without_a_place_is_said_to_be_spread(session):
    data = compare_images(session, noise(30, (60, 60, 60), 0), noise(20, (127, 0, 0), 1)).data
    assert "the change is spread over them" in words_html(data | {"localised": None})


@pytest.mark.parametrize(("p", "text"), [(1 / 301, "≤ 0.0033"), (2 / 301, "0.00664"), (0.5, "0.5")])
def test_the_least_p_value_is_a_bound(p, text):
    assert p_text(p) == text


def test_a_comparison_survives_json(session):
    data = compare_images(session, noise(30, (60, 60, 60), 0), noise(20, (127, 0, 0), 1)).data
    again = json.loads(json.dumps(data))
    for make in (verdict_html, words_html, lambda it: unit_rows(it, session.bundle)):
        assert make(again) == make(data)


def test_the_example_marks_its_share(session):
    old, new, word = example(session)
    assert len(old) == len(new) == 10
    assert isinstance(word, str)
    spread = [np.asarray(image).std((0, 1)).max() for image in new]
    assert sum(value > 5 for value in spread) == 4  # the pictures of a tiny bundle are flat


def test_archives_are_read_in_memory(tmp_path):
    images = noise(3, (60, 60, 60), 0)
    path = zipped(
        tmp_path / "a.zip",
        {
            "../../outside.png": png(images[0]), "b/two.png": png(images[1]),
            "__MACOSX/two.png": b"no", "notes.txt": b"no", "broken.png": b"no",
        },
    )  # fmt: skip
    images[2].save(tmp_path / "c.png")
    found, skipped = uploads.open_images([path, str(tmp_path / "c.png")])
    assert (len(found), skipped) == (3, 1)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.zip", "c.png"]
    assert found[2].tobytes() == images[2].tobytes()


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
