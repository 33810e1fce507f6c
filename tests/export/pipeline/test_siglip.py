"""From a SigLIP checkpoint of transformers to a bundle, and everything that reads one."""

import json
import shutil

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from PIL import Image
from safetensors.torch import load_file, save_file

from clipneurons.bundle.bundle import load_bundle
from clipneurons.bundle.unit_table import layer_table
from clipneurons.concepts.concepts import ConceptReader
from clipneurons.concepts.patch_concepts import patch_concepts
from clipneurons.lens.contributions import SpatialContributions
from clipneurons.lens.lens import Lens
from clipneurons.models.clip import load_clip
from clipneurons.segmentation.segment import segment
from export.__main__ import main
from export.common.errors import UserError
from research.segmentation.baselines.registry import BASELINES
from research.segmentation.methods import methods, pick
from tabs.server.session import BundleSession
from tests.clipneurons.models.test_transformers_clip import saved
from tests.helpers.hub_standin import TOKEN, serve
from tests.helpers.models import images
from tests.helpers.tiny import WORDS

LAYERS = (1, 2, 3)  # the last is the pooling's own MLP


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A checkpoint, pictures, texts and the bundle made of them."""
    root = tmp_path_factory.mktemp("siglip")
    (root / "model").mkdir()
    saved(root / "model", "SigLIP")
    (root / "pictures").mkdir()
    generator = np.random.default_rng(0)
    for i in range(24):
        pixels = generator.integers(0, 255, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "pictures" / f"{i:02d}.png")
    # The tokenizer knows few words: other texts than these would all be the same.
    texts = ["a", "photo", "of", "cat", "dog", "a cat", "a dog", "photo of a dog"]
    assert len(texts) == len(WORDS)
    (root / "texts.txt").write_text("\n".join(texts))
    code = main([
        "run", "--model", str(root / "model"), "--images", str(root / "pictures"),
        "--texts", str(root / "texts.txt"), "--layers", *map(str, LAYERS), "--top-k", "6",
        "--batch", "8", "--components", "3", "--device", "cpu", "--out", str(root / "bundle"),
        "--no-evaluate",
    ])  # fmt: skip
    assert code == 0
    return root


def test_the_bundle_says_what_it_is_of(place):
    config = load_bundle(place / "bundle").config
    assert (config.kind, config.pooling, config.layers) == ("vit", "probe", LAYERS)
    assert config.model == "./model"
    assert config.texts == "lower-cased, cut and padded to 16 tokens"
    assert main(["verify", str(place / "bundle"), "--device", "cpu"]) == 0


def test_what_reads_a_bundle_reads_it(place):
    bundle, clip = load_bundle(place / "bundle"), load_clip(place / "model", device="cpu")
    assert layer_table(bundle, 3), "the pooling's own neurons are in the dictionary"
    lens = Lens(clip, LAYERS)
    reader = ConceptReader(lens, bundle)
    _, effects = reader(images(2, clip))
    written = reader.written(effects)
    weights = reader.weights(written)
    assert weights.shape == (2, len(bundle.texts))
    assert weights.isfinite().all()
    # Patches have all that the neurons of the blocks write: there is no class token.
    placed = {
        layer: mine
        for layer, mine in effects.items()
        if isinstance(mine.contributions, SpatialContributions)
    }
    assert sorted(placed) == [1, 2]
    assert weights.sum(1).tolist() == pytest.approx([100.0, 100.0])
    whole = sum(mine.contributions.sum()[0] for mine in placed.values())
    torch.testing.assert_close(written[0].sum(0), whole, rtol=1e-4, atol=1e-4)
    here = patch_concepts(bundle, {k: v.contributions for k, v in effects.items()}, [5])
    assert {unit.layer for unit in here.units} <= {1, 2}


def test_it_is_segmented_by_the_methods_that_make_sense(place):
    bundle, clip = load_bundle(place / "bundle"), load_clip(place / "model", device="cpu")
    known = methods(clip, bundle.directions)
    assert {name for name, one in BASELINES.items() if one.class_token}.isdisjoint(known)
    picture = Image.open(place / "pictures" / "03.png")
    for maps in (None, *(method.maps for method in known.values())):
        result = segment(
            clip, picture, ["cat", "dog"], maps=maps, templates="none", others=["photo"]
        )
        assert result.heat.shape == (2, 32, 32)
        assert result.scores.isfinite().all()
        assert torch.std(result.scores) > 0


def test_a_method_that_cannot_read_it_says_why(place):
    clip = load_clip(place / "model", device="cpu")
    with pytest.raises(UserError, match="class token's attention, this model reads none"):
        pick(clip, methods(clip), "LRP")
    with pytest.raises(ValueError, match=r"GradCAM follows .* choose another method"):
        BASELINES["GradCAM"].maps(clip)


# huggingface_hub's own way of sending LFS objects.
@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
def test_the_checkpoint_travels_with_its_bundle(place, monkeypatch, tmp_path):
    """Published, fetched, and opened from the page's field: the model is that of the folder."""
    with serve() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        moved = shutil.copytree(place / "bundle", tmp_path / "elsewhere")
        assert main(["publish", "--bundle", str(moved), "--repo", "user/siglip"]) == 0
        files = hub.repositories["user/siglip"].commits[-1][1]
        assert {n for n in files if n.startswith("model/")} == {
            "model/config.json", "model/model.safetensors", "model/preprocessor_config.json",
            "model/tokenizer.json", "model/tokenizer_config.json",
        }  # fmt: skip
        assert json.loads(files["config.json"])["model"] == "./model", "no path of ours"
        assert main(["verify", "user/siglip", "--device", "cpu"]) == 0
        session = BundleSession.open("user/siglip")
    expected = load_clip(place / "model", device="cpu")
    batch = images(2, expected)
    assert torch.equal(session.clip.encode_image(batch), expected.encode_image(batch))
    assert torch.equal(session.encode_texts(["a cat"]), expected.encode_text(["a cat"]))


def test_weights_in_parts_are_refused_before_the_work(place, tmp_path, capsys):
    parts = shutil.copytree(place / "model", tmp_path / "parts")
    weights = load_file(parts / "model.safetensors")
    names = sorted(weights)
    half = {1: names[: len(names) // 2], 2: names[len(names) // 2 :]}
    index = {}
    for number, some in half.items():
        file = f"model-{number:05d}-of-00002.safetensors"
        save_file({name: weights[name] for name in some}, parts / file, {"format": "pt"})
        index |= dict.fromkeys(some, file)
    (parts / "model.safetensors").unlink()
    (parts / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": index})
    )
    code = main([
        "run", "--model", str(parts), "--images", str(place / "pictures"), "--device", "cpu",
        "--texts", str(place / "texts.txt"), "--out", str(tmp_path / "out"),
    ])  # fmt: skip
    assert code == 2
    assert "expected one file" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
