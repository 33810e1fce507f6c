"""Sums, norms and projections of contributions against those of the dense effects in float64.

There are more heads than a group of inner products has, and more scores than a block.
"""

from dataclasses import dataclass

import pytest
import torch

from clipneurons.lens.contributions import (
    Contributions,
    MeanEffect,
    ScoredContributions,
    SpatialContributions,
)
from clipneurons.lens.directions import HeadDirections
from tests.clipneurons.lens.test_second_order import relative

IMAGES, NEURONS, HEADS, TOKENS, RANK, EMBED = 360, 60, 60, 3, 2, 4


@dataclass
class Case:
    contributions: Contributions
    mean: MeanEffect
    scores: torch.Tensor
    directions: torch.Tensor
    bias: torch.Tensor

    @property
    def effects(self):
        return torch.einsum("bnk,nkd->bnd", self.scores, self.directions) + self.bias[:, None]


@pytest.fixture(
    scope="module",
    params=[
        (SpatialContributions, False, False),
        (SpatialContributions, False, True),
        (ScoredContributions, False, True),
        (SpatialContributions, True, False),
        (ScoredContributions, True, False),
    ],
    ids=["spatial", "spatial, bias", "scored, bias", "spatial pairs", "scored pairs"],
)
def case(request):
    kind, pairs, biased = request.param
    generator = torch.Generator().manual_seed(0)

    def random(*shape):
        return torch.randn(*shape, generator=generator)

    activations, weights = random(IMAGES, TOKENS, NEURONS), random(IMAGES, HEADS, TOKENS)
    inner, outer = random(HEADS, NEURONS, RANK), random(HEADS, RANK, EMBED)
    bias = random(IMAGES, EMBED) if biased else torch.zeros(IMAGES, EMBED)
    scores = torch.einsum("btn,bht->bnh", activations.double(), weights.double())
    dense = torch.einsum("hnr,hrd->nhd", inner.double(), outer.double())
    directions = HeadDirections.of(inner, outer)
    if pairs:
        directions = directions.split()
        scores, dense = scores.reshape(IMAGES, -1, 1), dense.reshape(-1, 1, EMBED)
    contributions = SpatialContributions(activations, weights, directions, bias if biased else None)
    if kind is ScoredContributions:
        contributions = contributions.scored()
    assert isinstance(contributions, kind)
    mean = MeanEffect(scores.mean(0).float(), bias.mean(0) if biased else None)
    return Case(contributions, mean, scores, dense, bias.double())


def test_scores_and_their_sum(case):
    assert case.contributions.images == IMAGES
    assert relative(case.contributions.scores, case.scores) < 1e-6
    assert relative(case.contributions.score_sum(), case.scores.sum(0)) < 1e-6


def test_blocks_are_the_callers_own(case):
    expected = case.effects - case.effects.mean(0)
    blocks = list(case.contributions.blocks(case.mean))
    assert len(blocks) > 1
    end = 0
    for units, scores, norms in blocks:
        assert units.start == end
        end = units.stop
        centred = case.scores[:, units] - case.scores[:, units].mean(0)
        assert relative(scores, centred.transpose(0, 1)) < 1e-5
        assert relative(norms, expected[:, units].norm(dim=-1).T) < 1e-5
        scores.zero_()
    assert end == case.contributions.directions.units
    assert relative(case.contributions.norms(case.mean), expected.norm(dim=-1)) < 1e-5


def test_norms_projections_and_sums(case):
    contributions, effects, mean = case.contributions, case.effects, case.mean
    units = contributions.directions.units
    vectors, keep = torch.randn(units, EMBED), torch.rand(IMAGES, units)
    chosen = torch.tensor([0, 7, units - 1])
    assert relative(contributions.dense(chosen), effects[:, chosen]) < 1e-5
    assert relative(contributions.norms(), effects.norm(dim=-1)) < 1e-5
    assert relative(contributions.project(vectors), (effects * vectors).sum(-1)) < 1e-5
    assert relative(contributions.sum(), effects.sum(1)) < 1e-5
    assert relative(contributions.sum(keep), (effects * keep[..., None]).sum(1)) < 1e-5
    centred = effects - effects.mean(0)
    assert relative(contributions.project(vectors, mean), (centred * vectors).sum(-1)) < 1e-5
    assert relative(contributions.sum(keep, mean), (centred * keep[..., None]).sum(1)) < 1e-5


def test_directions(case):
    directions = case.contributions.directions
    vectors, texts = torch.randn(directions.units, EMBED), torch.randn(3, EMBED)
    assert relative(directions.dense(slice(5, 9)), case.directions[5:9]) < 1e-6
    along = (case.directions @ vectors.double()[..., None])[..., 0]
    assert relative(directions.along(vectors), along) < 1e-6
    assert relative(directions.project(texts), case.directions @ texts.double().T) < 1e-6


def test_a_mean_effect_is_found_again_from_its_vectors(case):
    directions, unbiased = case.contributions.directions, MeanEffect(case.mean.scores)
    means = torch.einsum("nk,nkd->nd", case.scores.mean(0), case.directions)
    assert relative(unbiased.dense(directions), means) < 1e-5
    assert relative(case.mean.dense(directions), means + case.bias.mean(0)) < 1e-5
    again = MeanEffect.from_dense(unbiased.dense(directions), directions)
    assert relative(again.dense(directions), means) < 1e-4


def test_token_scores_add_up_to_the_scores(case):
    if isinstance(case.contributions, ScoredContributions):
        pytest.skip("given scores are of no token")
    units = torch.tensor([0, 31, case.contributions.directions.units - 1])
    scores = case.contributions.token_scores(1, units)
    assert scores.shape == (3, TOKENS, case.scores.shape[2])
    assert relative(scores.sum(1), case.scores[1, units]) < 1e-5
    token = case.contributions.activations[1, 2, -1] * case.contributions.weights[1, -1, 2]
    assert torch.equal(scores[2, 2, -1], token)
