"""Write the labels of a layer on some images, and test them on others."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from clipneurons.bundle.labels import EXPLAINS, SPECIFIC, reliable, significant
from clipneurons.labels.evidence import Recordings, SharedComponents, split, zero_shot
from clipneurons.labels.significance import Shuffled, shuffled, specificity
from clipneurons.labels.simulation import Labels, bootstrap, pearson, simulate
from clipneurons.labels.write import write_labels
from clipneurons.stats.two_sample import benjamini_hochberg

# Numbers of shared components that are tried, on this share of the images against the rest, and
# how many more units must get a good label for one more to be taken off.
_COMPONENTS, _FIT, _GAIN = (0, 1, 2, 3), 0.75, 0.01


@dataclass(frozen=True, eq=False)
class LabelScores:
    """Labels of units with what images say of them that they were not written on."""

    labels: Labels
    simulation_score: Float[Tensor, " unit"]
    draws: Float[Tensor, "draw unit"]
    shuffled: Shuffled
    specificity: Float[Tensor, " unit"]

    @cached_property
    def limits(self) -> Float[Tensor, "end unit"]:
        """Ends of the 95 % interval of `simulation_score`."""
        return self.draws.quantile(torch.tensor([0.025, 0.975]), dim=0)

    @cached_property
    def q_value(self) -> Float[Tensor, " unit"]:
        """p-values adjusted for the number of units."""
        return benjamini_hochberg(self.shuffled.p_value)

    @property
    def significant(self) -> Bool[Tensor, " unit"]:
        """Units whose label predicts them better than other units' labels do."""
        return significant(self.q_value)

    @property
    def reliable(self) -> Bool[Tensor, " unit"]:
        """Units whose label is significant, explains enough, and is their own."""
        return reliable(self.q_value, self.limits[0], self.specificity)

    @classmethod
    def joined(cls, layers: list[LabelScores]) -> LabelScores:
        """The units of several layers as one."""
        shuffled_columns = (
            torch.cat([getattr(layer.shuffled, name) for layer in layers])
            for name in ("line", "mean", "p_value")
        )
        return cls(
            Labels(
                torch.cat([layer.labels.indices for layer in layers]),
                torch.cat([layer.labels.coefficients for layer in layers]),
            ),
            torch.cat([layer.simulation_score for layer in layers]),
            torch.cat([layer.draws for layer in layers], dim=1),
            Shuffled(*shuffled_columns),
            torch.cat([layer.specificity for layer in layers]),
        )


@dataclass(frozen=True, eq=False)
class LayerAssessment:
    """Labels of a layer, tested, and what its units share.

    `shared_label` is the label of each shared component, `shared_score` its simulation score;
    `whole_effect` is the simulation score of the units' labels on their whole effects.
    """

    tested: LabelScores
    shared: SharedComponents
    shared_label: Labels
    shared_score: Float[Tensor, " component"]
    whole_effect: Float[Tensor, " unit"]


def assess_layer(
    write: Recordings, test: Recordings, texts: Float[Tensor, "text embed"], size: int
) -> LayerAssessment:
    """Write labels on the images of `write`, and test them on those of `test`.

    Both hold the effects of one layer's units. The number of shared components is chosen on a
    quarter of `write`.
    """
    count = choose_components(write, texts, size)
    shared = SharedComponents.of(write.effects, count)
    readings = zero_shot(write.embeddings, texts)
    labels = write_labels(shared.specific(write.effects), write.scores, readings, size)
    if count:
        shared_label = write_labels(shared.scores(write.effects), write.scores, readings, size)
        predicted = simulate(shared_label, test.scores)
        shared_score = pearson(shared.scores(test.effects), predicted)
    else:
        shared_label = Labels(torch.zeros(0, size, dtype=torch.long), torch.zeros(0, size))
        shared_score = torch.zeros(0)
    return LayerAssessment(
        measure_labels(labels, shared.specific(test.effects), test.scores),
        shared,
        shared_label,
        shared_score,
        pearson(test.effects, simulate(labels, test.scores)),
    )


def choose_components(write: Recordings, texts: Float[Tensor, "text embed"], size: int) -> int:
    """How many shared components to take off: the number that gives most units a good label.

    A good label explains 5 % of its unit's effect and is specific, on images kept for the choice;
    a component is taken off only if that makes so many more good ones.
    """
    fit, held_out = split(write, _FIT)
    readings = zero_shot(fit.embeddings, texts)
    good = []
    for count in _COMPONENTS[: write.effects.shape[1]]:
        shared = SharedComponents.of(fit.effects, count)
        labels = write_labels(shared.specific(fit.effects), fit.scores, readings, size)
        effects = shared.specific(held_out.effects)
        predictions = simulate(labels, held_out.scores)
        enough = pearson(effects, predictions) >= EXPLAINS**0.5
        specific = specificity(effects, predictions) >= SPECIFIC
        good.append(float((enough & specific).float().mean()))
    return max(range(len(good)), key=lambda count: good[count] - _GAIN * count)


def measure_labels(
    labels: Labels, effects: Float[Tensor, "image unit"], scores: Float[Tensor, "image text"]
) -> LabelScores:
    """What images say of the labels of a layer's units."""
    predictions = simulate(labels, scores)
    return LabelScores(
        labels,
        pearson(effects, predictions),
        bootstrap(effects, predictions),
        shuffled(effects, predictions),
        specificity(effects, predictions),
    )


def mean_interval(
    draws: Float[Tensor, "draw unit"], chosen: Bool[Tensor, " unit"] | None = None, seed: int = 0
) -> tuple[float, float]:
    """95 % interval of the mean over units, from draws of images and, with them, of units."""
    draws = draws if chosen is None else draws[:, chosen]
    count, units = draws.shape
    if not units:
        return 0.0, 0.0
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(units, (count, units), generator=generator)
    means = draws.gather(1, drawn).mean(1)
    low, high = means.quantile(torch.tensor([0.025, 0.975])).tolist()
    return low, high
