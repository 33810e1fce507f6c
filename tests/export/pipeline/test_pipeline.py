"""The pipeline: killed anywhere it ends with the same bytes; many processes agree with one."""

import itertools
import json
import os
import random
import shutil
import signal
import socket
import sys
import time
from argparse import ArgumentTypeError
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from clipneurons.bundle.bundle import load_bundle, save_bundle
from clipneurons.bundle.config import CARD, METRICS, NEURONS, BundleDamaged
from clipneurons.bundle.folders import CHECKSUMS
from clipneurons.lens.lens import Lens
from clipneurons.statistics.effect_statistics import collect_statistics
from clipneurons.text.pools import VOCABULARY
from export.__main__ import main
from export.common import pursuit
from export.common.errors import UserError
from export.common.settings import Settings, Shard
from export.common.state import State
from export.data.file_sources import FolderSource
from export.data.loader import batches
from export.evaluation import fidelity as fidelity_module
from export.evaluation.zero_shot import class_embeddings
from export.pipeline import decomposition
from export.pipeline import passes as pipeline
from export.pipeline import run as run_module
from export.pipeline.inputs import default_texts
from export.pipeline.passes import Passes, merge_effects, merge_means
from export.pipeline.score_cache import ScoreCache
from tests.helpers.tiny import RESNET, VIT, WORDS, tiny_clip, tiny_model_folder


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a model, forty pictures in two classes (two broken), and texts."""
    root = tmp_path_factory.mktemp("export")
    tiny_model_folder(root / "model", VIT)
    generator = np.random.default_rng(0)
    for i in range(40):
        folder = root / "pictures" / ("cat" if i % 2 else "dog")
        folder.mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 255, (20 + i % 3, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:02d}.png")
    (root / "pictures" / "cat" / "empty.jpg").touch()
    (root / "pictures" / "dog" / "words.png").write_text("no picture")
    (root / "texts.txt").write_text("\n".join(WORDS))
    return root


def arguments(place, out, *more):
    """A run without figures and with too few thumbnails for examples, which take most time."""
    return [*figured(place, out, *more), "--no-evaluate", "--gallery-mb", "0.002"]


def figured(place, out, *more):
    return [
        "run", "--model", str(place / "model"), "--images", str(place / "pictures"),
        "--texts", str(place / "texts.txt"), "--layers", "1", "2", "--top-k", "7", "--batch", "4",
        "--components", "3", "--device", "cpu", "--out", str(out), *more,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def straight(place, tmp_path_factory):
    """The bundle of a run that nothing disturbed; for reading only."""
    out = tmp_path_factory.mktemp("straight") / "b"
    assert main(arguments(place, out, "--quiet")) == 0
    return out


@pytest.fixture
def copied(straight, tmp_path):
    """A copy of that bundle, to be changed."""
    return shutil.copytree(straight, tmp_path / "b")


def every_byte(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def contents(folder):
    # The card and the figures name the folder, which differs between the runs of these tests.
    return {k: v for k, v in every_byte(folder).items() if k.name not in (CARD, METRICS, CHECKSUMS)}


def test_a_run_gives_a_whole_bundle(place, tmp_path, capsys):
    out = tmp_path / "bundle"
    assert main(figured(place, out)) == 0
    bundle = load_bundle(out)
    assert bundle.config.model == "."
    assert bundle.config.data.count == 40
    assert bundle.config.data.skipped == 2
    assert bundle.config.data.class_names == ("cat", "dog")
    assert bundle.config.self_check.photographs == 48
    skipped = (out / "skipped.csv").read_text()
    assert "cat/empty.jpg,empty file" in skipped
    assert "dog/words.png,not an image" in skipped
    figures = bundle.metrics["fidelity"]
    assert figures["count"] == 40
    assert figures["templates"] == "photo"
    assert "2 classes, prompts `photo`" in bundle.card
    assert set(figures["layers"]["layer 2"]) >= {"first component", "4 texts", "8 texts"}
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"], "the work folder is cleared"
    said = capsys.readouterr().out
    for word in ("passes", "memory", "disk", "images/s", "empty.jpg"):
        assert word in said
    assert main(["verify", str(out), "--device", "cpu"]) == 0
    assert "figures" in said.split("time  ")[1].splitlines()[0]
    assert main(["info", str(out)]) == 0
    said = capsys.readouterr().out
    assert "40 of pictures, 2 skipped" in said
    assert "of 48 shipped photographs" in said
    assert "of 48 shipped photographs" in bundle.card
    share = figures["layers"]["layer 2"]["4 texts"]["accuracy"]
    assert f"4 texts {share:.1%}" in said
    assert main(["info", str(out), "--layer", "2"]) == 2
    assert "add --unit" in capsys.readouterr().err
    assert main(["info", str(out), "--layer", "2", "--unit", "3"]) == 0
    best = int(bundle.layers[2].top_activating_images[3, 0])
    assert f"largest in images {best} ({bundle.examples.caption(best)})" in capsys.readouterr().out


def test_directions_are_pursued_once_for_the_bundle_and_its_figures(
    place, straight, tmp_path, monkeypatch
):
    out = tmp_path / "b"
    line = figured(place, out, "--quiet", "--gallery-mb", "0.002")  # as `straight` has
    with monkeypatch.context() as killed:
        killed.setattr(run_module, "fidelity", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            main(line)
    with monkeypatch.context() as kept:
        for module in (decomposition, fidelity_module):
            kept.setattr(module, "pursue", lambda *_: pytest.fail("pursued again"))
        assert main(line) == 0
    assert contents(out)[Path(NEURONS)] == contents(straight)[Path(NEURONS)]
    bundle, clip = load_bundle(out), tiny_clip(tmp_path / "model")
    source = FolderSource(place / "pictures")
    classifier = class_embeddings(source.class_names, clip, bundle)
    figures = fidelity_module.fidelity(bundle, clip, source, classifier, batch=4)
    assert bundle.metrics["fidelity"] == bundle.metrics["fidelity"] | figures
    for layer, arrays in bundle.layers.items():
        texts = pursuit.unit_rows(bundle.text_embeddings, False)
        alone = pursuit.pursue(arrays.directions, texts, (3,), "").strongest_first(3)
        assert torch.equal(arrays.indices, alone[0]), layer
        torch.testing.assert_close(arrays.coefficients, alone[1], rtol=1e-6, atol=1e-7)


def test_a_finished_run_that_is_started_again_says_so(place, tmp_path, capsys):
    """As a scheduler does after a kill in the last moment."""
    pictures, out = tmp_path / "pictures", tmp_path / "b"
    shutil.copytree(place / "pictures", pictures)
    line = arguments(place, out)
    line[line.index("--images") + 1] = str(pictures)
    assert main(line) == 0
    before = every_byte(out)
    capsys.readouterr()
    for more in ((), ("--shard", "1/2"), ("--workers", "1")):
        assert main([*line, *more]) == 0
        said = capsys.readouterr().out
        assert said == f"{out} was finished before: --overwrite makes it again\n"
    assert every_byte(tmp_path / "b") == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b", "pictures"]
    (pictures / "cat" / "01.png").unlink()
    assert main(line) == 2
    assert "holds a bundle already" in capsys.readouterr().err


def test_texts_are_words_that_the_model_knows():
    for model, images, texts in (
        ("artifacts/mini-vit", "scenes:10", VOCABULARY),
        ("artifacts/mini-rn", "/home/me/pictures", VOCABULARY),
        ("ViT-B-32", "/home/me/pictures", "common-30k"),
    ):
        assert default_texts(model, images) == texts


def test_statistics_are_those_of_the_library(place, straight, tmp_path):
    """The export's two passes against `collect_statistics`, which is held to naive loops."""
    clip = tiny_clip(tmp_path / "model")
    lens, source = Lens(clip, (1, 2)), FolderSource(place / "pictures")

    def stream():
        for batch in batches(source, clip.preprocess, range(11), 4):
            yield batch.ids, batch.images

    expected = collect_statistics(lens, stream, 40, top_k=7)
    for layer, found in load_bundle(straight).layers.items():
        torch.testing.assert_close(found.directions, expected[layer].directions)
        torch.testing.assert_close(found.means, expected[layer].means)
        torch.testing.assert_close(found.percentile, expected[layer].percentile)
        assert torch.equal(
            found.top_activating_images.long(), expected[layer].top_activating_images
        )
        error = found.directions - sum(
            found.coefficients[:, j : j + 1] * clip.encode_text(WORDS)[found.indices[:, j].long()]
            for j in range(3)
        )
        assert float(error.norm(dim=1).max()) < 1


class Stopped(Exception):
    pass


@pytest.mark.parametrize("cache", [True, False])
def test_stopped_after_any_batch_it_ends_the_same(place, tmp_path, cache, monkeypatch):
    monkeypatch.setattr(pipeline, "EVERY", 0.0)
    clip = tiny_clip(tmp_path / "model")
    lens, source = Lens(clip, (1, 2)), FolderSource(place / "pictures")
    settings = Settings(batch=16, top_k=7)

    def passes(folder, **options):
        return Passes(lens, source, settings, folder, cache=cache, **options)

    def whole(run):
        means = merge_means([run.means()], run.total)
        return means.state().to_bytes(), run.effects(means).state().to_bytes()

    expected = whole(passes(tmp_path / "straight"))
    for stop in range(1, 7):
        count = 0

        def reached(_, stop=stop):
            nonlocal count
            count += 1
            if count == stop:
                raise Stopped

        folder = tmp_path / f"stopped{stop}"
        with pytest.raises(Stopped):
            whole(passes(folder, reached=reached))
        assert whole(passes(folder)) == expected


def forked(line, before=lambda: None):
    """Start a run in a process of its own, after `before()`; its process id.

    PyTorch is imported there already, which takes longer than the run itself.
    """
    child = os.fork()
    if child == 0:
        torch.set_num_threads(1)  # a forked process must not wait for its parent's threads
        before()
        os._exit(main(line))
    return child


def killed_after(seconds, line):
    """Start a run and kill it (SIGKILL), unless it is over before."""
    child = forked(line)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def test_killed_at_random_moments_the_bytes_are_the_same(place, tmp_path, monkeypatch):
    """SIGKILL, again and again in one run, at moments that a seed chooses."""
    monkeypatch.setattr(pipeline, "EVERY", 0.0)
    out = tmp_path / "here" / "bundle"
    line = arguments(place, out, "--quiet")
    start = time.monotonic()
    assert main(line) == 0
    duration = time.monotonic() - start
    expected = every_byte(out)
    shutil.rmtree(out)
    generator = random.Random(1)
    for _ in range(4):
        killed_after(generator.uniform(0.1, 1.0) * duration, line)
        if out.exists():
            load_bundle(out)  # never half-written
    if [p.name for p in out.parent.iterdir()] != ["bundle"]:
        assert main(line) == 0
    assert every_byte(out) == expected
    assert [p.name for p in out.parent.iterdir()] == ["bundle"]


@pytest.mark.parametrize(
    ("module", "name", "call"),
    [
        (shutil, "copyfile", 1),
        (os, "rename", 1),
        (shutil, "rmtree", 1),
        (shutil, "rmtree", 3),
        (os, "rmdir", 3),
    ],
)
def test_killed_while_it_publishes_the_same_command_ends_clean(
    place, straight, tmp_path, module, name, call
):
    """With the bundle half-written, in its place, and while the work folder is removed."""
    out = tmp_path / "here" / "b"
    line = arguments(place, out, "--quiet")
    calls, original = itertools.count(1), getattr(module, name)

    def killed(*args, **options):
        if next(calls) == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **options)

    child = forked(line, lambda: setattr(module, name, killed))
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    assert out.exists() == name.startswith("rm")
    assert main(line) == 0
    assert contents(out) == contents(straight)
    assert [p.name for p in out.parent.iterdir()] == ["b"]


def assert_close(a, b):
    """Two bundles agree to float32 rounding: same images and texts, values to 1e-5."""
    first, second = load_bundle(a), load_bundle(b)
    assert first.config == second.config
    for layer in first.layers:
        x, y = first.layers[layer], second.layers[layer]
        for name in ("directions", "means", "percentile", "top_norms", "coefficients"):
            torch.testing.assert_close(getattr(x, name), getattr(y, name), rtol=1e-4, atol=1e-5)
        assert torch.equal(x.top_activating_images, y.top_activating_images)
        assert torch.equal(x.indices, y.indices)


def test_two_ranks_agree_with_one(place, straight, tmp_path):
    """As `torchrun` starts them, with its environment."""
    out, outputs = tmp_path / "two", [tmp_path / "rank0.txt", tmp_path / "rank1.txt"]
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]

    def as_rank(rank):
        os.environ |= {
            "WORLD_SIZE": "2", "RANK": str(rank), "LOCAL_RANK": str(rank),
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        }  # fmt: skip
        sys.stdout = outputs[rank].open("w", buffering=1)

    children = [forked(arguments(place, out), partial(as_rank, rank)) for rank in range(2)]
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
    said, silence = (path.read_text() for path in outputs)
    assert "output " in said
    assert not silence
    assert_close(straight, out)


def test_shards_merge_to_the_same_bundle(place, straight, tmp_path, capsys):
    three = tmp_path / "three"
    merge = ["merge", "--out", str(three), "--device", "cpu"]
    assert main(merge) == 2
    assert "no unfinished run" in capsys.readouterr().err
    stray = tmp_path / ".three.work" / "shard-0-of-2"  # of a job that began at the same moment
    stray.mkdir(parents=True)
    (stray / "pass1.safetensors").write_bytes(b"another array's")
    for _ in range(2):
        for i in (2, 0):
            assert main(arguments(place, three, "--quiet", "--shard", f"{i}/3")) == 0
        if not (tmp_path / ".three.work" / "means.safetensors").exists():
            assert main(merge) == 2
            assert "shard 1 of 3 has not been run" in capsys.readouterr().err
        assert main(arguments(place, three, "--quiet", "--shard", "1/3")) == 0
        assert not three.exists()
        assert main(merge) == 0
    assert_close(straight, three)


def test_shards_of_another_number_are_refused(place, tmp_path, capsys):
    out = tmp_path / "b"
    assert main(arguments(place, out, "--quiet", "--shard", "0/2")) == 0
    for more, words in ((("--shard", "0/3"), "--shard i/2 and --shard i/3"), ((), "no --shard")):
        assert main(arguments(place, out, "--quiet", *more)) == 2
        error = capsys.readouterr().err
        assert words in error
        assert "--restart" in error


def test_a_run_without_shards_is_not_merged(place, tmp_path, capsys, monkeypatch):
    out = tmp_path / "b"
    monkeypatch.setattr(pipeline.Passes, "effects", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(arguments(place, out, "--quiet"))
    assert main(["merge", "--out", str(out), "--device", "cpu"]) == 2
    assert "a run without --shard" in capsys.readouterr().err


def test_a_resnet_goes_the_same_way(place, tmp_path):
    tiny_model_folder(tmp_path / "model", RESNET)
    line = arguments(place, tmp_path / "rn", "--quiet", "--storage", "float16")
    line[line.index("--model") + 1] = str(tmp_path / "model")
    line[line.index("--layers") + 2 : line.index("--layers") + 3] = []
    line[line.index("--layers") + 1] = "4"
    assert main(line) == 0
    bundle = load_bundle(tmp_path / "rn")
    assert bundle.config.kind == "resnet"
    assert len(bundle.layers[4].directions) % bundle.config.units_per_neuron == 0
    assert bundle.config.units_per_neuron == bundle.config.heads > 1
    explained = bundle.layers[4].explained_variance
    assert float(explained[explained > 0].min()) > 1 - 1e-5, "a pair has one direction"


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--layers", "3"), "no later attention"),
        (("--layers", "9"), "out of range"),
        (("--images", "/nowhere"), "does not exist"),
        (("--texts", "/nowhere.txt"), "no text file"),
        (("--model", "/nowhere"), "no folder /nowhere"),
        (("--percentile", "120"), "0 to 100"),
        (("--centred-pool", "--texts", "one.txt"), "at least two texts"),
        (("--device", "gpu"), "--device gpu is not on this machine: expected cpu"),
        (("--device", "cuda:x"), "--device cuda:x is not"),
        (("--device", "cuda:99"), "--device cuda:99 is not"),
        (("--device", "meta"), "--device meta is not"),
        (("--device", "mps"), "--device mps has no float64"),
        (("--model", "ViT-B-32"), "--pretrained"),
        (("--model", "ViT-B-32", "--pretrained", "words.png"), "--activation"),
    ],
)
def test_mistakes_are_one_line_before_any_work(place, tmp_path, capsys, monkeypatch, more, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "one.txt").write_text("cat\n")
    (tmp_path / "words.png").write_text("no weights")
    assert main(arguments(place, tmp_path / "b", *more)) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["one.txt", "words.png"]


def test_a_wrong_heldout_shows_before_the_work(place, tmp_path, capsys):
    assert main([*figured(place, tmp_path / "b"), "--heldout", "/nowhere"]) == 2
    said = capsys.readouterr()
    assert "'/nowhere' does not exist" in said.err
    assert "passes" not in said.out


def test_another_bundle_or_folder_is_not_overwritten(place, copied, tmp_path, capsys):
    out = copied
    before = contents(out)
    assert main(arguments(place, out, "--quiet", "--seed", "1")) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert contents(out) == before
    assert main(arguments(place, out, "--quiet", "--top-k", "5", "--overwrite")) == 0
    assert load_bundle(out).config.top_k == 5
    home = tmp_path / "home"
    home.mkdir()
    (home / "letter.txt").write_text("dear")
    assert main(arguments(place, home, "--quiet")) == 2
    assert "letter.txt" in capsys.readouterr().err


def test_other_arguments_do_not_mix_with_an_unfinished_run(place, tmp_path, capsys):
    out = tmp_path / "b"
    assert main(arguments(place, out, "--quiet", "--shard", "0/2")) == 0
    assert main(arguments(place, out, "--quiet", "--shard", "0/2", "--top-k", "3")) == 2
    assert "--top-k 7 and 3" in capsys.readouterr().err
    assert main(arguments(place, out, "--quiet", "--top-k", "3", "--restart")) == 0
    assert load_bundle(out).config.top_k == 3


def test_checkpoints_of_another_version_are_not_read(place, tmp_path, capsys):
    out = tmp_path / "b"
    line = arguments(place, out, "--quiet", "--shard", "0/2")
    assert main(line) == 0
    plan = tmp_path / ".b.work" / "plan.json"
    older = json.loads(plan.read_text())
    del older["checkpoints"]
    plan.write_text(json.dumps(older))
    assert main(line) == 2
    error = capsys.readouterr().err
    assert "checkpoints that another version of this program wrote" in error
    assert "--restart" in error
    assert main([*line, "--restart"]) == 0


def test_a_run_that_never_began_is_in_nobodys_way(place, tmp_path, monkeypatch):
    """Neither a dry run, nor one that fails before the passes, nor the other one's array."""
    out = tmp_path / "b"
    assert main(arguments(place, out, "--quiet", "--top-k", "3", "--dry-run")) == 0
    with monkeypatch.context() as full:
        full.setattr("export.pipeline.plan.shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
        assert main(arguments(place, out, "--quiet", "--top-k", "4")) == 2
    assert not list(tmp_path.iterdir())
    assert main(arguments(place, out, "--quiet", "--shard", "0/1")) == 0
    before = every_byte(tmp_path)
    assert main(arguments(place, out, "--quiet", "--top-k", "3", "--restart", "--dry-run")) == 0
    assert every_byte(tmp_path) == before, "nothing was discarded"
    for i in range(2):
        line = arguments(place, out, "--quiet", "--seed", "1", "--shard", f"{i}/2")
        assert main([*line, "--restart"]) == 0
    assert main(["merge", "--out", str(out), "--device", "cpu"]) == 0
    assert (tmp_path / ".b.work" / "means.safetensors").exists()


def test_a_link_stays_and_what_it_leads_to_is_replaced(place, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    out = tmp_path / "b"
    out.symlink_to(disk / "bundle")
    assert main(arguments(place, out, "--quiet")) == 0
    save_bundle(load_bundle(out), out)
    assert out.is_symlink()
    assert [p.name for p in disk.iterdir()] == ["bundle"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b", "disk"]


def test_a_bundle_made_in_another_precision_is_its_models(place, tmp_path):
    """The passes may run in half precision; whoever reads the bundle has the model in full."""
    out = tmp_path / "b"
    assert main(arguments(place, out, "--quiet", "--precision", "bf16")) == 0
    assert load_bundle(out).config.weights_sha256 == tiny_clip(tmp_path / "m").sha256()
    assert main(["verify", str(out), "--device", "cpu"]) == 0


def test_more_than_half_unreadable_fails_with_the_first_reasons(place, tmp_path, capsys):
    folder = tmp_path / "pictures"
    folder.mkdir()
    Image.new("RGB", (9, 9)).save(folder / "good.png")
    for i in range(3):
        (folder / f"bad{i}.png").write_bytes(b"")
    line = arguments(place, tmp_path / "b", "--quiet")
    line[line.index("--images") + 1] = str(folder)
    assert main(line) == 2
    error = capsys.readouterr().err
    assert "3 of 4 images cannot be read, more than half" in error
    assert "bad0.png: empty file" in error


def test_a_full_disk_is_found_before_the_work(place, tmp_path, capsys, monkeypatch):
    from export.pipeline import plan

    class Usage:
        free = 1000

    monkeypatch.setattr(plan.shutil, "disk_usage", lambda _: Usage)
    assert main(arguments(place, tmp_path / "b")) == 2
    assert "free some space" in capsys.readouterr().err


def test_decompose_and_evaluate_change_only_their_part(place, straight, tmp_path, capsys):
    other = tmp_path / "c"
    before = load_bundle(straight)
    more = ["--components", "2", "--centred-pool"]
    assert main(["decompose", "--bundle", str(straight), "--out", str(other), *more]) == 0
    after = load_bundle(other)
    assert replace(after.config, components=3, centred_pool=False) == before.config
    assert torch.equal(after.layers[1].directions, before.layers[1].directions)
    assert "fidelity" not in after.metrics
    capsys.readouterr()
    images = ["--images", str(place / "pictures"), "--limit", "20", "--device", "cpu"]
    assert main(["evaluate", "fidelity", "--bundle", str(other), *images]) == 0
    assert load_bundle(other).metrics["fidelity"]["count"] == 20
    said = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in said[:2]] == ["layer 1", "layer 2"]
    assert said[2:] == [f"written to {other / METRICS} and the card"]
    assert main(["decompose", "--bundle", str(other), "--texts", str(place / "texts.txt")]) == 0
    again = load_bundle(other)
    assert (again.config.components, again.config.centred_pool) == (2, True), "as in the bundle"
    for layer in (1, 2):
        assert torch.equal(again.layers[layer].indices, after.layers[layer].indices)
    assert (other / "skipped.csv").read_bytes() == (straight / "skipped.csv").read_bytes()


def test_a_changed_model_card_is_taken_in_but_not_changed_weights(copied, capsys):
    out = copied
    (out / "MODEL.md").write_text("# Tiny\n\nTrained on nothing.\n")
    assert main(["refresh-card", "--bundle", str(out), "--device", "cpu"]) == 0
    bundle = load_bundle(out)
    assert "Trained on nothing." in bundle.card
    assert "MODEL.md" in (out / CHECKSUMS).read_text()
    (out / "MODEL.md").write_text("# Tiny, again\n")
    with pytest.raises(BundleDamaged):
        load_bundle(out)
    assert main(["refresh-card", "--bundle", str(out), "--device", "cpu"]) == 0
    assert "Tiny, again" in load_bundle(out).card
    tiny_model_folder(out, VIT, seed=5)
    capsys.readouterr()
    assert main(["refresh-card", "--bundle", str(out), "--device", "cpu"]) == 2
    assert "weights" in capsys.readouterr().err


def test_a_damaged_cached_batch_is_computed_again(tmp_path):
    cache = ScoreCache(tmp_path, torch.device("cpu"))
    cache.put(3, torch.tensor([1]), {})
    assert cache.has(3)
    (tmp_path / "0000003.safetensors").write_bytes(b"cut")
    assert not cache.has(3)
    assert not cache.has(4)


def test_states_and_settings_come_back(tmp_path):
    state = State({"layer1.x": torch.arange(3)}, {"done": 2})
    state.save(tmp_path / "s")
    again = State.load(tmp_path / "s")
    assert again.note == {"done": 2}
    assert again.of(1)["x"].tolist() == [0, 1, 2]
    assert again.to_bytes() == state.to_bytes()
    settings = Settings(layers=(1, 2), images="x", centred_pool=True)
    assert Settings.from_json(settings.to_json()) == settings
    assert "--layers 1 2" in settings.command("o")
    assert "--centred-pool" in settings.command("o")
    assert Shard.parse("1/3").numbers(8) == range(1, 8, 3)
    for text in ("3/3", "x", "-1/2", "1"):
        with pytest.raises(ArgumentTypeError, match=r"expected i/n|0 to n - 1"):
            Shard.parse(text)


def test_merging_wants_every_batch_once(place, tmp_path):
    clip = tiny_clip(tmp_path / "model")
    lens, source = Lens(clip, (1,)), FolderSource(place / "pictures")
    settings = Settings(batch=16, top_k=7)
    parts = [
        Passes(lens, source, settings, tmp_path / str(i), Shard(i, 2), cache=False)
        for i in range(2)
    ]
    first = [part.means() for part in parts]
    with pytest.raises(UserError, match="2 of 3 batches"):
        merge_means(first[:1], 3)
    means = merge_means(first, 3)
    statistics = merge_effects([part.effects(means) for part in parts])
    assert statistics[1].count == 40
