"""Every way to segment under one interface, and one call from an image and words to masks."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product

import torch
from jaxtyping import Bool, Float, Int
from PIL import Image
from torch import Tensor

from clipneurons.lens.make import Lens, make_lens
from clipneurons.lens.token_contributions import (
    additive_maps,
    token_effects_of,
)
from clipneurons.models.clip import ClipModel
from clipneurons.models.preprocess import pixels, whole
from clipneurons.segmentation.activation_maps import NEURONS, choose_neurons, vote_maps
from clipneurons.segmentation.baselines.registry import BASELINES
from clipneurons.segmentation.guided_filter import guided_filter
from clipneurons.segmentation.masks import binary_masks, label_map, min_max, upsample
from clipneurons.segmentation.methods import (
    ATTRIBUTION,
    BEST,
    PAIRS,
    PAPER,
    PATCH_ATTRIBUTION,
    why_not,
)
from clipneurons.segmentation.patch_similarity import (
    CHOICES,
    POWER,
    SHARPNESS,
    fit_maps,
    follow_edges,
)
from clipneurons.segmentation.resnet import pair_counts, resnet_segmenters
from clipneurons.segmentation.sliding_window import map_in_windows, resize
from clipneurons.text.embedding import embed_texts

Directions = Mapping[int, Float[Tensor, "unit embed"]]

# Prompts for what is no object, where no other texts are given to contrast with.
BACKGROUND = ("background", "nothing", "an empty scene", "the ground", "the sky", "a wall")
_MAX_CLASSES = 1000
_MAX_SIDE = 512
_MAX_NUMBERS = 2**26


@dataclass(frozen=True)
class Segmenter:
    """A way to get maps: ``make(images, texts) -> [image, class, row, column]``.

    ``contrast``: the texts it wants are centred on others (`contrasted`). ``threshold`` of the
    min-max stretched map; None is the map's mean, as the baselines' papers have it. ``choices``:
    further arguments of `make` with the values that an evaluation may choose from, on validation
    data; ``chosen`` those that are set.
    """

    name: str
    make: Callable[[Tensor, Tensor], Tensor]
    contrast: bool = False
    threshold: float | None = None
    choices: Mapping[str, Sequence[float]] = field(default_factory=dict)
    chosen: Mapping[str, float] = field(default_factory=dict)

    def variants(self) -> list["Segmenter"]:
        """The method with every combination of what there is to choose; itself where nothing."""
        return [
            replace(
                self,
                make=partial(self.make, **(chosen := dict(zip(self.choices, values, strict=True)))),
                chosen=chosen,
            )
            for values in product(*self.choices.values())
        ]


def contrasted(
    texts: Float[Tensor, "class embed"], others: Float[Tensor, "other embed"]
) -> Float[Tensor, "class embed"]:
    """Texts minus the mean of the others: what speaks for a class and not for any class."""
    return texts - others.mean(0)


def segmenters(clip: ClipModel, directions: Directions | None = None) -> dict[str, Segmenter]:
    """All methods that this model allows, by name; votes need a bundle's neuron directions."""
    found = {}
    if clip.kind == "vit" and directions:  # the pooling's own neurons are of no place
        directions = {k: v for k, v in directions.items() if k != clip.anatomy.pooling_layer}
    if directions:
        lens = make_lens(clip, tuple(directions))
        found[PAPER] = Segmenter(PAPER, partial(votes, lens, directions), threshold=0.5)
        for weighting in ("signed", "weighted"):
            found[f"{weighting} votes"] = Segmenter(
                f"{weighting} votes", partial(votes, lens, directions, weighting=weighting)
            )
        if clip.kind == "vit":
            found[ATTRIBUTION] = Segmenter(
                ATTRIBUTION, partial(attribution_maps, lens), contrast=True
            )
    effects = token_effects_of(clip)
    for name, refined in ((PATCH_ATTRIBUTION, False), (BEST, True)):
        make = partial(fitted, clip, effects, refined=refined)
        found[name] = Segmenter(name, make, contrast=True, threshold=0.3, choices=CHOICES)
    if clip.kind == "vit":
        pooling, plain = clip.anatomy.pooling.kind, clip.anatomy.plain
        others = {
            name: partial(method, clip)
            for name, method in BASELINES.items()
            if why_not(name, pooling, plain) is None
        }
    else:
        others = resnet_segmenters(clip)
    for name, make in others.items():
        choices = {"count": pair_counts(clip)} if name == PAIRS else {}
        found[name] = Segmenter(name, make, contrast=name in _CONTRASTED, choices=choices)
    return found


_CONTRASTED = ("TextSpan",)


def votes(
    lens: Lens,
    directions: Directions,
    images: Float[Tensor, "image 3 height width"],
    texts: Float[Tensor, "class embed"],
    count: int = NEURONS,
    weighting: str = "mean",
) -> Float[Tensor, "image class row column"]:
    """The paper's method: activation maps of the neurons most aligned with each class."""
    _, contributions = lens(images)
    activations = {layer: mine.activations for layer, mine in contributions.items()}
    chosen = choose_neurons({k: v.to(texts) for k, v in directions.items()}, texts, count)
    per_neuron = (
        next(iter(contributions.values())).directions.units
        // (next(iter(activations.values())).shape[2])
    )
    maps = vote_maps(activations, chosen, weighting, per_neuron, lens.clip.prefix)
    return maps.unflatten(-1, lens.clip.grid)


def attribution_maps(
    lens: Lens,
    images: Float[Tensor, "image 3 height width"],
    texts: Float[Tensor, "class embed"],
) -> Float[Tensor, "image class row column"]:
    """Each patch's exact share of what all neurons of the lens's layers say about each class."""
    _, contributions = lens(images)
    return additive_maps(contributions, texts)[..., lens.clip.prefix :].unflatten(
        -1, lens.clip.grid
    )


def fitted(
    clip: ClipModel,
    effects: Callable[[Tensor], Tensor],
    images: Float[Tensor, "image 3 height width"],
    texts: Float[Tensor, "class embed"],
    refined: bool = True,
    power: float = POWER,
    sharpness: float = SHARPNESS,
) -> Float[Tensor, "image class row column"]:
    """What each patch contributes to the embedding, weighted by how well it fits each class.

    ``refined``: at the size of the images, following their edges.
    """
    patches = effects(images)[:, clip.prefix :]
    maps = fit_maps(patches, texts, sharpness, power).unflatten(-1, clip.grid)
    return follow_edges(clip, images, maps) if refined else maps


@dataclass(frozen=True)
class Segmentation:
    """What `segment` found in one image.

    ``scores`` are on one scale for all classes and at most 512 pixels a side; ``size`` is the
    image's own ``(height, width)``.
    """

    names: tuple[str, ...]
    scores: Float[Tensor, "class row column"]
    size: tuple[int, int]
    threshold: float | None

    @property
    def heat(self) -> Float[Tensor, "class row column"]:
        """Each class's map stretched to 0..1."""
        return min_max(self.scores)

    def mask(self, index: int = 0, threshold: float | None = None) -> Bool[Tensor, "h w"]:
        """Where the class is, in the image's own size; by default at the method's threshold."""
        heat = upsample(self.heat[index], self.size)
        return binary_masks(heat, self.threshold if threshold is None else threshold)

    def labels(self, none: float = 0.3) -> Int[Tensor, "row column"]:
        """Index of the class at each position of the maps, -1 where all stay below ``none``."""
        return label_map(self.scores, none)


def segment(
    clip: ClipModel,
    image: Image.Image,
    names: Sequence[str],
    method: Segmenter,
    *,
    others: Sequence[str] | Float[Tensor, "other embed"] = BACKGROUND,
    templates: str | Sequence[str] = "photo",
    scale: float | None = None,
    refine: bool = False,
) -> Segmentation:
    """Find what the words name in an image of any size and mode.

    Args:
        names: class names; each goes through the prompt ``templates``.
        others: texts, or their embeddings, that methods with ``contrast`` hold the names
            against; the names themselves are always among them.
        scale: enlarge the image to this many windows across its shorter side and average over
            overlapping windows, instead of one look at the whole image.
        refine: let the maps follow the image's edges (guided filter).

    Raises:
        ValueError: no name, an empty or a repeated one, more than 1,000.
    """
    names = check_names(names)
    texts = embed_texts(clip, names, templates)
    if method.contrast:
        if not isinstance(others, Tensor):
            others = embed_texts(clip, list(others), templates) if others else texts[:0]
        texts = contrasted(texts, torch.cat([others.to(texts), texts]))
    height, width = image.size[::-1]
    size = _map_size(height, width, len(names))
    if scale is None:
        maps = method.make(whole(clip, image), texts)[0].cpu()
    else:
        maps = map_in_windows(lambda batch: method.make(batch, texts), clip, image, scale)
    scores = resize(maps, size)
    if refine:
        guide = pixels(image, size)[None]
        scores = torch.cat([guided_filter(guide, part[None])[0] for part in scores.split(16)])
    return Segmentation(names, scores, (height, width), method.threshold)


def check_names(names: Sequence[str]) -> tuple[str, ...]:
    """Class names with single spaces, or what is wrong with them."""
    clean = tuple(" ".join(name.split()) for name in names)
    if not clean:
        raise ValueError("expected at least one class name, got none")
    if "" in clean:
        raise ValueError(f"class name {clean.index('') + 1} is empty: write what to look for")
    twice = [name for i, name in enumerate(clean) if name in clean[:i]]
    if twice:
        raise ValueError(f"class name {twice[0]!r} is given twice")
    if len(clean) > _MAX_CLASSES:
        raise ValueError(f"expected at most {_MAX_CLASSES} class names, got {len(clean)}")
    return clean


def _map_size(height: int, width: int, classes: int) -> tuple[int, int]:
    """The image's shape, with at most 512 pixels a side and 64 million numbers in all."""
    shrink = min(1.0, _MAX_SIDE / max(height, width))
    shrink = min(shrink, (_MAX_NUMBERS / (classes * height * width)) ** 0.5)
    return max(1, round(height * shrink)), max(1, round(width * shrink))
