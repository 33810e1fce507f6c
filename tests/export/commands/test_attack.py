import csv
import json
import shutil
from dataclasses import replace

import pytest
import torch
from PIL import Image

import export.attack.results
from clipneurons.adversarial.attack import Outcome
from clipneurons.adversarial.composer import Composer
from clipneurons.adversarial.cue_request import METHODS
from clipneurons.adversarial.descriptions import Description
from clipneurons.bundle.bundle import load_bundle, save_bundle
from export.__main__ import main
from export.attack.report import flip_rates, render, render_defence, summarise
from export.attack.results import AttackFolder, Cell, check_space
from export.common.errors import UserError
from export.common.lock import exclusive
from tests.helpers.packs import flat_pack_file
from tests.helpers.pipelines import chat_folder, painter_folder
from tests.helpers.tiny import RESNET, WORDS, tiny_bundle, tiny_clip

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A bundle whose texts can be drawn, and a pack."""
    root = tmp_path_factory.mktemp("attack")
    clip = tiny_clip(root / "bundle")
    made = tiny_bundle(clip=clip)
    texts = ["bone", "leash", "palm tree", "poodle", *made.texts[4:]]
    embeddings = clip.encode_text(texts)
    made = replace(
        made, texts=texts, text_embeddings=embeddings, config=replace(made.config, model=".")
    )
    bundle = save_bundle(made, root / "bundle")
    flat_pack_file(root / "pack.safetensors")
    return root, bundle


def attack(work, out, *more):
    root, bundle = work
    return main([
        "attack", "--bundle", str(bundle), "--pack", str(root / "pack.safetensors"), "--out",
        str(out), "--images", "6", "--seeds", "2", *more,
    ])  # fmt: skip


def rows(out):
    return list(csv.DictReader((out / "results.csv").read_text().splitlines()))


def size(file):
    with Image.open(file) as image:
        return image.size


def test_all_methods_are_run_with_the_same_budget_and_seeds(work, tmp_path, capsys):
    out = tmp_path / "out"
    assert attack(work, out, "--true", "cat", "--target", "dog", "--keep", "all") == 0
    found = rows(out)
    assert len(found) == len(METHODS) * 2 * 6
    by_method = {}
    for row in found:
        by_method.setdefault(row["method"], []).append((row["seed"], row["image_seed"]))
        assert row["presence"] == "as wanted"
        assert "poodle" not in row["cues"]  # its keywords name the target class
        assert size(out / row["file"]) == (32, 32)
    assert len({tuple(seeds) for seeds in by_method.values()}) == 1
    assert set(by_method) == set(METHODS)
    printed = capsys.readouterr().out
    assert "| cat → dog |" in printed
    assert "python -m export" in (out / "summary.md").read_text()
    summary = json.loads((out / "summary.json").read_text())
    assert set(summary["success"]["table"]["cat → dog"]) == set(METHODS)
    assert size(out / "contact-cat-as-dog.png") == (150 + 10 * 96, len(METHODS) * 96)
    assert "cat → dog" in (out / "defence.md").read_text()
    cues = json.loads((out / "cues.json").read_text())
    assert {c["method"] for c in cues} == set(METHODS)


def test_a_stopped_run_goes_on_and_ends_with_the_same_rows(work, tmp_path, monkeypatch, capsys):
    arguments = ("--true", "cat", "--target", "dog", "--methods", "second-order,no cues")
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert attack(work, whole, *arguments) == 0
    add, calls = AttackFolder.add, []

    def stop_in_the_third(self, cell, first, outcomes, keep):
        calls.append(cell)
        if len(calls) == 3:
            add(self, cell, first, outcomes[:4], keep)
            raise KeyboardInterrupt
        add(self, cell, first, outcomes, keep)

    monkeypatch.setattr(AttackFolder, "add", stop_in_the_third)
    assert attack(work, stopped, *arguments) == 130
    with (stopped / "results.csv").open("a") as file:
        file.write("cat,dog,no cues,0,4,12")  # cut off while it was written
    monkeypatch.setattr(AttackFolder, "add", add)
    assert attack(work, stopped, *arguments) == 0

    def key(row):
        return row["method"], row["seed"], int(row["number"])

    assert sorted(rows(stopped), key=key) == sorted(rows(whole), key=key)
    before = (stopped / "results.csv").read_bytes()
    assert attack(work, stopped, *arguments) == 0
    assert (stopped / "results.csv").read_bytes() == before


def test_pairs_come_from_a_file(work, tmp_path):
    file = tmp_path / "pairs.csv"
    file.write_text("true,target\n# a comment\ncat, dog\n\nbone,whale\ncat,dog\n")
    out = tmp_path / "out"
    assert attack(work, out, "--pairs", str(file), "--methods", "second-order") == 0
    assert {(r["true_class"], r["target_class"]) for r in rows(out)} == {
        ("cat", "dog"),
        ("bone", "whale"),
    }


def test_other_models_judge_the_same_pictures(work, tmp_path):
    _, bundle = work
    out = tmp_path / "out"
    arguments = ("--true", "cat", "--target", "dog", "--methods", "second-order,no cues")
    assert attack(work, out, *arguments, "--transfer", str(bundle)) == 0
    for row in rows(out):
        assert row["transfer"] == f"{bundle}={row['fooled']}"  # it is the same model
    assert "## Transfer to" in (out / "summary.md").read_text()


def test_chat_model_and_text_to_image_model_do_the_same(work, tmp_path):
    _, bundle = work
    lines = ["a cat, a bone, a leash, a palm tree", "a bone, a leash and a palm tree by a cat"]
    chat = chat_folder(tmp_path / "chat", [*lines, "a dog"])
    generator = painter_folder(tmp_path / "generator")
    out = tmp_path / "out"
    more = (
        "--true", "cat", "--target", "dog", "--methods", "similar words", "--images", "2",
        "--seeds", "1", "--generator", str(generator), "--steps", "1", "--size", "32",
        "--device", "cpu",
    )  # fmt: skip
    assert attack(work, out, *more, "--describer", str(chat)) == 0
    found = rows(out)
    assert {row["presence"] for row in found} == {"unchecked"}
    assert {row["description"] for row in found} <= set(lines)
    again = tmp_path / "again"
    assert attack(work, again, *more, "--second-opinion", str(bundle)) == 0
    assert {row["presence"] for row in rows(again)} <= {
        "as wanted", "true object missing", "target object shown",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "expected --true CLASS"),
        (("--true", "cat", "--target", "cats"), "two different classes"),
        (("--true", "sofa", "--target", "dog"), "no pictogram of 'sofa'"),
        (("--true", "cat", "--target", "dog", "--images", "0"), "1 to 10000 images"),
        (("--true", "cat", "--target", "dog", "--seeds", "99"), "1 to 20"),
        (("--true", "cat", "--target", "dog", "--methods", "magic"), "expected some of"),
        (("--true", "cat", "--target", "dog", "--layers", "7"), "expected layers among"),
        (("--true", "cat", "--target", "dog", "--layers", "x"), "whole numbers"),
        (("--true", "cat", "--pairs", "x"), "not both"),
        (("--pairs", "nowhere.csv"), "does not exist"),
        (("--true", "cat", "--target", "dog", "--generator", "/nowhere"), "could not be loaded"),
        (("--true", "cat", "--target", "dog", "--describer", "/nowhere"), "could not be loaded"),
        (("--true", "cat", "--target", "dog", "--cues-per-image", "9"), "0 to 6 cues"),
        (("--true", "cat", "--target", "dog", "--device", "gpu"), "--device gpu is not on this"),
        (("--true", "cat", "--target", "dog", "--pack", "latin.csv"), "no pack of pictograms"),
        (("--true", "cat", "--target", "dog", "--transfer", "ViT-B-32:no"), "not a set of weights"),
        (("--pairs", "latin.csv"), "latin.csv is not UTF-8 text"),
    ],
)
def test_mistakes_are_one_line_and_status_2(
    work, tmp_path, capsys, monkeypatch, arguments, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "latin.csv").write_bytes(b"caf\xe9,dog\n")
    out = tmp_path / "out"
    assert attack(work, out, *arguments) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    last = error.splitlines()[-1]  # before it come transformers' progress bars
    assert last.startswith("error: ")
    assert message in last
    assert not out.exists(), "the corrected command is not refused"


def test_a_resnet_is_attacked_by_all_methods_it_has(work, tmp_path):
    root, _ = work
    texts = ["bone", "leash", "palm tree", *WORDS[3:]]
    clip = tiny_clip(tmp_path / "rn", RESNET)
    made = tiny_bundle(clip=clip)
    made = replace(
        made, texts=texts, text_embeddings=clip.encode_text(texts),
        config=replace(made.config, model="."),
    )  # fmt: skip
    bundle = save_bundle(made, tmp_path / "rn")
    out = tmp_path / "out"
    line = ("--true", "cat", "--target", "dog", "--seeds", "1", "--images", "1")
    assert attack((root, bundle), out, *line) == 0
    assert {row["method"] for row in rows(out)} == set(METHODS)


def test_a_missing_gpu_and_a_full_disk_are_said_before_anything_is_drawn(
    work, tmp_path, capsys, monkeypatch
):
    pair = ("--true", "cat", "--target", "dog")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert attack(work, tmp_path / "gpu", *pair, "--device", "cuda") == 2
    assert "--device cuda is not on this machine" in capsys.readouterr().err
    full = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(export.attack.results.shutil, "disk_usage", lambda _: full)
    assert attack(work, tmp_path / "disk", *pair) == 2
    assert "0 MB free" in capsys.readouterr().err
    with pytest.raises(UserError, match="images of 64 x 64 may take 22 MB"):
        check_space(tmp_path / "not" / "yet", 1000, 64)


def test_images_of_cues_need_texts_that_can_be_drawn(work, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(Composer, "concept", lambda self, phrase: {"cat": "cat"}.get(phrase))
    pair = ("--true", "cat", "--target", "dog", "--images", "1", "--seeds", "1")
    assert attack(work, tmp_path / "named", *pair, "--methods", "recorded effects") == 2
    assert "need images of the bundle's texts" in capsys.readouterr().err


def test_another_attack_or_other_files_in_the_folder_are_refused(work, tmp_path, capsys):
    out = tmp_path / "out"
    pair = ("--true", "cat", "--target", "dog", "--methods", "no cues")
    assert attack(work, out, *pair) == 0
    assert attack(work, out, *pair, "--neurons", "7") == 2
    assert "neurons: 100, now 7" in capsys.readouterr().err
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("mine")
    assert attack(work, other, *pair) == 2
    assert "holds no attack" in capsys.readouterr().err
    assert (other / "thesis.txt").read_text() == "mine"


def test_two_attacks_in_one_folder_at_once_are_refused(work, tmp_path, capsys):
    out = tmp_path / "out"
    pair = ("--true", "cat", "--target", "dog", "--methods", "no cues")
    assert attack(work, out, *pair) == 0
    whole = (out / "results.csv").read_bytes()
    with exclusive(out / "lock", out):
        assert attack(work, out, *pair) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "another process is at work on" in error
    assert attack(work, out, *pair) == 0
    assert (out / "results.csv").read_bytes() == whole


def test_a_bundle_that_was_replaced_by_another_models_is_refused(work, tmp_path, capsys):
    root, bundle = work
    copied, out = tmp_path / "bundle", tmp_path / "out"
    shutil.copytree(bundle, copied)
    pair = ("--true", "cat", "--target", "dog", "--methods", "second-order")
    assert attack((root, copied), out, *pair) == 0
    before = load_bundle(copied)
    layer, arrays = next(iter(before.layers.items()))
    other = replace(arrays, directions=arrays.directions.flip(0))
    save_bundle(replace(before, layers={**before.layers, layer: other}), copied)
    assert attack((root, copied), out, *pair) == 2
    assert "holds an attack with other settings (units: " in capsys.readouterr().err
    shutil.rmtree(copied)
    clip = tiny_clip(copied, seed=1)
    save_bundle(replace(tiny_bundle(clip=clip), config=replace(before.config,
        weights_sha256=clip.sha256())), copied)  # fmt: skip
    assert attack((root, copied), out, *pair) == 2
    assert "(model weights: " in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"3", b'"x"', b"\xff\xfe", b"[" * 100_000])
def test_empty_or_damaged_settings_are_one_line(work, tmp_path, capsys, content):
    out = tmp_path / "out"
    out.mkdir()
    (out / "settings.json").write_bytes(content)
    assert attack(work, out, "--true", "cat", "--target", "dog") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "settings.json is empty or damaged: delete" in error


def test_damaged_rows_are_one_line(work, tmp_path, capsys):
    out = tmp_path / "out"
    pair = ("--true", "cat", "--target", "dog", "--methods", "no cues")
    assert attack(work, out, *pair) == 0
    whole = (out / "results.csv").read_text()
    for damaged in (
        "a,b\n1,2\n",
        whole.replace(",as wanted,", ",", 1),
        whole.replace(",0,", ",x,"),
    ):
        capsys.readouterr()
        (out / "results.csv").write_text(damaged)
        assert attack(work, out, *pair) == 2
        error = capsys.readouterr().err
        assert "results.csv is damaged" in error
        assert error.count("\n") == 1


def outcomes(fooled, cues=("bone",)):
    return [
        Outcome(Description("", cues), i, None, "as wanted", False, f, 0.1, "x", {"rn": not f})
        for i, f in enumerate(fooled)
    ]


def test_flips_are_those_of_images_that_are_read_correctly_without_cues():
    pair = ("cat", "dog")

    def seen(fooled, valid=None):
        valid = valid or [True] * len(fooled)
        return [
            replace(o, objects=("cat",), duplicate=not v)
            for o, v in zip(outcomes(fooled), valid, strict=True)
        ]

    done = {
        Cell(pair, "no cues", 0): seen([True, False, False, False, False]),
        Cell(pair, "second-order", 0): seen(
            [True, True, True, False, True], [True, True, True, True, False]
        ),
    }
    rates = flip_rates(done)
    assert set(rates) == {Cell(pair, "second-order", 0)}
    (rate,) = rates.values()
    assert (rate.successes, rate.count) == (2, 3)
    painted = {cell: outcomes([True]) for cell in done}
    assert flip_rates(painted) == {}
    text = render(summarise(done, [pair], ["second-order", "no cues"], 1), "command", [])
    assert "| cat → dog | 66.7 ± 0.0 |" in text


def test_the_table_counts_what_it_says():
    pair, methods = ("cat", "dog"), ["second-order", "similar words", "no cues"]
    done = {
        Cell(pair, "second-order", 0): outcomes([True] * 6 + [False] * 4),
        Cell(pair, "second-order", 1): outcomes([True] * 8 + [False] * 2),
        Cell(pair, "similar words", 0): outcomes([True] * 2 + [False] * 8, ("sky",)),
        Cell(pair, "similar words", 1): outcomes([True] * 2 + [False] * 8, ("sky",)),
        Cell(pair, "no cues", 0): outcomes([False] * 10, ()),
        Cell(pair, "no cues", 1): outcomes([False] * 10, ()),
    }
    summary = summarise(done, [pair], methods, 2)
    row = summary["success"]["table"]["cat → dog"]
    assert row["second-order"]["mean"] == pytest.approx(0.7)
    assert row["second-order"]["sd"] == pytest.approx(0.02**0.5)
    assert summary["success"]["overall"]["second-order"]["successes"] == 14
    assert summary["success"]["comparison"]["best baseline"] == "similar words"
    assert summary["success"]["comparison"]["ratios"]["second-order"]["similar words"][
        "value"
    ] == pytest.approx(3.5)
    assert summary["transfer"]["rn"]["second-order"]["all"]["successes"] == 6
    assert summary["transfer"]["rn"]["second-order"]["of successes"]["successes"] == 0
    (cue,) = summary["defence"]["cat → dog"]
    assert (cue["cue"], cue["with"]["successes"], cue["with"]["count"]) == ("bone", 14, 20)
    text = render(summary, "python -m export attack", ["note"])
    assert "| cat → dog | 70.0 ± 14.1 | 20.0 ± 0.0 | 0.0 ± 0.0 |" in text
    assert "3.50 times similar words (3.00 to 4.00)" in text
    assert "bone: misread in 70.0" in render_defence(summary)
