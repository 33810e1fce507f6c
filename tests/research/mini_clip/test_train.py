"""The trainer: a killed run goes on exactly, an exported folder is a plain open_clip model."""

import numpy as np
import open_clip
import pytest
import torch
from torch.nn import functional as F

from clipneurons.models.open_clip_folder import WEIGHTS_FILE, complete
from clipneurons.synthetic.photographs import load_photographs, save_photographs
from export.common.errors import UserError
from research.mini_clip import image_towers, model, photographs, train
from research.mini_clip.class_names import plain
from research.mini_clip.recipe import Recipe
from research.mini_clip.scene_bank import clean_in


@pytest.fixture
def run(monkeypatch, pack, space, tmp_path):
    """A run folder with scenes of six concepts and photographs of two, and towers of toy size."""
    vision = {
        "vit": {"image_size": 64, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
        "rn": {"image_size": 128, "layers": [1, 1, 1, 1], "width": 8, "head_width": 16},
    }
    monkeypatch.setattr(model, "VISION", vision)
    monkeypatch.setattr(train, "load_pictograms", lambda path=None: pack)
    space.save(tmp_path / "space.safetensors")
    train.build_scenes(tmp_path, 64, "cpu")
    few = load_photographs()
    rows = [i for i in range(len(few)) if plain(few.name(i)) in ("chair", "lobster")]
    few = few.subset(np.array(rows))
    few.split[:] = np.arange(len(few)) % 2
    save_photographs(tmp_path / "few.safetensors", few)
    photographs.prepare([tmp_path / "few.safetensors"], tmp_path)
    return tmp_path


@pytest.mark.parametrize("stage", ["text", "vit", "rn"])
def test_a_killed_run_goes_on_exactly(run, stage):
    recipe = Recipe(stage, batch=8, steps=4)
    straight = train.open_trainer(recipe, run, "cpu")
    losses = [straight.train_step() for _ in range(4)]
    again = train.open_trainer(recipe, run, "cpu")
    first = [again.train_step() for _ in range(2)]
    again.save()
    resumed = train.open_trainer(recipe, run, "cpu")
    assert resumed.step == 2
    assert first + [resumed.train_step() for _ in range(2)] == losses
    for name, value in straight.model.state_dict().items():
        torch.testing.assert_close(resumed.model.state_dict()[name], value, rtol=0, atol=0)
        torch.testing.assert_close(resumed.average[name], straight.average[name], rtol=0, atol=0)


def test_training_learns_and_exports_a_plain_open_clip_model(run, space):
    said = []
    for stage in ("text", "vit", "rn"):
        trainer = train.open_trainer(Recipe(stage, batch=8, steps=4), run, "cpu")
        train.train(trainer, every=1e9, say=said.append)
        if stage == "text":
            text = trainer
    assert sum("step 4 100.0%" in line for line in said) == 3
    assert "caltech-101" not in said[-1]
    assert "fxemoji" in said[-1]
    folders = train.export(run, run / "out")
    captions = ["a cat", "a red dog left of a cat on a blue background"]
    text.model.load_state_dict(text.average)
    with torch.no_grad():
        ours = text.encode(captions)
        for folder in folders:
            whole = folder.with_name(f"{folder.name}-whole")
            whole.mkdir()
            complete(folder, whole)
            name = f"local-dir:{whole}"
            clip, _, _ = open_clip.create_model_and_transforms(name, require_pretrained=True)
            theirs = F.normalize(
                clip.eval().encode_text(open_clip.get_tokenizer(name)(captions)), dim=1
            )
            torch.testing.assert_close(ours, theirs, rtol=0, atol=0.01)
    sizes = [(folder / WEIGHTS_FILE).stat().st_size for folder in folders]
    assert sizes[0] - sizes[1] > 10e6, "one text tower is stored"


def test_pictograms_alone_can_be_learned(run):
    (run / photographs.LABELS).unlink()
    trainer = train.open_trainer(Recipe("vit", batch=8, steps=2), run, "cpu")
    assert trainer.photographs is None
    assert len(trainer.rivals) == 1
    assert np.isfinite(trainer.train_step())
    assert "fxemoji" in trainer.validate()


def test_drawings_are_clean_at_first(run):
    trainer = train.open_trainer(Recipe("vit", batch=8, steps=10), run, "cpu")
    divide = clean_in(len(trainer.scenes))
    assert (trainer.facts.shown[:divide] >= 0).sum(1).max() == 1
    assert trainer.scene_rows(200).max() < divide
    trainer.step = 9
    share = (trainer.scene_rows(4000) < divide).mean()
    assert abs(share - 0.25) < 0.03


def test_an_image_tower_begins_where_another_stopped(run, tmp_path):
    trainer = train.open_trainer(Recipe("vit", batch=8, steps=2), run, "cpu")
    train.train(trainer, say=lambda line: None)
    text = train.open_trainer(Recipe("text", batch=8, steps=1), run, "cpu")
    train.train(text, say=lambda line: None)
    (folder,) = train.export(run, run / "out")
    (run / "vit.pt").unlink()
    begun = train.open_trainer(Recipe("vit", batch=8, steps=2), run, "cpu", start=folder)
    assert begun.step == 0
    for name, value in begun.model.state_dict().items():
        torch.testing.assert_close(value, trainer.average[name], rtol=1e-3, atol=1e-3)


def test_nothing_trained_is_one_line(tmp_path):
    with pytest.raises(UserError, match="no trained image tower"):
        train.export(tmp_path, tmp_path)
    with pytest.raises(UserError, match="research mini-clip space"):
        train.open_trainer(Recipe("text"), tmp_path, "cpu")


def test_siblings_of_another_data_set_are_no_mistakes():
    anchors = F.normalize(torch.tensor([[1.0, 0, 0], [0.9, 0.1, 0], [0, 1, 0], [0, 0, 1]]), dim=1)
    masks = image_towers.rivals(anchors, [torch.tensor([0, 2]), torch.tensor([1, 3])])
    # Source 0 names classes 0 and 2; class 1 means nearly what class 0 does.
    assert masks[0, 0].tolist() == [True, False, True, True]
    assert masks[0, 2].tolist() == [True, True, True, True]
    assert masks[1, 0].tolist() == [True, True, True, True]


def test_classification_is_cross_entropy_over_what_is_allowed():
    torch.manual_seed(0)
    image, anchors = F.normalize(torch.randn(2, 6), dim=1), F.normalize(torch.randn(4, 6), dim=1)
    shown = torch.tensor([[1, -1, -1], [0, 2, -1]])
    allowed = torch.tensor([[True, True, False, True], [False, True, True, True]])
    loss = 0.0
    for row, (classes, others) in enumerate(((([1]), [0, 1, 3]), ([0, 2], [0, 1, 2, 3]))):
        logits = image_towers.SCALE * anchors.double() @ image[row].double()
        total = torch.logsumexp(logits[others], 0)
        loss += sum(float(total - logits[c]) / len(classes) for c in classes) / 2
    found = image_towers.classification(image, anchors, shown, allowed)
    assert float(found) == pytest.approx(loss, rel=1e-4)


def test_same_classes_are_no_negatives():
    torch.manual_seed(0)
    image = F.normalize(torch.randn(3, 8), dim=1)
    points = image.clone()
    points[1] = image[0]  # duplicates with opposite captions would raise the loss
    same = torch.tensor([[0, 1], [1, 0], [2, 3]])
    other = torch.tensor([[0, 1], [4, 0], [2, 3]])
    assert image_towers.contrastive(image, image, same) < image_towers.contrastive(
        image, points, other
    )
