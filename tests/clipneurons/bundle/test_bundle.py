"""Bundles: what goes in comes out, and nothing that was changed gets in."""

import json
import random
import shutil
from dataclasses import fields, replace
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load

from clipneurons.bundle import folders
from clipneurons.bundle.bundle import bundle_files, load_bundle, save_bundle
from clipneurons.bundle.config import (
    BUNDLE_FILES,
    LABELS,
    NEURONS,
    BundleConfig,
    BundleDamaged,
    BundleError,
    BundleMismatch,
    check_clip,
)
from clipneurons.bundle.folders import CHECKSUMS
from clipneurons.bundle.labels import NAMES
from clipneurons.bundle.layer_arrays import WEAKER, LayerArrays
from tests.helpers.tiny import MEAN, STD, tiny_bundle, tiny_labels, tiny_webp


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "MODEL.md").write_text("# Model\n")
    return save_bundle(tiny_bundle(), tmp_path / "bundle", {"skipped.csv": b"index,reason\n"})


def assert_same(a, b):
    assert a.config == b.config
    assert (a.texts, a.metrics, a.card) == (b.texts, b.metrics, b.card)
    assert torch.equal(a.text_embeddings, b.text_embeddings)
    assert dict(a.examples) == dict(b.examples)
    assert a.examples.captions == b.examples.captions
    assert list(a.layers) == list(b.layers)
    for layer in a.layers:
        for f in fields(LayerArrays):
            x, y = (getattr(bundle.layers[layer], f.name) for bundle in (a, b))
            if f.name in WEAKER and x is None:
                assert y is None
                continue
            assert x.dtype == y.dtype
            assert torch.equal(x, y), f.name


@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_load_is_the_inverse_of_save(tmp_path, kind):
    bundle = tiny_bundle(kind=kind)
    assert_same(load_bundle(save_bundle(bundle, tmp_path / "b")), bundle)


def test_the_same_bundle_gives_the_same_bytes(tmp_path):
    first = save_bundle(tiny_bundle(), tmp_path / "a")
    second = save_bundle(load_bundle(first), tmp_path / "b")
    for name in (*BUNDLE_FILES, CHECKSUMS):
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_half_storage_rounds_once(tmp_path):
    bundle = tiny_bundle()
    bundle = replace(bundle, config=replace(bundle.config, storage="float16"))
    once = load_bundle(save_bundle(bundle, tmp_path / "b"))
    assert once.layers[1].directions.dtype == torch.float32
    torch.testing.assert_close(
        once.layers[1].directions, bundle.layers[1].directions, atol=1e-3, rtol=1e-3
    )
    assert_same(load_bundle(save_bundle(once, tmp_path / "b")), once)


def test_means_along_the_directions_are_stored_as_lengths(tmp_path):
    """Those of neuron-head pairs; of other units, and in float32, they stay whole."""
    plain = tiny_bundle()
    sizes = torch.randn(16, generator=torch.Generator().manual_seed(0))
    layers = {layer: replace(a, means=sizes[:, None] * a.directions) for layer, a in
              plain.layers.items()}  # fmt: skip
    half = replace(plain.config, storage="float16")
    bundle = replace(plain, layers=layers, config=half)
    once = load_bundle(save_bundle(bundle, tmp_path / "b"))
    for layer, arrays in once.layers.items():
        torch.testing.assert_close(arrays.means, layers[layer].means, atol=1e-3, rtol=1e-3)
    assert_same(load_bundle(save_bundle(once, tmp_path / "again")), once)
    stored = {"lengths": bundle, "unlike": replace(plain, config=half),
              "float32": replace(bundle, config=plain.config)}  # fmt: skip
    kept = {name: load(bundle_files(one)[NEURONS]) for name, one in stored.items()}
    assert {name: "layer1.means" in one for name, one in kept.items()} == {
        "lengths": False, "unlike": True, "float32": True,
    }  # fmt: skip


def test_examples_and_phrases(folder):
    bundle = load_bundle(folder)
    assert bundle.examples[7] == tiny_webp(7)
    assert bundle.examples.caption(7) == "colour 7"
    assert 99 not in bundle.examples
    phrases = bundle.phrases(1, 3)
    assert [abs(c) for _, c in phrases] == sorted((abs(c) for _, c in phrases), reverse=True)
    assert phrases[0][0] == bundle.texts[int(bundle.layers[1].indices[3, 0])]


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def test_every_flipped_bit_is_refused(folder):
    listed = [line.split("  ")[1] for line in (folder / CHECKSUMS).read_text().splitlines()]
    assert set(listed) == {*BUNDLE_FILES, "MODEL.md", "skipped.csv"}
    generator = random.Random(0)
    for name in (*listed, CHECKSUMS):
        data = (folder / name).read_bytes()
        bits = range(8 * len(data))
        for bit in generator.sample(bits, min(len(bits), 60)):
            (folder / name).write_bytes(flipped(data, bit))
            with pytest.raises(BundleDamaged):
                load_bundle(folder)
        (folder / name).write_bytes(data)
    load_bundle(folder)


def test_every_byte_of_the_checksums_counts(folder):
    data = (folder / CHECKSUMS).read_bytes()
    for byte in range(len(data)):
        bit = 8 * byte + byte % 8
        (folder / CHECKSUMS).write_bytes(flipped(data, bit))
        with pytest.raises(folders.FolderDamaged):
            folders.checked_files(folder, BUNDLE_FILES, ("MODEL.md", "skipped.csv"))


@pytest.mark.parametrize("name", [*BUNDLE_FILES, CHECKSUMS])
def test_a_missing_or_cut_file_is_refused(folder, name):
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[: len(data) // 2])
    with pytest.raises(BundleDamaged):
        load_bundle(folder)
    (folder / name).unlink()
    with pytest.raises(BundleDamaged, match=name):
        load_bundle(folder)


def test_weights_may_be_absent_but_not_different(folder):
    (folder / "MODEL.md").write_text("# Another\n")
    with pytest.raises(BundleDamaged, match=r"MODEL\.md"):
        load_bundle(folder)
    (folder / "MODEL.md").unlink()
    load_bundle(folder)


def test_files_that_are_not_the_bundles_stay(folder):
    (folder / "notes.txt").write_text("mine")
    save_bundle(tiny_bundle(seed=1), folder)
    assert (folder / "notes.txt").read_text() == "mine"
    assert (folder / "MODEL.md").exists()
    assert not (folder / "skipped.csv").exists(), "belongs to the old bundle"
    assert "notes.txt" not in (folder / CHECKSUMS).read_text()
    with pytest.raises(BundleDamaged, match=r"holds notes\.txt, which SHA256SUMS does not list"):
        load_bundle(folder)


def test_a_failed_save_leaves_the_old_bundle(folder, monkeypatch):
    before = {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}
    steps = {"count": 0}
    flush = folders._flush

    def fail_at(limit):
        def step(path):
            steps["count"] += 1
            if steps["count"] > limit:
                raise OSError(28, "No space left on device")
            flush(path)

        return step

    for limit in range(0, 8, 3):
        steps["count"] = 0
        monkeypatch.setattr(folders, "_flush", fail_at(limit))
        with pytest.raises(OSError, match="No space"):
            save_bundle(tiny_bundle(seed=1), folder)
        assert {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()} == before
        assert [p.name for p in folder.parent.iterdir()] == [folder.name]


def test_exchange_without_the_system_call(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(folders.ctypes, "CDLL", lambda *_, **__: SimpleNamespace())
    save_bundle(tiny_bundle(seed=1), folder)
    assert_same(load_bundle(folder), tiny_bundle(seed=1))
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"]


def fake_clip(**changes):
    values = {
        "sha256": lambda: "1" * 64,
        "kind": "vit",
        "name": "ViT-tiny",
        "pretrained": "none",
        "activation": "gelu",
        "image_size": (32, 32),
        "image_mean": MEAN,
        "image_std": STD,
        "embed_dim": 24,
        "heads": 2,
        "dtype": torch.float32,
    }
    return SimpleNamespace(**(values | changes))


def test_a_model_that_does_not_fit_is_refused_with_both_values():
    clip = fake_clip()
    config = replace(tiny_bundle().config, weights_sha256=clip.sha256(), model="ViT-tiny")
    check_clip(config, clip)
    check_clip(config, fake_clip(name="the same weights elsewhere"))
    for changes, words in [
        ({"sha256": lambda: "2" * 64, "name": "ViT-other"}, ("ViT-tiny", "ViT-other")),
        ({"activation": "quick_gelu"}, (" gelu", "quick_gelu")),
        ({"image_size": (64, 64)}, ("32", "64")),
        ({"image_mean": (0.5, 0.5, 0.5)}, (str(MEAN[0]), "0.5")),
        ({"image_std": (0.5, 0.5, 0.5)}, (str(STD[0]), "0.5")),
        ({"embed_dim": 32}, ("24", "32")),
        ({"heads": 4}, ("2", "4")),
        ({"kind": "resnet"}, ("vit", "resnet")),
    ]:
        with pytest.raises(BundleMismatch) as raised:
            check_clip(config, fake_clip(**changes))
        for word in words:
            assert word in str(raised.value)


def broken(**changes):
    bundle = tiny_bundle()
    return replace(bundle, layers=bundle.layers | {1: replace(bundle.layers[1], **changes)})


def test_what_does_not_fit_the_schema_is_refused(tmp_path):
    good = tiny_bundle().layers[1]
    bad_direction = good.directions.clone()
    bad_direction[0] *= 1.5
    nan = good.means.clone()
    nan[2, 3] = float("nan")
    for bundle, words in [
        (replace(tiny_bundle(), config=replace(tiny_bundle().config, top_k=5)), "top_norms is"),
        (broken(means=nan), "not finite"),
        (broken(directions=bad_direction), "unit"),
        (broken(indices=good.indices + 8), "outside"),
        (replace(tiny_bundle(), texts=["one"]), "texts"),
        (replace(tiny_bundle(), texts=["", *tiny_bundle().texts[1:]]), "line break"),
        (replace(tiny_bundle(), layers={1: good}), "layers"),
    ]:
        with pytest.raises(BundleDamaged, match=words):
            save_bundle(bundle, tmp_path / "b")
        assert not (tmp_path / "b").exists()


def with_config(folder, text):
    files = bundle_files(tiny_bundle()) | {"config.json": text.encode()}
    folders.replace_folder(folder, files, owned=BUNDLE_FILES, listed=BUNDLE_FILES)
    return folder


def test_config_errors_name_the_key_and_the_version(tmp_path):
    values = json.loads(tiny_bundle().config.to_json())
    newer = json.dumps(values | {"schema_version": 2})
    with pytest.raises(BundleError, match=r"schema version 2.*reads 1"):
        load_bundle(with_config(tmp_path / "b", newer))
    with pytest.raises(BundleDamaged, match="surprise"):
        load_bundle(with_config(tmp_path / "b", json.dumps(values | {"surprise": 1})))
    del values["heads"]
    with pytest.raises(BundleDamaged, match="heads"):
        load_bundle(with_config(tmp_path / "b", json.dumps(values)))
    with pytest.raises(BundleDamaged, match="not JSON"):
        load_bundle(with_config(tmp_path / "b", "{"))
    assert BundleConfig.from_json(tiny_bundle().config.to_json()) == tiny_bundle().config


def test_a_folder_that_is_no_bundle(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(BundleDamaged, match="no exported bundle"):
        load_bundle(tmp_path / "empty")
    shutil.rmtree(tmp_path / "empty")


def test_tested_labels_come_back_and_are_optional(tmp_path):
    plain = tiny_bundle()
    assert load_bundle(save_bundle(plain, tmp_path / "old")).labels == {}
    assert plain.label(1, 0) is None
    bundle = replace(plain, labels=tiny_labels(plain))
    folder = save_bundle(bundle, tmp_path / "new")
    back = load_bundle(folder)
    for layer, mine in bundle.labels.items():
        for name in NAMES:
            pair = getattr(back.labels[layer], name), getattr(mine, name)
            torch.testing.assert_close(*pair, rtol=0, atol=0, equal_nan=True)
    first = plain.texts[int(plain.layers[1].indices[0, 0])]
    label = back.label(1, 0)
    assert (label.texts[0], label.weights) == (first, (2.0, -1.0))
    assert label.positive == (first,)
    assert label.simulation_score == float(bundle.labels[1].simulation_score[0])
    save_bundle(plain, folder)
    assert not (folder / LABELS).exists(), "belongs to other words"


def test_a_reliable_label_is_significant_explains_a_twentieth_and_is_specific():
    labels = tiny_labels(tiny_bundle())[1]
    q = torch.full((16,), 0.01)
    low = torch.full((16,), 0.3)
    q[0], low[1], low[2] = 0.06, 0.22, 0.23
    specificity = torch.ones(16)
    specificity[3] = 0.94
    labels = replace(labels, q_value=q, simulation_low=low, specificity=specificity)
    assert (~labels.significant).nonzero().flatten().tolist() == [0]
    assert (~labels.reliable).nonzero().flatten().tolist() == [0, 1, 3]
    texts = tiny_bundle().texts
    levels = [labels.of(unit, texts).level for unit in range(4)]
    assert levels == ["not significant", "weak", "reliable", "weak"]


def test_labels_that_were_changed_or_do_not_fit_are_refused(tmp_path):
    plain = tiny_bundle()
    labels = tiny_labels(plain)
    folder = save_bundle(replace(plain, labels=labels), tmp_path / "b")
    data = bytearray((folder / LABELS).read_bytes())
    data[-1] ^= 1
    (folder / LABELS).write_bytes(bytes(data))
    with pytest.raises(BundleDamaged, match=LABELS):
        load_bundle(folder)
    for wrong in (
        {1: labels[1]},
        labels | {2: tiny_labels(tiny_bundle(neurons=8))[2]},
        labels | {2: replace(labels[2], concept=labels[2].concept + 999)},
        labels | {2: replace(labels[2], q_value=labels[2].q_value * torch.nan)},
    ):
        with pytest.raises(BundleDamaged, match="labels"):
            save_bundle(replace(plain, labels=wrong), tmp_path / "c")
