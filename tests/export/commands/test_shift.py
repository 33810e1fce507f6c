import json

import numpy as np
import pytest
from PIL import Image

from export.__main__ import main
from tests.helpers.tiny import tiny_bundle_folder


def folder(path, count, tint, seed):
    """Noise images, tinted."""
    path.mkdir()
    rng = np.random.default_rng(seed)
    for index in range(count):
        pixels = rng.integers(0, 128, (40, 40, 3)) + np.array(tint)
        Image.fromarray(pixels.astype(np.uint8)).save(path / f"{index:03}.png")
    return str(path)


@pytest.fixture(scope="module", params=["vit", "resnet"])
def bundle(request, tmp_path_factory):
    root = tmp_path_factory.mktemp("bundle") / request.param
    return str(tiny_bundle_folder(root, kind=request.param))


def test_two_folders_are_compared_into_a_report(bundle, tmp_path, capsys):
    usual, red = (
        folder(tmp_path / "a", 30, (60, 60, 60), 0),
        folder(tmp_path / "b", 20, (127, 0, 0), 1),
    )
    (tmp_path / "b" / "broken.png").write_bytes(b"no image")
    out = tmp_path / "report"
    arguments = ["shift", "--reference", usual, "--new", red, "--out", str(out)]
    assert main([*arguments, "--bundle", bundle, "--permutations", "99"]) == 0
    report = json.loads((out / "report.json").read_text())
    assert report["images"] == {"reference": 30, "new": 20}
    assert report["p"] <= 0.02
    assert report["significant"]
    assert report["pixels"][0]["measure"] == "saturation"
    assert json.loads(capsys.readouterr().out)["p"] == report["p"]
    first = report["units"][0]
    assert abs(first["change"]) == max(abs(u["change"]) for u in report["units"])
    assert first["name"].startswith("layer" if "vit" in bundle else "neuron")
    page = (out / "report.html").read_text()
    assert first["name"] in page
    assert page.count("data:image/webp") >= 8 * 2 * 8
    assert "http" not in page


def test_a_mark_outside_the_middle_square_is_seen(bundle, tmp_path):
    for name, seed in (("a", 0), ("b", 1)):
        (tmp_path / name).mkdir()
        rng = np.random.default_rng(seed)
        for index in range(24):
            wide = Image.fromarray(rng.integers(60, 188, (40, 80, 3)).astype(np.uint8))
            if name == "b":
                wide.paste("red", (64, 24, 80, 40))  # the middle square ends at 60
            wide.save(tmp_path / name / f"{index:02}.png")
    out = tmp_path / "report"
    arguments = ["--reference", str(tmp_path / "a"), "--new", str(tmp_path / "b")]
    arguments += ["--bundle", bundle, "--permutations", "99", "--out", str(out)]
    assert main(["shift", *arguments]) == 0
    assert json.loads((out / "report.json").read_text())["p"] <= 0.05


def test_a_change_at_one_place_is_looked_at_closer(bundle, tmp_path, capsys):
    usual = folder(tmp_path / "a", 24, (60, 60, 60), 0)
    marked_ones = tmp_path / "b"
    folder(marked_ones, 24, (60, 60, 60), 1)
    for path in marked_ones.iterdir():
        with Image.open(path) as image:
            image.paste("red", (26, 26, 40, 40))
            image.save(path)
    out = tmp_path / "r"
    arguments = ["shift", "--reference", usual, "--new", str(marked_ones), "--out", str(out)]
    arguments += ["--bundle", bundle, "--permutations", "99"]
    assert main(arguments) == 0
    report = json.loads((out / "report.json").read_text())
    assert 0 <= report["localised"]["box"][0] < report["localised"]["box"][2] <= 1
    texts = [row["text"] for row in report["localised"]["texts"][:5]]
    said = json.loads(capsys.readouterr().out)["localised"]
    assert said["texts"] == texts
    assert said["where"] in (out / "report.html").read_text()
    page = (out / "report.html").read_text()
    assert "Where the images differ: " in page
    assert main([*arguments, "--window", "12"]) == 0
    windows = json.loads((out / "report.json").read_text())["windows"]
    assert all((window["localised"] is not None) == window["alarm"] for window in windows)
    assert any(window["alarm"] for window in windows)


def test_no_shift_is_reported_as_none(bundle, tmp_path, capsys):
    one, other = (folder(tmp_path / n, 20, (60, 60, 60), s) for n, s in (("a", 0), ("b", 5)))
    arguments = ["shift", "--reference", one, "--new", other, "--out", str(tmp_path / "r")]
    assert main([*arguments, "--bundle", bundle, "--permutations", "99"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert not said["significant"]
    assert said["localised"] is None
    assert said["more"] == said["less"] == said["units"] == said["pixels"] == []
    assert "No single place" not in (tmp_path / "r" / "report.html").read_text()


def test_windows_follow_watched_concepts(bundle, tmp_path, capsys):
    usual = folder(tmp_path / "a", 30, (60, 60, 60), 0)
    stream = tmp_path / "b"
    folder(stream, 15, (60, 60, 60), 1)
    rng = np.random.default_rng(2)
    for index in range(15, 35):
        pixels = rng.integers(0, 128, (40, 40, 3)) + np.array((127, 0, 0))
        Image.fromarray(pixels.astype(np.uint8)).save(stream / f"{index:03}.png")
    out = tmp_path / "r"
    arguments = ["shift", "--reference", usual, "--new", str(stream), "--out", str(out)]
    arguments += ["--window", "15", "--watch", "snow", "a <b>", "--permutations", "99"]
    assert main([*arguments, "--bundle", bundle]) == 0
    report = json.loads((out / "report.json").read_text())
    assert [(w["first"], w["last"]) for w in report["windows"]] == [(0, 14), (15, 29), (30, 34)]
    assert report["windows"][1]["alarm"]
    assert set(report["windows"][0]["watched"]) == {"snow", "a <b>"}
    page = (out / "report.html").read_text()
    assert "a &lt;b&gt;" in page
    assert page.count("<svg") == 2
    assert json.loads(capsys.readouterr().out)["alarms"] >= 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--new": "nowhere"}, "'nowhere' does not exist"),
        ({"--window": "1"}, "windows of at least two"),
        ({"--bundle": "nowhere"}, "nowhere"),
        ({"--window": "5", "--level": "0.0001"}, "cannot give a p-value"),
        ({"--permutations": "18"}, "cannot give a p-value of 0.05: expected at least 19"),
        ({"--level": "7"}, "a level between 0 and 1, not 7"),
        ({"--window": "5", "--level": "0"}, "a level between 0 and 1, not 0"),
        ({"--watch": " "}, "empty text"),
    ],
)
def test_mistakes_are_one_line(bundle, tmp_path, capsys, change, message):
    usual = folder(tmp_path / "a", 5, (60, 60, 60), 0)
    flags = {"--reference": usual, "--new": usual, "--out": str(tmp_path / "r"), "--bundle": bundle}
    flags |= change
    assert main(["shift", *(part for pair in flags.items() for part in pair)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
