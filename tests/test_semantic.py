import numpy as np
import pytest
import torch
from PIL import Image

from export.evaluate_semantic import (
    BACKGROUND,
    IGNORED,
    Labelled,
    confusion,
    evaluate,
    folder,
    mean_iou,
    measure,
    scenes,
)
from export.settings import UserError
from tests.models import tiny_resnet


def test_mean_iou_is_the_loop_over_classes_and_pixels():
    rng = np.random.default_rng(0)
    truth, guess = rng.integers(-1, 3, (2, 9, 9))
    truth[truth == 2] = 0  # a class that does not occur is left out
    truth[0] = IGNORED
    shares = []
    for name in (BACKGROUND, 0, 1):
        true = {(i, j) for i in range(1, 9) for j in range(9) if truth[i, j] == name}
        said = {(i, j) for i in range(1, 9) for j in range(9) if guess[i, j] == name}
        shares.append(len(true & said) / len(true | said))
    expected = 100 * sum(shares) / 3
    assert mean_iou(confusion(guess, truth, 3)) == pytest.approx(expected)


def test_perfect_maps_give_all_and_the_bound_gives_background():
    labels = np.full((4, 4), BACKGROUND)
    labels[:, 2:] = 1
    scores = torch.zeros(2, 4, 4)
    scores[1, :, 2:] = 1.0
    assert evaluate([(scores, labels)], 0.5, 2) == 100
    assert evaluate([(scores, labels)], 2.0, 2) == 25  # background 8 of 16, class 1 nothing


def test_scenes_label_the_visible_pixels_of_each_object():
    data = scenes(("airplane", "anchor", "alien"), 3, "heldout", 64, 0)
    for image, labels in data:
        assert image.size == (64, 64)
        assert 2 <= len(np.unique(labels[labels >= 0])) <= 3
        assert (labels == BACKGROUND).mean() > 0.1


def test_a_folder_in_the_style_of_pascal_context_is_read(tmp_path):
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    mask = np.zeros((6, 8), np.uint8)
    mask[2], mask[3], mask[4] = 1, 2, 255
    Image.fromarray(np.zeros((6, 8, 3), np.uint8)).save(tmp_path / "images/a.jpg")
    Image.fromarray(mask).save(tmp_path / "masks/a.png")
    data = folder(tmp_path)
    _, labels = data.load(0)
    assert data.class_names == ("cat", "dog")
    assert labels[:, 0].tolist() == [BACKGROUND, BACKGROUND, 0, 1, IGNORED, BACKGROUND]
    Image.fromarray(np.full((6, 8), 3, np.uint8)).save(tmp_path / "masks/a.png")
    with pytest.raises(UserError, match="numbers up to 2"):
        data.load(0)
    (tmp_path / "masks/a.png").unlink()
    with pytest.raises(UserError, match="has no mask"):
        data.load(0)
    (tmp_path / "names.txt").unlink()
    with pytest.raises(UserError, match=r"no names\.txt"):
        folder(tmp_path)


def test_every_method_is_measured_with_what_it_chose():
    tower = tiny_resnet()
    rng = np.random.default_rng(0)

    def load(_index):
        pixels = rng.integers(0, 256, (64, 64, 3)).astype(np.uint8)
        return Image.fromarray(pixels), rng.integers(-1, 2, (64, 64))

    one, other = (Labelled(name, ("a cat", "a dog"), 2, load) for name in ("one", "other"))
    figures = measure(tower, one, other, templates="none")
    assert set(figures) == {"neuron-head pairs", "MaskCLIP", "attention", "GradCAM"}
    assert all(0 < figure["mIoU"] < 100 for figure in figures.values())
    assert figures["neuron-head pairs"]["count"] >= 1
