"""The cue score as loops, straight from 2406.04341, section 5.1."""

import torch


def cue_scores(layers, texts, v, neurons):
    """(score by text, chosen (layer, unit)): dictionaries and plain Python numbers."""
    v = [float(x) for x in v.double()]
    along = {}
    for layer, arrays in layers.items():
        for unit, row in enumerate(arrays.directions.double().tolist()):
            along[layer, unit] = sum(a * b for a, b in zip(row, v, strict=True))
    chosen = sorted(along, key=lambda key: -abs(along[key]))[:neurons]
    scores = dict.fromkeys(range(len(texts)), 0.0)
    for layer, unit in chosen:
        arrays = layers[layer]
        for j, gamma in zip(
            arrays.indices[unit].tolist(), arrays.coefficients[unit].double().tolist(), strict=True
        ):
            scores[j] += gamma * along[layer, unit]
    return scores, chosen


def wilson_by_search(successes, count, z=1.959963984540054, steps=200):
    """Ends of the interval by bisection: rates p with |share − p| = z sqrt(p(1−p)/count)."""
    share = successes / count

    def outside(p):
        return (share - p) ** 2 > z**2 * p * (1 - p) / count

    ends = []
    for far in (0.0, 1.0):
        near = share
        if not outside(far):
            ends.append(far)
            continue
        for _ in range(steps):
            middle = (near + far) / 2
            near, far = (near, middle) if outside(middle) else (middle, far)
        ends.append(near)
    return ends


def first_component(rows):
    """Leading eigenvector of Σ x xᵀ, positive for most rows."""
    rows = rows.double()
    _, vectors = torch.linalg.eigh(sum(torch.outer(x, x) for x in rows))
    component = vectors[:, -1]
    agree = sum(1 if x @ component > 0 else -1 for x in rows)
    return component if agree >= 0 else -component
