"""Every method of the comparisons by name: ours, the two papers', and the baselines.

Each method has the same number of tries on validation images. What its own settings leave of them
goes to finer thresholds (`tries`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import product

from jaxtyping import Float
from torch import Tensor

from clipneurons.lens.lens import Lens
from clipneurons.lens.neuron_head import NeuronHeadEffects
from clipneurons.lens.token_contributions import additive_maps, token_effects_of
from clipneurons.models.clip import ClipModel
from clipneurons.segmentation.neuron_head_pairs import pair_maps
from clipneurons.segmentation.neuron_votes import vote_maps
from clipneurons.segmentation.patch_attribution import POWER, SHARPNESS, patch_maps
from clipneurons.segmentation.segment import contrasted
from export.common.errors import UserError
from research.segmentation.baselines.registry import BASELINES

OURS = "patch attribution"
VOTES, PAIRS = "second-order votes", "neuron-head pairs"  # the papers': 2406.04341, 2509.19943
ATTRIBUTION = "second-order attribution"
OWN = (OURS, VOTES, PAIRS, ATTRIBUTION)
# The two halves of every comparison: all methods as they are, all with our edge refinement.
WITHOUT, WITH = "without edges", "with edges"
BLOCKS = {WITHOUT: False, WITH: True}
# Combinations of a method's own settings, at most.
_SETTINGS = 6
_PAIR_SHARES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)


@dataclass(frozen=True)
class Method:
    """``maps(images, texts, **settings) -> [image, class, row, column]`` on the patch grid.

    ``settings`` have the values to choose from; ``reads_text`` is False where the maps are the
    same for all classes.
    """

    name: str
    maps: Callable[..., Tensor]
    settings: Mapping[str, Sequence[float]] = field(default_factory=dict)
    contrast: bool = False
    reads_text: bool = True

    def variants(self) -> Iterator[Variant]:
        """Every combination of settings and, where the text is read, with contrast and without."""
        for values in product(*self.settings.values()):
            for contrast in (False, True) if self.reads_text else (False,):
                yield Variant(self, contrast, dict(zip(self.settings, values, strict=True)))

    def tries(self, each: int) -> int:
        """How many thresholds every variant gets: ``each`` times 12 in all, for any method."""
        return each * 2 * _SETTINGS // len(list(self.variants()))


@dataclass(frozen=True)
class Variant:
    """A method with all that its maps depend on: settings and contrast."""

    method: Method
    contrast: bool = False
    chosen: Mapping[str, float] = field(default_factory=dict)

    @property
    def key(self) -> tuple:
        """Equal where the maps are."""
        return self.method.name, self.contrast, *self.chosen.values()

    def maps(
        self,
        images: Float[Tensor, "image 3 height width"],
        texts: Float[Tensor, "class embed"],
        others: Float[Tensor, "other embed"],
    ) -> Float[Tensor, "image class row column"]:
        """Maps of texts, held against the others where the variant has contrast."""
        texts = contrasted(texts, others) if self.contrast else texts
        return self.method.maps(images, texts, **self.chosen)

    def figures(self) -> dict:
        """What was chosen, for a report."""
        return {"contrast": self.contrast, **self.chosen}


def methods(
    clip: ClipModel, directions: Mapping[int, Float[Tensor, "unit embed"]] | None = None
) -> dict[str, Method]:
    """All methods that this model allows; votes need a bundle's directions."""
    effects = Last(token_effects_of(clip))
    known = [
        Method(
            OURS, partial(patch_maps, clip, effects), contrast=True,
            settings={"power": (1.0, POWER, 0.0), "sharpness": (SHARPNESS, 14.0)},
        )
    ]  # fmt: skip
    if clip.kind == "vit" and directions:  # the pooling's own neurons are of no place
        directions = {k: v for k, v in directions.items() if k != clip.anatomy.pooling_layer}
    if directions:
        lens = Lens(clip, tuple(directions))
        counts = {"count": (50, 100, 200, 400, 800, 1600)}
        known.append(Method(VOTES, partial(vote_maps, lens, directions), counts))
        if clip.kind == "vit":  # of a ResNet, whose effects are all direct: its attention
            known.append(Method(ATTRIBUTION, partial(attribution_maps, lens), contrast=True))
    if clip.kind == "resnet":
        pairs = clip.neurons * clip.heads
        counts = {"count": tuple(max(1, int(share * pairs)) for share in _PAIR_SHARES)}
        known.append(Method(PAIRS, partial(pair_maps, NeuronHeadEffects(clip)), counts))
    for baseline in BASELINES.values():
        if baseline.why_not(clip) is None:
            known.append(
                Method(
                    baseline.name, baseline.maps(clip), baseline.settings, baseline.contrast,
                    baseline.reads_text,
                )
            )  # fmt: skip
    return {method.name: method for method in known}


def pick(clip: ClipModel, known: Mapping[str, Method], names: str | None) -> list[Method]:
    """The methods that the user names, separated by commas, in that order; all by default."""
    if names is None:
        return list(known.values())
    wanted = [name.strip() for name in names.split(",")]
    for name in wanted:
        if name not in known:
            reason = BASELINES[name].why_not(clip) if name in BASELINES else None
            reason = reason or f"no method {name!r}"
            raise UserError(f"{reason}; expected some of: {', '.join(known)}")
    return [known[name] for name in wanted]


def attribution_maps(
    lens, images: Float[Tensor, "image 3 height width"], texts: Float[Tensor, "class embed"]
) -> Float[Tensor, "image class row column"]:
    """Each patch's exact share of ``⟨Σ_n φ_n, class⟩`` over all neurons of the lens's layers."""
    _, contributions = lens(images)
    shares = additive_maps(contributions, texts)[..., lens.clip.prefix :]
    return shares.unflatten(-1, lens.clip.grid)


class Last:
    """A function that remembers its last argument: many variants ask of one image in a row."""

    def __init__(self, function: Callable[[Tensor], Tensor]):
        self.function = function
        self._of: Tensor | None = None
        self._value: Tensor | None = None

    def __call__(self, images: Tensor) -> Tensor:
        if self._of is not images:
            self._of, self._value = images, self.function(images)
        return self._value
