"""Metrics against the loops of their definition, by hand, and bootstrap intervals."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from research.segmentation.metrics import (
    average_precision,
    bootstrap,
    by_image,
    interval,
    resamples,
    score_mask,
    summarise,
)


def example(seed, size=(5, 6)):
    generator = np.random.default_rng(seed)
    heat = generator.random(size).round(1)  # ties
    return heat, heat > 0.5, generator.random(size) > 0.6, generator.random(size) > 0.2


def literal(examples):
    """Chefer et al., one pixel at a time: totals over the data set, AP by image."""
    correct = pixels = 0
    inter, union, precisions = [0, 0], [0, 0], []
    for heat, predicted, target, valid in examples:
        ranked = []
        for h, p, t, v in zip(
            heat.ravel(), predicted.ravel(), target.ravel(), valid.ravel(), strict=True
        ):
            if not v:
                continue
            pixels += 1
            correct += p == t
            for wanted in (0, 1):
                inter[wanted] += p == wanted and t == wanted
                union[wanted] += p == wanted or t == wanted
            ranked += [(h, t), (1 - h, not t)]
        # AP = Σ (recall step) · precision, equal scores taken together.
        positives = sum(t for _, t in ranked)
        hits = seen = 0
        area = 0.0
        for score in sorted({s for s, _ in ranked}, reverse=True):
            group = [t for s, t in ranked if s == score]
            hits, seen = hits + sum(group), seen + len(group)
            area += sum(group) / positives * hits / seen
        precisions.append(area)
    miou = sum(i / u for i, u in zip(inter, union, strict=True)) / 2
    return [100 * correct / pixels, 100 * miou, 100 * sum(precisions) / len(precisions)]


def scored(heat, predicted, target, valid):
    """At the threshold of the example's mask."""
    (score,) = score_mask(heat, target, [0.5], valid)
    return score


def test_metrics_against_loops():
    examples = [example(seed) for seed in range(5)]
    rows = by_image([[scored(*one)] for one in examples])
    np.testing.assert_allclose(summarise(rows), literal(examples), rtol=1e-9)


def test_every_threshold_counts_what_is_above_it_and_none_is_the_mean():
    heat, _, target, valid = example(0)
    limits = [None, 0.3, 0.5, heat[2, 2]]
    for limit, score in zip(limits, score_mask(heat, target, limits, valid), strict=True):
        mask = heat > (heat.mean() if limit is None else limit)
        assert score.correct == (mask == target)[valid].sum()
        assert score.intersection[1] == (mask & target)[valid].sum()
        assert score.union[0] == (~mask | ~target)[valid].sum()
        assert score.union[1] == (mask | target)[valid].sum()


def test_several_classes_of_an_image_count_as_several():
    examples = [example(seed) for seed in range(4)]
    scores = [scored(*one) for one in examples]
    together = by_image([scores[:3], scores[3:]])
    assert together.shape == (2, 8)
    np.testing.assert_allclose(summarise(together), literal(examples), rtol=1e-9)


def test_a_perfect_and_an_inverted_map():
    target = example(0)[2]
    heat = target.astype(float)
    rows = by_image([score_mask(heat, target)])
    np.testing.assert_allclose(summarise(rows), [100, 100, 100])
    rows = by_image([score_mask(1 - heat, target)])
    assert summarise(rows)[:2].tolist() == [0, 0]
    assert summarise(rows)[2] == pytest.approx(50)


def test_bootstrap():
    rows = by_image([[scored(*example(seed))] for seed in range(30)])
    weights = resamples(30, 200)
    assert (weights.sum(1) == 30).all()
    samples = bootstrap(rows, weights)
    for sample in (0, 17):
        drawn = np.repeat(rows, weights[sample].astype(int), axis=0)
        np.testing.assert_allclose(samples[sample], summarise(drawn), rtol=1e-9)
    low, high = interval(samples)
    whole = summarise(rows)
    assert (low < whole).all()
    assert (whole < high).all()
    assert (interval(samples - samples) == 0).all()


@pytest.mark.parametrize("decimals", [1, 12])
def test_average_precision_like_scikit_learn(decimals):
    generator = np.random.default_rng(0)
    truth = generator.random(300) > 0.7
    scores = (truth + generator.normal(size=300)).round(decimals)
    assert average_precision(truth, scores) == pytest.approx(
        average_precision_score(truth, scores), rel=1e-12
    )
    assert average_precision(truth & False, scores) == 0
