import numpy as np
import pytest
import torch
from PIL import Image

from export.common.errors import UserError
from research.segmentation.mask_datasets import MaskSet
from research.segmentation.methods import BLOCKS, OURS, PAIRS
from research.segmentation.metrics import resamples
from research.segmentation.semantic import (
    BACKGROUND,
    IGNORED,
    Guess,
    compare,
    confusion,
    folder,
    in_words,
    mean_iou,
    photographed,
    photographs,
    scenes,
)
from tests.helpers.models import tiny_resnet, tiny_vit


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
    guess = Guess(*scores.max(0), labels)
    assert mean_iou(guess.counts(0.5, 2)) == 100
    assert mean_iou(guess.counts(2.0, 2)) == 25  # background 8 of 16, class 1 nothing


def test_scenes_label_the_visible_pixels_of_each_object():
    data = scenes(("airplane", "anchor", "alien"), 3, "heldout", 64, 0)
    for image, labels in data:
        assert image.size == (64, 64)
        assert 2 <= len(np.unique(labels[labels >= 0])) <= 3
        assert (labels == BACKGROUND).mean() > 0.1


def test_every_pixel_of_cut_photographs_has_a_name():
    names = photographed(5)
    assert names == photographed(5)
    assert len(set(names)) == 5
    data = photographs(names, 4, "heldout", 32, 0)
    assert data.class_names == tuple(names)
    for image, labels in data:
        assert image.size == (32, 32)
        assert len(np.unique(labels)) == 2
        assert (labels >= 0).all()


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


def two_sets(size=64):
    rng = np.random.default_rng(0)

    def load(_index):
        pixels = rng.integers(0, 256, (size, size * 3 // 2, 3)).astype(np.uint8)
        return Image.fromarray(pixels), rng.integers(-1, 2, (size, size * 3 // 2))

    return [MaskSet(name, 2, ("a cat", "a dog"), load) for name in ("one", "other")]


def test_every_method_is_measured_in_both_blocks_with_what_it_chose():
    figures = compare(tiny_resnet(), *two_sets(), templates="none")
    for block in BLOCKS:
        entries = figures["blocks"][block]
        assert set(entries) == {OURS, PAIRS, "MaskCLIP", "attention", "GradCAM"}
        assert entries[PAIRS]["count"] >= 1
        for name, entry in entries.items():
            assert 0 < entry["mIoU"] < 100
            assert entry["interval"][0] <= entry["mIoU"] + 0.01
            assert entry["mIoU"] <= entry["interval"][1] + 0.01
            assert ("times MaskCLIP" in entry) == (name != "MaskCLIP")
    assert in_words(figures).count("| neuron-head pairs |") == 2


def test_a_vit_is_measured_by_the_methods_that_are_named(capsys):
    figures = compare(tiny_vit(), *two_sets(), names="MaskCLIP,GradCAM", templates="none")
    assert all(set(figures["blocks"][block]) == {"MaskCLIP", "GradCAM"} for block in BLOCKS)
    assert not capsys.readouterr().err, "no progress where nobody looks"
    with pytest.raises(UserError, match="no method 'magic'"):
        compare(tiny_vit(), *two_sets(), names="magic", templates="none")


def test_the_bootstrap_counts_images_as_often_as_they_are_drawn():
    rng = np.random.default_rng(1)
    counts = np.stack([confusion(*rng.integers(-1, 2, (2, 5, 5)), 2) for _ in range(4)])
    weights = np.array([[1, 0, 2, 1], [0, 4, 0, 0]])
    found = mean_iou(np.tensordot(weights, counts, 1))
    assert found[0] == pytest.approx(mean_iou(counts[0] + 2 * counts[2] + counts[3]))
    assert found[1] == pytest.approx(mean_iou(counts[1]))


def test_a_class_that_a_resample_lacks_is_not_dropped_from_its_mean():
    # Image 0 is all of class 0, image 1 all of class 1; half of either is taken for class 1.
    truth = np.repeat([[0], [1]], 8, 1)
    guess = np.tile([0, 1], (2, 4))
    guess[1] = 1 - guess[1]
    counts = np.stack([confusion(g, t, 2) for g, t in zip(guess, truth, strict=True)])
    known = counts.sum((0, 2)) > 0
    assert mean_iou(counts[0]) == pytest.approx(50)
    assert mean_iou(counts[0], known) == pytest.approx(25), "class 1 is predicted, and wrong"
    assert mean_iou(confusion(truth[0], truth[0], 2), known) == 100, "class 1 is not there at all"
    assert mean_iou(counts.sum(0), known) == mean_iou(counts.sum(0))


def test_the_interval_of_few_images_holds_the_estimate():
    rng = np.random.default_rng(0)
    low, high = [], []
    for _ in range(20):
        truth = np.full((10, 200), BACKGROUND)
        truth[:, 100:] = rng.integers(0, 20, (10, 2)).repeat(50, 1)  # two of twenty classes each
        known = rng.random(20) * (rng.random((10, 1)) + 0.5)  # some classes, and images, are hard
        right = rng.random(truth.shape) < np.take_along_axis(known, truth.clip(0), 1)
        wrong = np.where(rng.random(truth.shape) < 0.1, rng.integers(0, 20, (10, 1)), BACKGROUND)
        guess = np.where(right, truth, wrong)
        counts = np.stack([confusion(g, t, 20) for g, t in zip(guess, truth, strict=True)])
        samples = mean_iou(np.tensordot(resamples(10, 200), counts, 1), counts.sum((0, 2)) > 0)
        ends = np.percentile(samples, [2.5, 97.5]) - mean_iou(counts.sum(0))
        low.append(ends[0])
        high.append(ends[1])
    assert max(low) < 0 < min(high)
    assert np.mean(high) < -np.mean(low), "dropped classes made it lie above the estimate"
