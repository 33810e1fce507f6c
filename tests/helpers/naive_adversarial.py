"""The cue score as loops, straight from 2406.04341, section 5.1."""

import torch


def cue_scores(layers, texts, v, neurons):
    """(score by phrase, chosen (layer, unit)): dictionaries and plain Python numbers."""
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


def whole_scores(layers, texts, v):
    """w_j = Σ_n s_n² ⟨t_j, r_n⟩ ⟨v, r_n⟩ by phrase, unit by unit in float64."""
    v, scores = v.double(), [0.0] * len(texts)
    for arrays in layers.values():
        for row, norms, ids in zip(
            arrays.directions.double(),
            arrays.top_norms.double(),
            arrays.top_activating_images,
            strict=True,
        ):
            real = [float(n) ** 2 for n, i in zip(norms, ids, strict=True) if i >= 0]
            for j, text in enumerate(texts.double()):
                part = float(row @ text / text.norm()) * float(row @ v)
                scores[j] += part * (sum(real) / len(real) if real else 0.0)
    return scores


def label_scores(bundle, layer, v):
    """w_j = Σ_n c_j^n s_n ⟨v, r_n⟩ by text, unit by unit and phrase by phrase in float64."""
    arrays, labels, scores = bundle.layers[layer], bundle.labels[layer], {}
    for n, row in enumerate(arrays.directions.double()):
        shown = zip(arrays.top_norms[n], arrays.top_activating_images[n], strict=True)
        real = [float(norm) ** 2 for norm, image in shown if image >= 0]
        size = (sum(real) / len(real)) ** 0.5 if real else 0.0
        for j, weight in zip(labels.indices[n], labels.coefficients[n], strict=True):
            part = float(weight) * size * float(row @ v.double())
            scores[int(j)] = scores.get(int(j), 0.0) + part
    return scores


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
