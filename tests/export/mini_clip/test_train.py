"""The trainer: a killed run goes on exactly, an exported folder is a plain open_clip model."""

import json

import numpy as np
import open_clip
import pytest
import torch
from torch.nn import functional as F

from clipneurons.synthetic.captions import Facts
from clipneurons.synthetic.pictograms import load_pictograms, save_pictograms
from export.mini_clip import data, train, visual_space
from export.mini_clip import model as mini_model
from export.mini_clip.word_space import DIM, Space, random_facts, text_batch

WORDS = ["red", "orange", "yellow", "green", "blue", "purple"]
WORDS += ["pink", "brown", "black", "gray", "white"]
PATTERNS = ["plain", "gradient", "striped", "checkered", "noisy", "background"]


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    """Six concepts of the shipped pack, in every style."""
    whole, concepts = load_pictograms(), ("cat", "dog", "star", "key", "car", "apple")
    concepts = [c for c in concepts if c in whole.concepts]
    drawings = [
        (concept, style, whole.data[whole.offsets[i] : whole.offsets[i + 1]].tobytes())
        for (concept, style), ids in whole.entries.items()
        if concept in concepts
        for i in ids
    ]
    path = tmp_path_factory.mktemp("pack") / "few.safetensors"
    groups = {c: whole.groups[c] for c in concepts}
    synonyms = {c: list(whole.synonyms[c]) for c in concepts}
    save_pictograms(path, drawings, groups, synonyms, whole.licences)
    return load_pictograms(path)


@pytest.fixture(scope="module")
def space(pack):
    """Random word vectors: the sentence model is needed only to train the released weights."""
    rng = np.random.default_rng(0)
    synonyms = [s for c in pack.concepts for s in pack.synonyms[c]]
    words = [*pack.concepts, *synonyms, *WORDS, *PATTERNS]
    vectors = rng.normal(size=(len(words), DIM)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    rotations = np.stack([np.linalg.qr(rng.normal(size=(DIM, DIM)))[0] for _ in range(4)])
    return Space(words, vectors, rotations.astype(np.float32))


@pytest.fixture
def small(monkeypatch, pack, space):
    """The recipe on six concepts and towers of toy size."""
    vision = {
        "vit": {"image_size": 64, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
        "rn": {"image_size": 128, "layers": [1, 1, 1, 1], "width": 8, "head_width": 16},
    }
    monkeypatch.setattr(mini_model, "VISION", vision)
    monkeypatch.setattr(train, "VISION", vision)
    monkeypatch.setattr(train, "load_pictograms", lambda path=None: pack)
    monkeypatch.setattr(Space, "load", classmethod(lambda cls, path: space))


@pytest.mark.parametrize("stage", ["text", "vit", "rn"])
def test_a_killed_run_goes_on_exactly(small, tmp_path, stage):
    recipe = train.Recipe(stage, batch=8, steps=6)
    straight = train.Trainer(recipe, tmp_path)
    losses = [straight.train_step() for _ in range(6)]
    again = train.Trainer(recipe, tmp_path)
    first = [again.train_step() for _ in range(3)]
    again.save()
    resumed = train.Trainer(recipe, tmp_path)
    assert resumed.step == 3
    assert first + [resumed.train_step() for _ in range(3)] == losses
    for name, value in straight.model.state_dict().items():
        torch.testing.assert_close(resumed.model.state_dict()[name], value, rtol=0, atol=0)
        torch.testing.assert_close(resumed.average[name], straight.average[name], rtol=0, atol=0)


def test_training_learns_and_exports_a_plain_open_clip_model(small, tmp_path, capsys):
    torch.manual_seed(0)
    for stage in ("text", "vit", "rn"):
        recipe = train.Recipe(stage, batch=8, steps=4)
        train.train(recipe, tmp_path, "cpu", every=1e9)
    assert "step 4 100%" in capsys.readouterr().out
    train.export(tmp_path, tmp_path / "out")
    towers = {}
    for kind in ("vit", "rn"):
        model, _, _ = open_clip.create_model_and_transforms(
            f"local-dir:{tmp_path / 'out' / f'mini-{kind}'}", require_pretrained=True
        )
        towers[kind] = model.eval()
    config = json.loads((tmp_path / "out/mini-vit/open_clip_config.json").read_text())
    assert config["model_cfg"]["embed_dim"] == DIM
    # The text tower as trained, with cut captions and few tokens, is the one exported.
    trainer = train.Trainer(train.Recipe("text", batch=8, steps=4), tmp_path)
    trainer.model.load_state_dict(trainer.average)
    ids = trainer.tokenizer(["a cat", "a red dog left of a cat on a blue background"])
    with torch.no_grad():
        ours = F.normalize(trainer.encode_text(torch.searchsorted(trainer.tokens, ids)), dim=1)
        for tower in towers.values():
            theirs = F.normalize(tower.encode_text(ids), dim=1)
            torch.testing.assert_close(ours, theirs, rtol=0, atol=0.01)


def test_all_patches_are_the_plain_forward(small):
    torch.manual_seed(0)
    visual = mini_model.build("vit").visual.eval()
    image, cover = torch.randn(2, 3, 64, 64), torch.rand(2, 1, 64, 64)
    ours = train.patch_forward(visual, image, cover, 0) @ visual.proj
    torch.testing.assert_close(ours, visual(image), rtol=1e-4, atol=1e-4)
    visual = mini_model.build("rn").visual.eval()
    image = torch.randn(2, 3, 128, 128)
    ours = visual.attnpool(train.convolution_forward(visual, image))
    torch.testing.assert_close(ours, visual(image), rtol=1e-4, atol=1e-4)


def test_an_image_tower_begins_where_another_stopped(small, tmp_path):
    for stage in ("text", "vit"):
        train.train(train.Recipe(stage, batch=8, steps=2), tmp_path, "cpu")
    train.export(tmp_path, tmp_path / "out")
    (tmp_path / "next").mkdir()
    recipe = train.Recipe("vit", batch=8, steps=2)
    trainer = train.Trainer(recipe, tmp_path / "next", start=tmp_path / "out" / "mini-vit")
    before = torch.load(tmp_path / "vit.pt", weights_only=True)["average"]
    assert trainer.step == 0
    for name, value in trainer.model.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=1e-3, atol=1e-3)


def test_the_space_of_looks_turns_but_keeps_meaning(pack, space, tmp_path, monkeypatch):
    monkeypatch.setattr(Space, "build", classmethod(lambda cls, pack: space))
    visual_space.prepare(tmp_path, [pack], ("fxemoji",), count=512)
    monkeypatch.undo()
    turned = Space.load(tmp_path / "space.safetensors")
    assert turned.words == space.words
    np.testing.assert_allclose(np.linalg.norm(turned.vectors, axis=1), 1, rtol=1e-5)
    plain = [turned.index[word] for word in PATTERNS]
    old, new = space.vectors[plain], turned.vectors[plain]
    np.testing.assert_allclose(new @ new.T, old @ old.T, atol=1e-4)  # a rotation
    moved = turned[pack.concepts[0]] @ turned[pack.concepts[1]]
    assert abs(moved - space[pack.concepts[0]] @ space[pack.concepts[1]]) > 1e-3


def test_points_are_where_the_shipped_text_tower_puts_words(tmp_path):
    pack = load_pictograms()
    points = train.points_of(tmp_path, pack)
    assert (tmp_path / "points.safetensors").is_file()
    cosine = points["cat"] @ points[pack.synonyms["cat"][0]]
    assert cosine > points["cat"] @ points["airplane"] + 0.2


def test_class_tokens_get_nothing_from_half_of_the_mlps_in_training_only():
    torch.manual_seed(0)
    mlp = torch.nn.Linear(4, 4)
    mlp.register_forward_hook(train.leave_out_class_token)
    x = torch.randn(200, 3, 4)
    plain = torch.nn.functional.linear(x, mlp.weight, mlp.bias)
    out = mlp(x)
    torch.testing.assert_close(out[:, 1:], plain[:, 1:])
    left_out = (out[:, 0] == 0).all(1)
    assert 60 < left_out.sum() < 140
    torch.testing.assert_close(out[~left_out], plain[~left_out])
    torch.testing.assert_close(mlp.eval()(x), plain)


def test_same_concepts_are_no_negatives():
    image = F.normalize(torch.randn(3, DIM), dim=1)
    anchors = F.normalize(torch.randn(5, DIM), dim=1)
    shown = torch.tensor([[0, 1], [1, 0], [2, 3]])
    loss = train.contrastive(image, image, shown, anchors)
    # Duplicates with opposite captions would raise the loss were they negatives.
    points = image.clone()
    points[1] = image[0]
    other = train.contrastive(image, points, torch.tensor([[0, 1], [4, 0], [2, 3]]), anchors)
    assert loss < other


def test_batch_holds_together(pack, space):
    torch.manual_seed(0)
    sprites = data.Sprites.load([pack], exclude=("fxemoji",))
    rng = np.random.default_rng(0)
    for objects in (1, 2, 3):
        made = data.batch(sprites, space, pack.concepts, 16, objects, rng, 0.5)
        assert made.image.shape == (16, 3, 64, 64)
        assert made.shown.shape == (16, objects)
        assert 0 <= made.image.min() <= made.image.max() <= 1
        assert made.cover.amax((1, 2, 3)).min() > 0.3
        torch.testing.assert_close(made.points.norm(dim=1), torch.ones(16))


def test_dilation_is_max_pooling():
    x = torch.rand(2, 1, 64, 64)
    for size in (3, 5, 9):
        assert torch.equal(data.dilate(x, size), F.max_pool2d(x, size, 1, size // 2))


def test_orthogonal_update():
    for shape in ((16, 16), (16, 64), (64, 16)):
        scale = max(1, shape[0] / shape[1]) ** 0.5
        singular = torch.linalg.svdvals(mini_model.orthogonal(torch.randn(shape)) / scale)
        assert 0.5 < singular.min() <= singular.max() < 1.3


def test_captions_and_points(pack, space):
    rng = np.random.default_rng(0)
    texts, points = text_batch(space, pack, rng, 32)
    assert len(texts) == len(points) == 32
    for _ in range(20):
        facts = random_facts(pack, rng)
        np.testing.assert_allclose(np.linalg.norm(space.target(facts)), 1, rtol=1e-5)
    one, two = pack.concepts[:2]
    plain = Facts((one, two), (None, None))
    ordered = Facts((one, two), (None, None), "left of")
    swapped = Facts((two, one), (None, None), "right of")
    np.testing.assert_allclose(space.target(ordered), space.target(swapped), atol=1e-6)
    assert not np.allclose(space.target(plain), space.target(ordered), atol=0.01)
