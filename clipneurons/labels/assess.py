"""Write labels in every way, choose the best on some images, and test all of them on others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from clipneurons.bundle.labels import reliable
from clipneurons.labels.candidates import (
    METHODS,
    Choice,
    choose_readings,
    choose_sizes,
)
from clipneurons.labels.evidence import Evidence
from clipneurons.labels.rivals import (
    clip_dissect,
    linear_explanation,
    nearest_text,
    random_words,
)
from clipneurons.labels.simulation import (
    Labels,
    bootstrap,
    pearson,
    simulate,
    top_pearson,
)
from clipneurons.labels.trust import Shuffled, q_values, shuffled

DECOMPOSITION = "paper's decomposition"
SEEN, SEEN_EACH = "seen texts, one reading", "seen texts, a reading for each unit"
DISSECT, NEAREST, UPPER = "CLIP-Dissect", "nearest text", "linear explanation"
SHUFFLED, RANDOM = "shuffled", "random words"
# Fewer images leave nothing to choose on and to test on.
LEAST_IMAGES = 100
# Parts of the images that labels are written on and chosen on; the rest tests them.
_FIT, _CHOOSE = 0.4, 0.2


@dataclass(frozen=True, eq=False)
class Recordings:
    """One image a row: what the model did and what the judge saw, for all units and texts.

    `present` is the judge's yes or no; `judged` are image embeddings in the judge's space.
    """

    effects: Float[Tensor, "image unit"]
    embeddings: Float[Tensor, "image embed"]
    scores: Float[Tensor, "image text"]
    present: Bool[Tensor, "image text"]
    judged: Float[Tensor, "image space"]

    def __len__(self) -> int:
        return len(self.effects)

    def rows(self, chosen: Tensor) -> Recordings:
        """Some of the images."""
        parts = {name: getattr(self, name)[chosen] for name in self.__dataclass_fields__}
        return replace(self, **parts)


@dataclass(frozen=True, eq=False)
class Parts:
    """Images to write labels on, to choose them on, and to test them on."""

    fit: Recordings
    choose: Recordings
    test: Recordings


def split(recordings: Recordings, seed: int = 0) -> Parts:
    """Three parts that share no image, drawn at random.

    Raises:
        ValueError: fewer than 100 images, of which too few are left in each part.
    """
    count = len(recordings)
    if count < LEAST_IMAGES:
        raise ValueError(
            f"labels cannot be tested on {count} images: they are written on some, chosen on others"
            f" and tested on the rest, where 2 % are a unit's strongest; at least {LEAST_IMAGES}"
            " are needed, thousands are better"
        )
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    first, second = round(_FIT * count), round((_FIT + _CHOOSE) * count)
    parts = order[:first], order[first:second], order[second:]
    return Parts(*(recordings.rows(part.sort().values) for part in parts))


@dataclass(frozen=True, eq=False)
class Tested:
    """Labels of all units with what the test images say of them.

    `validation` is each unit's correlation on the images that its label was chosen on, `sizes` the
    number of units by number of phrases; neither is there for labels that were not chosen.
    """

    labels: Labels
    simulation: Float[Tensor, " unit"]
    top: Float[Tensor, " unit"]
    draws: Float[Tensor, "draw unit"]
    shuffled: Shuffled
    q_value: Float[Tensor, " unit"]
    validation: Float[Tensor, " unit"] | None = None
    sizes: dict[int, int] | None = None

    @cached_property
    def limits(self) -> Float[Tensor, "end unit"]:
        """Ends of the 95 % interval of `simulation`."""
        return self.draws.quantile(torch.tensor([0.025, 0.975]), dim=0)

    @property
    def reliable(self) -> Bool[Tensor, " unit"]:
        """Units whose label is told apart and predicts them well."""
        return reliable(self.q_value, self.limits[0])


@dataclass(frozen=True, eq=False)
class Assessment:
    """Every method on the same test images; `best` is the one that did best on others.

    `methods` are ours and the paper's, `rivals` the others and the controls.
    """

    best: str
    methods: dict[str, Tested]
    rivals: dict[str, Tested]

    @property
    def shipped(self) -> Tested:
        """The best method's."""
        return self.methods[self.best]


def assess(
    parts: Parts,
    directions: Float[Tensor, "unit embed"],
    texts: Float[Tensor, "text embed"],
    decomposition: Labels,
    note: Callable[[str], object] = lambda text: None,
) -> Assessment:
    """All methods, rivals and controls; `note` is told what is at work."""
    fit, choose, test = parts.fit, parts.choose, parts.test
    evidence = Evidence(directions, texts, fit.embeddings, fit.effects)

    def tested(labels: Labels, choice: Choice | None = None) -> Tested:
        predictions = simulate(labels, test.scores)
        others = shuffled(test.effects, predictions)
        return Tested(
            labels,
            pearson(test.effects, predictions),
            top_pearson(test.effects, predictions),
            bootstrap(test.effects, predictions),
            others,
            q_values(others.p_value),
            None if choice is None else choice.correlation,
            None if choice is None else choice.sizes,
        )

    methods = {}
    families = {DECOMPOSITION: lambda _: {decomposition.indices.shape[1]: decomposition}} | METHODS
    for name, write in families.items():
        note(name)
        choice = choose_sizes(write(evidence), choose.effects, choose.scores)
        methods[name] = tested(choice.labels, choice)
    note(SEEN)
    choices = choose_readings(evidence, choose.effects, choose.scores)
    for name, choice in zip((SEEN, SEEN_EACH), choices, strict=True):
        methods[name] = tested(choice.labels, choice)
    best = max(methods, key=lambda name: float(methods[name].validation.mean()))
    shipped = methods[best].labels
    rivals = {}
    for name, make in {NEAREST: nearest_text, DISSECT: clip_dissect}.items():
        note(name)
        rivals[name] = tested(make(evidence))
    note(UPPER)
    family = linear_explanation(fit.effects, fit.scores)
    choice = choose_sizes(family, choose.effects, choose.scores)
    rivals[UPPER] = tested(choice.labels, choice)
    units = len(directions)
    # Every unit gets the label of another one.
    turned = torch.randperm(units, generator=torch.Generator().manual_seed(1))
    other = torch.empty_like(turned).scatter_(0, turned, turned.roll(1))
    rivals[SHUFFLED] = tested(shipped.of(other))
    rivals[RANDOM] = tested(random_words(units, len(texts), shipped.indices.shape[1]))
    return Assessment(best, methods, rivals)


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
