"""A bundle of features: made by the same run, read by the same code as one of neurons."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from clipneurons.bundle.bundle import load_bundle, save_bundle
from clipneurons.bundle.config import BundleDamaged
from clipneurons.bundle.sparse_features import SparseFeatures, save_features
from clipneurons.concepts.concepts import ConceptReader
from clipneurons.concepts.image_concepts import read_image
from clipneurons.edit.edit import Edit, apply_edit
from clipneurons.lens.lens import Lens
from clipneurons.segmentation.neuron_votes import vote_maps
from clipneurons.shift.profile import Profiler
from export.__main__ import main
from export.pipeline import inputs
from tests.helpers.models import images
from tests.helpers.tiny import RESNET, VIT, WORDS, tiny_clip, tiny_model_folder

LATENTS, WIDTH = 12, {"vit": 32, "resnet": 256}
PLACES = {"vit": {"block": 2, "site": "mlp_out"}, "resnet": {"block": 4, "site": "last_stage"}}


def dictionary(kind, **settings):
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(LATENTS, WIDTH[kind], generator=generator) / 4
    rows[3] = 0  # never fires: dead
    return SparseFeatures(
        rows.T.clone(), torch.zeros(LATENTS), rows, torch.zeros(WIDTH[kind]),
        source="made by this test", **PLACES[kind] | settings,
    )  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    root = tmp_path_factory.mktemp("features")
    generator = np.random.default_rng(0)
    (root / "pictures").mkdir()
    for number in range(24):
        pixels = generator.integers(0, 255, (24, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "pictures" / f"{number:02d}.png")
    (root / "texts.txt").write_text("\n".join(WORDS))
    for kind, config in (("vit", VIT), ("resnet", RESNET)):
        tiny_model_folder(root / kind, config)
        save_features(dictionary(kind), root / f"{kind}-dictionary")
    return root


def line(place, out, *more, kind="vit", features=None):
    return [
        "run", "--model", str(place / kind), "--images", str(place / "pictures"), "--texts",
        str(place / "texts.txt"), "--features", str(features or place / f"{kind}-dictionary"),
        "--top-k", "7", "--batch", "8", "--components", "3", "--device", "cpu", "--out", str(out),
        "--no-evaluate", *more,
    ]  # fmt: skip


@pytest.fixture(scope="module", params=["vit", "resnet"])
def made(place, tmp_path_factory, request):
    out = tmp_path_factory.mktemp(request.param) / "bundle"
    assert main(line(place, out, kind=request.param)) == 0
    clip = tiny_clip(tmp_path_factory.mktemp("model"), VIT if request.param == "vit" else RESNET)
    return out, load_bundle(out), clip


def test_a_run_says_where_its_features_sit_and_what_they_explain(place, tmp_path, capsys):
    out = tmp_path / "bundle"
    assert main(line(place, out)) == 0
    said = capsys.readouterr().out
    assert "12 of made by this test, mlp_out of block 2, all tokens" in said
    assert "warning  less than half of the variance is explained" in said
    note = load_bundle(out).config.features
    assert (note.block, note.site, note.latents, note.dead) == (2, "mlp_out", LATENTS, 1)
    assert note.explained_variance < 0.5 < note.active
    assert main(["info", str(out)]) == 0
    assert "12 of made by this test, mlp_out of block 2" in capsys.readouterr().out
    assert "the features of bundle say" in (out / "README.md").read_text()
    assert main(["verify", str(out), "--device", "cpu"]) == 0
    assert main(line(place, out)) == 0
    assert "was finished before" in capsys.readouterr().out
    other = save_features(replace(dictionary("vit"), b_dec=torch.ones(32)), tmp_path / "other")
    assert main(line(place, out, features=other.parent)) == 2
    assert "holds a bundle already" in capsys.readouterr().err


def test_the_bundle_holds_the_dictionary_and_everything_reads_it(made):
    _, bundle, clip = made
    assert torch.equal(bundle.features.w_dec, dictionary(clip.kind).w_dec)
    lens, batch = Lens.of_bundle(clip, bundle), images(2, clip)
    (layer,) = lens.layers
    embedding, effects = lens(batch)
    units = len(bundle.layers[layer].directions)
    assert units == LATENTS * bundle.config.units_per_neuron
    reader = ConceptReader(lens, bundle)
    assert read_image(reader, batch[0]).concepts
    assert bundle.unit(layer, 1).noun == "feature"
    assert vote_maps(lens, bundle.directions, batch, bundle.text_embeddings[:2], 5).isfinite().all()
    assert Profiler(lens, bundle)(batch).units.shape == (2, units)
    # An ablated latent's effect is its mean: the rest of the embedding stays.
    factors = Edit.ablating(bundle, [(layer, 1)]).factors(bundle)
    means = {layer: bundle.layers[layer].means}
    change = apply_edit(embedding, effects, factors, means)
    scaled = 100 * embedding / embedding.norm(dim=1, keepdim=True)
    own = effects[layer].dense(torch.tensor([1]))[:, 0]
    assert torch.allclose(change, scaled - own + means[layer][1], atol=1e-3)


def test_half_precision_is_read_as_it_will_be_stored(place, tmp_path):
    out = tmp_path / "bundle"
    assert main(line(place, out, "--storage", "float16", "--quiet")) == 0
    bundle = load_bundle(out)
    assert torch.equal(bundle.features.w_dec, dictionary("vit").w_dec.half().float())


def test_a_dictionary_that_does_not_fit_is_one_line(place, tmp_path, capsys):
    narrow = replace(dictionary("vit"), w_enc=torch.ones(5, LATENTS))
    save_features(narrow, tmp_path / "narrow")
    for more, message in (
        (("--layers", "1"), "is of block 2, not of block 1"),
        (("--layers", "1", "2"), "one dictionary has one layer"),
    ):
        assert main(line(place, tmp_path / "b", *more)) == 2
        assert message in capsys.readouterr().err
    assert main(line(place, tmp_path / "b", features=tmp_path / "narrow")) == 2
    assert "the encoder reads 5 numbers a token" in capsys.readouterr().err
    assert main(line(place, tmp_path / "b", features=tmp_path / "nowhere")) == 2
    assert "does not exist here" in capsys.readouterr().err


def test_a_bundle_of_another_dictionary_is_refused(made, tmp_path):
    out, bundle, _ = made
    wider = replace(bundle.features, tokens="patches")
    with pytest.raises(BundleDamaged, match=r"features of .*, the dictionary is of"):
        save_bundle(replace(bundle, features=wider), tmp_path / "b")
    with pytest.raises(BundleDamaged, match="settings without their dictionary"):
        save_bundle(replace(bundle, features=None), tmp_path / "b")
    folder = shutil.copytree(out, tmp_path / "copy")
    config = json.loads((folder / "config.json").read_text())
    config["features"]["latents"] = "many"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(BundleDamaged):
        load_bundle(folder)


def test_a_bundle_that_ships_names_the_model_that_ships(place, tmp_path, monkeypatch):
    monkeypatch.setattr(inputs, "ARTIFACTS", tmp_path)
    shutil.copytree(place / "vit", tmp_path / "mini-vit")
    model = str(tmp_path / "mini-vit")
    assert inputs.model_files(model, tmp_path / "mini-vit-features") == ("mini-vit", {})
    assert inputs.model_files(model, tmp_path / "mini-vit") == (".", {})
    name, files = inputs.model_files(model, tmp_path / "elsewhere" / "bundle")
    assert name == "."
    assert files
