import pytest
import torch
import torch.nn.functional as F

from clipneurons.analysis.neuron_head_pairs import (
    accuracy,
    explained_by_one_direction,
    keep_largest,
    sub_concepts,
)
from clipneurons.lens.contributions import MeanEffect
from clipneurons.lens.second_order import SCALE
from tests.clipneurons.lens.test_neuron_head import read_varied
from tests.clipneurons.lens.test_second_order import relative
from tests.helpers.models import tiny_resnet

CLIP = tiny_resnet(width=2)
REPRESENTATION, ALL = read_varied(CLIP, 6)
MINE = ALL[4]
MEAN = MeanEffect(MINE.scores.mean(0))
UNITS = MINE.directions.units


def test_kept_pairs_are_the_loop_over_images_and_pairs():
    counts = [0, 3, 50, UNITS]
    got = keep_largest(REPRESENTATION, MINE, MEAN, counts)
    dense = MINE.dense(torch.arange(UNITS)).double()
    means = dense.mean(0)
    original = (SCALE * F.normalize(REPRESENTATION, dim=-1)).double()
    for image in range(6):
        norms = (dense[image] - means).norm(dim=-1)
        order = sorted(range(UNITS), key=lambda unit: -norms[unit])
        for count in counts:
            expected = original[image].clone()
            for unit in order[count:]:
                expected += means[unit] - dense[image, unit]
            assert relative(got[count][image].double(), expected) < 1e-5
    assert relative(got[UNITS].double(), original) < 1e-5
    assert got[0].std(0).max() < got[50].std(0).max()


def test_one_ranking_keeps_the_same_pairs_on_all_images():
    ranking = torch.zeros(UNITS)
    ranking[[7, 30]] = torch.tensor([2.0, 1.0])
    got = keep_largest(REPRESENTATION, MINE, MEAN, [0, 2], ranking)
    dense = MINE.dense(torch.tensor([7, 30]))
    expected = got[0] + (dense - dense.mean(0)).sum(1)
    assert relative(got[2], expected) < 1e-4


def test_a_number_of_pairs_that_there_is_not_is_refused():
    for counts in ([-1], [UNITS + 1], []):
        with pytest.raises(ValueError, match="expected counts of 0 to"):
            keep_largest(REPRESENTATION, MINE, MEAN, counts)


def test_variance_explained_is_that_of_the_dense_contributions():
    scores = MINE.scores[..., 0].unflatten(1, (-1, CLIP.heads))
    directions = MINE.directions.whole.dense()
    got = explained_by_one_direction(scores, directions)
    dense = torch.einsum("bnh,nhd->bnd", scores, directions).double()
    for neuron in range(0, CLIP.neurons, 5):
        values = torch.linalg.svdvals(dense[:, neuron] - dense[:, neuron].mean(0)) ** 2
        assert got[neuron].item() == pytest.approx((values[0] / values.sum()).item(), rel=1e-4)
    assert got.min() < 0.99
    alone = explained_by_one_direction(scores[:, :, :1], directions[:, :1])
    assert torch.allclose(alone, torch.ones_like(alone))


def test_heads_are_grouped_by_what_they_say():
    generator = torch.Generator().manual_seed(0)
    insect, clothing = F.normalize(torch.randn(2, 20, generator=generator), dim=-1)
    noise = 0.02 * torch.randn(5, 20, generator=generator)
    # Heads 0, 3 speak of one thing (3 with both signs turned), 1 and 4 of another, 2 alone.
    directions = torch.stack([insect, clothing, -insect - clothing, -2 * insect, clothing]) + noise
    scores = torch.rand(40, 5, generator=generator)
    scores[:, 3] *= -1
    scores[5, [0, 3]] = torch.tensor([9.0, -9.0])
    scores[8, [1, 4]] = 6.0
    first, second, third = sub_concepts(scores, directions, images=3)
    assert (first.heads, second.heads, third.heads) == ((0, 3), (1, 4), (2,))
    assert first.direction @ insect > 0.98
    assert (first.images[0], second.images[0]) == (5, 8)
    assert first.share + second.share + third.share == pytest.approx(1)
    assert first.share > second.share > third.share


def test_accuracy_counts_right_images():
    classes = torch.eye(3)
    assert accuracy(torch.eye(3)[[0, 1, 2, 2]], classes, torch.tensor([0, 1, 2, 0])) == 75
