"""Two-sample tests as float64 loops over permutations, units and pairs of images."""

import math

import numpy as np


def differences(values, rows, reference):
    """Of each permutation: mean of the images it calls new, less that of the others."""
    result = []
    for row in rows:
        new = [v for v, w in zip(values, row, strict=True) if w > 0]
        old = [v for v, w in zip(values, row, strict=True) if w < 0]
        result.append(sum(new) / len(new) - sum(old) / len(old))
        assert len(old) == reference
    return np.array(result)


def unit_scores(values, rows, reference):
    """Differences in standard errors, with the deviation of both samples together."""
    count = len(values)
    mean = sum(values) / count
    deviation = math.sqrt(sum((v - mean) ** 2 for v in values) / count)
    error = deviation * math.sqrt(1 / reference + 1 / (count - reference))
    return differences(values, rows, reference) / error, deviation


def p_value(statistics):
    """Share of permutations at least as large as the first."""
    return sum(s >= statistics[0] * (1 - 1e-6) for s in statistics) / len(statistics)


def benjamini_hochberg(p):
    """For each test the smallest, over thresholds it passes, of the estimated discovery rate."""
    result = []
    for mine in p:
        rates = [t * len(p) / sum(q <= t for q in p) for t in p if t >= mine]
        result.append(min(1.0, *rates) if rates else 1.0)
    return np.array(result)


def mmd(values, row):
    """Biased squared MMD from three sums over pairs."""
    distances = [
        ((values[i] - values[j]) ** 2).sum()
        for i in range(len(values))
        for j in range(i + 1, len(values))
    ]
    width = sorted(distances)[(len(distances) - 1) // 2]
    total = 0.0
    new = [i for i, w in enumerate(row) if w > 0]
    old = [i for i, w in enumerate(row) if w < 0]
    for one, other, sign in ((new, new, 1), (old, old, 1), (new, old, -2)):
        pairs = [((values[i] - values[j]) ** 2).sum() for i in one for j in other]
        total += sign * sum(math.exp(-d / width) for d in pairs) / len(pairs)
    return total


def place_sizes(values, rows):
    """Hotelling's T² of each permutation at one place, of directions from the mean, with the
    covariance shrunk half-way to a multiple of the identity."""
    mean = sum(values) / len(values)
    told = [(v - mean) / np.sqrt(((v - mean) ** 2).sum()) for v in values]
    centre = sum(told) / len(told)
    covariance = sum(np.outer(t - centre, t - centre) for t in told) / len(told)
    shrunk = covariance + np.eye(len(mean)) * np.trace(covariance) / len(mean)
    sizes = []
    for row in rows:
        change = sum(w * t for w, t in zip(row, told, strict=True))
        sizes.append(change @ np.linalg.inv(shrunk) @ change)
    return np.array(sizes)
