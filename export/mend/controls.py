"""What else could be done about a misled classifier, at the same size or with more freedom."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from clipneurons.edit.find_options import FindOptions
from clipneurons.edit.mending import accuracies
from export.data.grouped import GroupedImages
from export.mend.mender import (
    Choice,
    Mender,
    Observed,
    find,
    group_numbers,
    unit_margins,
)

PROBE = "linear probe"


def controls(
    mender: Mender,
    images: GroupedImages,
    numbers: Sequence[int],
    seen: Observed,
    held: Observed,
    choice: Choice,
    known: bool,
    options: FindOptions,
    draws: int = 50,
    seed: int = 0,
) -> dict[str, list[Float[Tensor, "image class"]]]:
    """Logits of the held-out images under each control; several of those that are drawn.

    Random units and neurons by indirect effect (of a ResNet, with all their heads) are as many as
    the choice has and set to the same mean, attention heads as many as cross-validation finds best.
    """
    generator = torch.Generator().manual_seed(seed)
    count, effects = len(choice.found.units), held.about(choice.means, seen).effects
    found = {
        "random neurons": [
            held.logits
            - effects[:, torch.randperm(effects.shape[1], generator=generator)[:count]].sum(1)
            for _ in range(draws)
        ]
    }
    shares = mender.attributions(images, numbers, seen)
    each = mender.bundle.config.units_per_neuron
    neurons = find(seen, shares, known, options).order[: -(-count // each)]
    units = [neuron * each + head for neuron in neurons for head in range(each)]
    found["neurons by indirect effect"] = [held.logits - effects[:, units].sum(1)]
    if seen.heads is not None and held.heads is not None:
        mean = seen.heads.mean(0)
        heads = list(find(seen, unit_margins(seen.heads - mean, seen), known, options).units)
        found["attention heads (TextSpan)"] = [held.logits - (held.heads - mean)[:, heads].sum(1)]
    found["class offsets"] = [held.logits + _offsets(seen, known)]
    found[PROBE] = [_probe(seen, held, known, seen.logits.shape[1])]
    return found


def _offsets(seen: Observed, known: bool) -> Float[Tensor, " class"]:
    """A constant for each class, by which the worst group is read best."""
    groups, classes = group_numbers(seen, known), seen.logits.shape[1]
    best, chosen = -1.0, torch.zeros(classes)
    spread = float(seen.logits.std(0).max())
    for _ in range(2):  # once around the classes, and once more
        for label in range(classes):
            for step in torch.linspace(-3 * spread, 3 * spread, 121):
                tried = chosen.clone()
                tried[label] = step
                right = (seen.logits + tried).argmax(1) == seen.labels
                worst = float(accuracies(right, groups).min())
                if worst > best:
                    best, chosen = worst, tried
    return chosen


def _probe(seen: Observed, held: Observed, known: bool, classes: int) -> Tensor:
    """Logistic regression on embeddings, every group with the same weight: an upper bound."""
    from sklearn.linear_model import LogisticRegression

    groups = group_numbers(seen, known)
    _, inverse, counts = groups.unique(return_inverse=True, return_counts=True)
    weights = (len(groups) / len(counts) / counts)[inverse].numpy()
    mean, deviation = seen.embeddings.mean(0), seen.embeddings.std(0).clamp_min(1e-6)
    x, new = (((e - mean) / deviation).numpy() for e in (seen.embeddings, held.embeddings))

    def fit(strength: float, rows: Tensor) -> LogisticRegression:
        probe = LogisticRegression(C=strength, max_iter=2000)
        return probe.fit(x[rows], seen.labels[rows].numpy(), weights[rows])

    turns = torch.cat([torch.arange(int(count)) for count in counts])
    later = torch.empty(len(groups), dtype=torch.bool)
    later[groups.argsort(stable=True)] = turns % 3 == 2  # a third of every group

    def worst(strength: float) -> float:
        said = torch.as_tensor(fit(strength, ~later).predict(x[later]))
        return float(accuracies(said == seen.labels[later], groups[later]).min())

    best = fit(max((1e-3, 1e-2, 1e-1, 1.0), key=worst), torch.ones_like(later))
    logits = torch.full((len(new), classes), -torch.inf)
    logits[:, torch.as_tensor(best.classes_)] = torch.as_tensor(best.predict_log_proba(new)).float()
    return logits
