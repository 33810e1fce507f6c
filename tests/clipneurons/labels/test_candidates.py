"""Ways to write labels: what each finds where the answer is known, and formulas by loops."""

import numpy as np
import pytest
import torch
from scipy.optimize import nnls
from torch.nn.functional import normalize

from clipneurons.labels import candidates, rivals
from clipneurons.labels.candidates import (
    METHODS,
    Choice,
    choose_sizes,
    choose_ways,
    correlated,
    joint_fit,
    weighted_pursuit,
)
from clipneurons.labels.evidence import Evidence
from clipneurons.labels.rivals import (
    clip_dissect,
    linear_explanation,
    nearest_text,
    random_words,
)
from clipneurons.labels.simulation import Labels, pearson, simulate
from clipneurons.statistics.nonnegative_pursuit import nonnegative_pursuit


@pytest.fixture
def evidence():
    """Units of which each reacts to two of the texts as the embeddings show them."""
    generator = torch.Generator().manual_seed(0)
    texts = normalize(torch.randn(40, 16, generator=generator), dim=1)
    embeddings = normalize(torch.randn(500, 16, generator=generator), dim=1)
    embeddings[:, 3] *= 0.01  # hardly any image differs in this dimension
    chosen = torch.rand(6, 40, generator=generator).topk(2, dim=1).indices
    weights = torch.tensor([1.0, -0.6])
    effects = (embeddings @ texts.T)[:, chosen] @ weights
    directions = normalize(weights @ texts[chosen], dim=1)
    return Evidence(directions, texts, embeddings, effects), chosen


def test_nonnegative_pursuit_ends_in_the_least_squares_of_its_texts():
    generator = torch.Generator().manual_seed(0)
    texts = normalize(torch.randn(30, 20, generator=generator), dim=1)
    targets = torch.randn(5, 20, generator=generator)
    indices, found = nonnegative_pursuit(targets, texts, [1, 4], batch=2)
    assert found[1].shape == (5, 1)
    for row in range(5):
        chosen = texts[indices[row, :4]].double().numpy()
        gamma, _ = nnls(chosen.T, targets[row].double().numpy())
        assert found[4][row].numpy() == pytest.approx(gamma, abs=1e-3)
        assert (found[4] >= 0).all()
        assert int(indices[row, 0]) == int((texts @ targets[row]).argmax())
        assert len(set(indices[row, :4].tolist())) == 4


def test_nonnegative_pursuit_stops_where_nothing_helps():
    texts = torch.eye(3)[:2]
    _, found = nonnegative_pursuit(torch.tensor([[-1.0, -1, 0], [2, 0, 0]]), texts, [4])
    assert found[4].tolist() == [[0, 0, 0, 0], [2, 0, 0, 0]]
    with pytest.raises(ValueError, match="at least 1"):
        nonnegative_pursuit(torch.eye(3), texts, [0])


@pytest.mark.parametrize("write", [joint_fit, weighted_pursuit])
def test_pursuits_in_the_datas_metric_find_the_texts_behind_the_effects(evidence, write):
    recorded, chosen = evidence
    found = write(recorded)[2]
    scores = recorded.embeddings @ recorded.texts.T
    assert (pearson(recorded.effects, simulate(found, scores)) > 0.95).all()
    if write is joint_fit:  # the effects are exactly two texts, whatever the direction
        assert found.indices.sort(1).values.tolist() == chosen.sort(1).values.tolist()


def test_the_datas_metric_is_the_squared_error_of_the_effects(evidence):
    recorded, _ = evidence
    root, images = recorded.root_covariance
    centred = recorded.embeddings - recorded.embeddings.mean(0)
    torch.testing.assert_close(images.T @ root, centred, atol=1e-3, rtol=0)
    w = torch.randn(16, generator=torch.Generator().manual_seed(2))
    assert float((root @ w).norm()) == pytest.approx(float((centred @ w).norm()), rel=1e-2)


def test_correlations_are_the_weights_of_correlated_texts(evidence):
    recorded, _ = evidence
    found = correlated(recorded.effects, recorded.probabilities)[4]
    for unit in range(6):
        every = [
            np.corrcoef(recorded.effects[:, unit], recorded.probabilities[:, text])[0, 1]
            for text in range(40)
        ]
        order = np.argsort(-np.abs(every))[:4]
        assert found.indices[unit].tolist() == order.tolist()
        assert found.coefficients[unit].numpy() == pytest.approx(np.array(every)[order], abs=1e-4)


def test_sizes_are_chosen_on_the_images_kept_for_it(evidence):
    recorded, _ = evidence
    scores = recorded.embeddings @ recorded.texts.T
    right = joint_fit(recorded)[2]
    wrong = Labels(right.indices.flip(0)[:, :1], right.coefficients[:, :1])
    found = choose_sizes({1: wrong, 2: right}, recorded.effects, scores)
    assert found.sizes == {2: 6}
    assert found.score == pytest.approx(1, abs=1e-3)
    kept = found.labels.coefficients.abs()
    assert (kept[:, 0] >= kept[:, 1]).all()


def test_a_unit_takes_another_way_where_that_is_better_by_a_standard_error():
    def choice(text, correlation):
        return Choice(
            Labels(torch.full((3, 1), text), torch.ones(3, 1)),
            torch.tensor(correlation),
            torch.full((3,), 1 + text),
        )

    usual, other = choice(0, [0.5, 0.5, 0.5]), choice(1, [0.2, 0.59, 0.61])
    found = choose_ways([usual, other], images=100)
    assert found.labels.indices[:, 0].tolist() == [0, 0, 1]
    assert found.correlation.tolist() == pytest.approx([0.5, 0.5, 0.61])
    assert found.sizes == {1: 2, 2: 1}
    assert found.score == pytest.approx(1.61 / 3)


def test_every_method_writes_every_size_that_the_pool_allows(evidence):
    recorded, _ = evidence
    for write in METHODS.values():
        for size, labels in write(recorded).items():
            assert labels.indices.shape == labels.coefficients.shape == (6, size)
            assert labels.coefficients.isfinite().all()


def test_nearest_text(evidence):
    recorded, _ = evidence
    cosine = recorded.directions @ recorded.texts.T
    assert nearest_text(recorded).indices[:, 0].tolist() == cosine.argmax(1).tolist()


def test_clip_dissect_by_its_formula(evidence):
    recorded, _ = evidence
    given = (10 * recorded.embeddings.double() @ recorded.texts.double().T).softmax(1)
    total = torch.zeros(6, 40, dtype=torch.float64)
    for unit in range(6):
        top = recorded.effects[:, unit].argsort(descending=True)[:100]
        for rank, image in enumerate(top):
            sure = 0.998 - rank / 100 * (0.998 - 0.97)
            total[unit] += torch.log(1 + sure * (given[image] - 1))
    frequency = (total.exp().sum(0) / 6).log()
    information = total - frequency
    chosen = information.gather(1, clip_dissect(recorded).indices)[:, 0]
    # Texts of which one unit has nearly all the mass differ by less than float32 can tell.
    assert (chosen > information.amax(1) - 1e-3).all()
    assert (chosen > information.median(1).values + 0.1).all()


def test_parts_that_fit_memory_change_nothing(evidence, monkeypatch):
    recorded, _ = evidence
    writers = (nearest_text, clip_dissect, lambda e: correlated(e.effects, e.probabilities)[8])
    whole = [write(recorded) for write in writers]
    monkeypatch.setattr(candidates, "_UNITS", 4)
    monkeypatch.setattr(rivals, "_UNITS", 4)
    monkeypatch.setattr(rivals, "_TEXTS", 16)
    for before, write in zip(whole, writers, strict=True):
        after = write(recorded)
        assert torch.equal(after.indices, before.indices)
        torch.testing.assert_close(after.coefficients, before.coefficients)


def test_linear_explanation_explains_what_the_judge_sees(evidence):
    generator = torch.Generator().manual_seed(3)
    scores = (torch.rand(400, 40, generator=generator) < 0.2).float()
    scores[:, 5] = 0  # never shown
    effects = scores[:, [3, 8]] @ torch.tensor([[2.0, 0.5], [-1.0, 1.5]])
    found = linear_explanation(effects, scores)[2]
    assert {tuple(sorted(row)) for row in found.indices.tolist()} == {(3, 8)}
    assert (pearson(effects, simulate(found, scores)) > 0.999).all()
    assert not (linear_explanation(effects, scores)[32].coefficients.isnan()).any()


def test_random_words_are_different_texts():
    found = random_words(50, 20, 8)
    assert all(len(set(row)) == 8 for row in found.indices.tolist())
    assert random_words(2, 5, 8).indices.shape == (2, 5)
