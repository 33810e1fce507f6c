"""The whole test on recordings whose answer is planted: labels, shared components, refusals."""

import pytest
import torch
from torch.nn.functional import normalize

from clipneurons.labels.assess import LabelScores, assess_layer, mean_interval, measure_labels
from clipneurons.labels.evidence import Recordings, SharedComponents, split
from clipneurons.labels.simulation import Labels

UNITS, TEXTS, IMAGES = 40, 60, 1500


def planted(shared=0.0):
    """Each unit reacts to one text, which the judge sees on some images, and all to the first."""
    generator = torch.Generator().manual_seed(0)
    present = torch.rand(IMAGES, TEXTS, generator=generator) < 0.15
    texts = normalize(torch.randn(TEXTS, 64, generator=generator), dim=1)
    embeddings = normalize(present.float() @ texts, dim=1)
    answer = 1 + torch.randperm(TEXTS - 1, generator=generator)[:UNITS]
    effects = present[:, answer].float() + shared * present[:, :1].float()
    effects = effects + 0.3 * torch.randn(effects.shape, generator=generator)
    recordings = Recordings(effects, embeddings, present.float(), present, present.float())
    return split(recordings, 0.6), texts, answer


@pytest.fixture(scope="module")
def found():
    (write, test), texts, answer = planted()
    return assess_layer(write, test, texts, size=3), answer, test


def test_parts_share_no_image_and_leave_none_out():
    (write, test), _, _ = planted()
    rows = torch.cat([write.effects, test.effects])
    assert len(rows) == len(rows.unique(dim=0)) == IMAGES
    assert len(write) == 900


def test_what_is_planted_is_found_and_reliable(found):
    assessment, answer, _ = found
    tested = assessment.tested
    assert (tested.labels.indices[:, 0] == answer).float().mean() > 0.9
    assert tested.reliable.float().mean() > 0.9
    assert tested.simulation_score.mean() > 0.6
    assert assessment.shared.loadings.shape == (UNITS, 0), "units that share nothing"


def test_labels_of_other_units_are_not_reliable(found):
    assessment, _, test = found
    labels = assessment.tested.labels
    turned = measure_labels(labels.of(torch.arange(UNITS).roll(1)), test.effects, test.scores)
    assert not turned.reliable.any()
    assert abs(float(turned.simulation_score.mean())) < 0.05
    both = LabelScores.joined([assessment.tested, turned])
    assert len(both.q_value) == 2 * UNITS
    assert both.reliable.sum() == assessment.tested.reliable.sum()


def test_what_all_units_share_is_taken_off_and_has_a_label_of_its_own():
    (write, test), texts, answer = planted(shared=3.0)
    assessment = assess_layer(write, test, texts, size=3)
    assert assessment.shared.loadings.shape[1] >= 1
    assert assessment.shared.variance[0] > 0.5
    assert assessment.shared_label.indices[0, 0] == 0
    assert assessment.shared_score[0] > 0.9
    tested = assessment.tested
    assert (tested.labels.indices[:, 0] == answer).float().mean() > 0.9
    assert tested.reliable.float().mean() > 0.9


def test_specific_effects_have_nothing_along_the_components():
    (write, test), _, _ = planted(shared=3.0)
    shared = SharedComponents.of(write.effects, 2)
    torch.testing.assert_close(shared.loadings.T @ shared.loadings, torch.eye(2))
    left = shared.specific(test.effects) @ shared.loadings
    assert left.abs().max() < 1e-3
    few = SharedComponents.of(write.effects[:20], 2)  # fewer images than units
    values = torch.linalg.svdvals((write.effects[:20] - few.mean) / few.spread)
    expected = values[:2] ** 2 / (values**2).sum()
    torch.testing.assert_close(few.variance, expected, rtol=1e-3, atol=1e-4)


def test_the_interval_holds_the_mean(found):
    tested = found[0].tested
    low, high = mean_interval(tested.draws)
    assert low < float(tested.simulation_score.mean()) < high
    assert high - low < 0.1
    assert mean_interval(tested.draws, torch.zeros(UNITS, dtype=torch.bool)) == (0, 0)


def test_labels_of_texts_that_never_vary_are_worth_nothing():
    labels = Labels(torch.zeros(2, 1, dtype=torch.long), torch.ones(2, 1))
    tested = measure_labels(labels, torch.rand(50, 2), torch.zeros(50, 3))
    assert tested.simulation_score.tolist() == [0, 0]
    assert not tested.reliable.any()
