"""How a classifier reads images under an edit of units: estimated at once, and measured.

estimated  effects of the edited units scaled in the embedding, as if no later layer read them
           (`Preview`): a few numbers give it for any factors
measured   a forward pass of the model with the same factors on its activations (`fold`), where
           later layers respond

Both can disagree; what is measured is what the model says.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from io import BytesIO

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize

from clipneurons.bundle.bundle import Bundle
from clipneurons.bundle.unit_words import plain
from clipneurons.dictionary.dictionary import Dictionary, Phrase
from clipneurons.dictionary.search import dictionary_of
from clipneurons.edit.class_effects import ClassEffects, places
from clipneurons.edit.edit import DATA, Edit, EditError, UnitFactor, WordFactor
from clipneurons.edit.fold import fold, mean_of_units
from clipneurons.edit.preview import (
    Preview,
    order_that_turns,
    patch_attributions,
    weighted_effects,
)
from clipneurons.images.convert import to_rgb
from clipneurons.lens.contributions import Contributions
from clipneurons.lens.lens import Lens
from clipneurons.models.clip import ClipModel
from clipneurons.text.embedding import embed_texts
from clipneurons.text.synonym_groups import CosineSpread, synonym_groups

TEMPLATES = "photo"
# Units of an edit that is looked for, and random sets of as many that it is compared with.
MOST_FOUND, RANDOM_SETS = 64, 20
_WORDS = 32  # rules of an edit
_SHOWN, _SLIDERS = 6, 24  # units for and against; units of an edit that are parts of their own
_GALLERY = 64  # images behind mean activations
_NEAREST = 60  # classes that are grouped


@dataclass(frozen=True)
class Part:
    """A unit, all units that say a word, or the rest of an edit.

    `adds` is what it adds to the margin of the first image at factor 1, `units` how many it has,
    `map` where in the first image a unit's share comes from, in [0, 1].
    """

    rules: tuple[UnitFactor | WordFactor, ...]
    adds: float
    units: int = 1
    map: list[list[float]] | None = None

    @property
    def kind(self) -> str:
        """ "unit", "words" or "rest"."""
        if len(self.rules) != 1:
            return "rest"
        return "words" if isinstance(self.rules[0], WordFactor) else "unit"

    @property
    def strength(self) -> float:
        """How much of the part's change the edit makes: f − 1; of the rest, all."""
        return 1.0 if self.kind == "rest" else self.rules[0].factor - 1


@dataclass(frozen=True, eq=False)
class EditReading:
    """Images as a classifier reads them under an edit, and the parts that can be moved.

    top, wanted       the first image's class without the edit, and what is held against it
    logits, effects   ⟨e, t_c⟩ of the first image, and ⟨φ_n − b_n, t_c⟩ of all units
    measured_cosines  with the edit in the model; None where its weights cannot hold it
    scale             of the model's softmax; None of a model without one
    """

    class_names: tuple[str, ...]
    classes: Float[Tensor, "class embed"]
    top: int
    wanted: int
    edit: Edit
    parts: tuple[Part, ...]
    previews: tuple[Preview, ...]
    pixels: Float[Tensor, "image 3 height width"]
    logits: Float[Tensor, " class"]
    effects: Float[Tensor, "unit class"]
    measured_cosines: Float[Tensor, "image class"] | None
    scale: float | None

    def before(self, image: int = 0) -> list[float]:
        """Probabilities of the classes (cosines, of a model without softmax), unedited."""
        return self.shares(self.previews[image].cosines(torch.zeros(len(self.parts))))

    def estimated(self, image: int = 0) -> list[float]:
        """The same with the edited units' effects scaled in the embedding."""
        strengths = torch.tensor([part.strength for part in self.parts])
        return self.shares(self.previews[image].cosines(strengths))

    def measured(self, image: int = 0) -> list[float] | None:
        """The same by a forward pass with the edit."""
        if self.measured_cosines is None:
            return None
        return self.shares(self.measured_cosines[image])

    def result(self, image: int = 0) -> list[float]:
        """What the model says under the edit: measured where that can be."""
        return self.measured(image) or self.estimated(image)

    def shares(self, cosines: Float[Tensor, " class"]) -> list[float]:
        """Probabilities at the model's temperature, or the cosines where it has none."""
        return (cosines if self.scale is None else (self.scale * cosines).softmax(-1)).tolist()


@dataclass(frozen=True)
class Turned:
    """The edit that turns an image, and the share of random sets of as many units that do."""

    edit: Edit
    random_share: float


class EditReader:
    """A lens and the bundle it was used for, which reads images under edits."""

    def __init__(self, lens: Lens, bundle: Bundle) -> None:
        self.lens, self.bundle = lens, bundle
        self.dictionary = dictionary_of(bundle)

    def read(
        self,
        pixels: Float[Tensor, "image 3 height width"],
        class_names: Sequence[str],
        wanted: str = "",
        edit: Edit | None = None,
    ) -> EditReading:
        """One pass over preprocessed images, one with the edit; the first image's speakers.

        Raises `ValueError` for fewer than two classes and a wanted one that is none of them, and
        `EditError` for an edit that does not fit the bundle.
        """
        if len(class_names) < 2:
            raise ValueError("Write at least two class names, with commas between: cat, dog")
        if wanted and wanted not in class_names:
            raise ValueError(f"Correct class {wanted!r}: expected one of {', '.join(class_names)}.")
        # Of the images that an edit was found on, nothing is known here.
        edit = replace(edit or Edit(self.bundle.config.weights_sha256), means=DATA)
        if len(edit.words) > _WORDS:
            raise EditError(f"An edit of {len(edit.words)} words: at most {_WORDS} are read here.")
        edit.factors(self.bundle)  # says what does not fit, before the model runs
        clip = self.lens.clip
        classes = embed_texts(clip, class_names, TEMPLATES)
        embeddings, effects, contributions = ClassEffects(self.bundle, self.lens, classes)(
            pixels.to(clip.device)
        )
        classes = classes.cpu()
        logits = embeddings[0] @ classes.T
        first, second = logits.topk(2).indices.tolist()
        other = class_names.index(wanted) if wanted else second
        other = second if other == first else other
        parts = _Parts(self.dictionary, edit, contributions, clip.grid)
        rows = parts.of(
            effects[0, :, first] - effects[0, :, other], classes[first] - classes[other]
        )
        previews = tuple(
            Preview.of(embedding, vectors, classes)
            for embedding, vectors in zip(embeddings, parts.vectors(len(pixels)), strict=True)
        )
        reading = EditReading(
            tuple(class_names), classes, first, other, edit, tuple(rows), previews, pixels, logits,
            effects[0], None, clip.logit_scale,
        )  # fmt: skip
        try:
            return replace(reading, measured_cosines=self.measure(reading, edit))
        except ValueError:  # the weights cannot hold the edit
            return reading

    @torch.no_grad()
    def measure(self, reading: EditReading, edit: Edit) -> Float[Tensor, "image class"]:
        """Cosines of the reading's images with its classes, by a forward pass with an edit.

        Raises `ValueError` for a model into whose weights the edit cannot be folded.
        """
        clip = self.edited_model(edit)
        pixels = reading.pixels.to(clip.device)
        return normalize(clip.encode_image(pixels).cpu(), dim=1) @ reading.classes.T

    def edited_model(self, edit: Edit) -> ClipModel:
        """The model with an edit in its weights, about mean activations over the gallery.

        Raises `ValueError` for a model whose weights cannot hold it.
        """
        factors = edit.factors(self.bundle)
        if factors and self.bundle.features:
            raise ValueError("features are no part of the weights, which cannot hold their edit")
        return fold(self.lens.clip, factors, self._unit_means) if factors else self.lens.clip

    def turn(self, reading: EditReading) -> Turned:
        """The fewest units whose ablation turns the first image to the wanted class, measured.

        Units are tried in the order of `order_that_turns`, one more at a time.

        Raises `ValueError` where `MOST_FOUND` units do not turn it, and for a model that cannot
        be measured.
        """
        first = replace(reading, pixels=reading.pixels[:1])
        order = order_that_turns(reading.logits, reading.effects, reading.wanted, MOST_FOUND)
        for count in range(1, len(order) + 1):
            edit = self._ablated(order[:count])
            if int(self.measure(first, edit)[0].argmax()) == reading.wanted:
                return Turned(edit, self._random_share(first, count))
        raise ValueError(
            f"No {len(order)} neurons turn this image to “{reading.class_names[reading.wanted]}” "
            "in a forward pass: what misleads the model is spread wider, or lies elsewhere."
        )

    def top_classes(self, pixels: Float[Tensor, "3 height width"], count: int = 5) -> list[str]:
        """The bundle's classes (without any, its texts) that the model finds nearest an image."""
        names, embeddings, spread = self._known_classes
        embedding = normalize(self.lens.clip.encode_image(pixels[None]).cpu(), dim=1)[0]
        order = (embeddings @ embedding).topk(min(_NEAREST, len(names))).indices.tolist()
        groups = synonym_groups(order, names, embeddings, count, spread=spread)
        return list(dict.fromkeys(plain(names[group[0]]) for group in groups))

    def _ablated(self, units: Sequence[int]) -> Edit:
        return Edit.ablating(self.bundle, places(self.bundle, list(units)))

    def _random_share(self, reading: EditReading, count: int, seed: int = 0) -> float:
        generator = torch.Generator().manual_seed(seed)
        turned = 0
        for _ in range(RANDOM_SETS):
            units = torch.randperm(len(reading.effects), generator=generator)[:count].tolist()
            cosines = self.measure(reading, self._ablated(units))
            turned += int(cosines[0].argmax()) == reading.wanted
        return turned / RANDOM_SETS

    @cached_property
    def _unit_means(self) -> Mapping[int, Float[Tensor, " unit"]]:
        """Mean activations over images of the bundle's gallery."""
        clip, examples = self.lens.clip, self.bundle.examples
        pixels = [
            clip.preprocess(to_rgb(Image.open(BytesIO(examples[number]))))
            for number in examples.spread(_GALLERY)
        ]
        batches = [torch.stack(pixels[at : at + 32]) for at in range(0, len(pixels), 32)]
        return mean_of_units(clip, batches, self.bundle.config.layers)

    @cached_property
    def _known_classes(self) -> tuple[list[str], Float[Tensor, "text embed"], CosineSpread]:
        # Names stand in a field with commas between them.
        names = [name for name in self.bundle.config.data.class_names if "," not in name]
        if len(names) >= 5:
            embeddings = embed_texts(self.lens.clip, names, TEMPLATES).cpu()
        else:
            names, embeddings = (
                list(self.bundle.texts),
                normalize(self.bundle.text_embeddings, dim=1),
            )
        return names, embeddings, CosineSpread.of(embeddings)


class _Parts:
    """An edit in parts, with the strongest units beside it, on images' contributions."""

    def __init__(
        self, dictionary: Dictionary, edit: Edit, contributions: Mapping[int, Contributions],
        grid: tuple[int, int],
    ) -> None:  # fmt: skip
        self.dictionary, self.edit, self.grid = dictionary, edit, grid
        self.bundle, self.contributions = dictionary.bundle, contributions
        self.count = len(dictionary.directions)
        self._weights: list[Float[Tensor, " unit"]] = []

    def of(self, margin: Float[Tensor, " unit"], toward: Float[Tensor, " embed"]) -> list[Part]:
        """The parts, by what they add to `margin`, of the classes whose difference is `toward`."""
        groups = self._groups(margin)
        self._weights = [weights for _, weights in groups]
        return [
            Part(
                rules, float(weights @ margin), int((weights != 0).sum()),
                self._map(rules[0], float(weights @ margin), toward)
                if len(rules) == 1 and isinstance(rules[0], UnitFactor) else None,
            )
            for rules, weights in groups
        ]  # fmt: skip

    def vectors(self, images: int) -> list[Float[Tensor, "part embed"]]:
        """What each part changes at strength 1, by image."""
        sizes = [self.dictionary.units(layer) for layer in self.dictionary.layers]
        means = {layer: arrays.means for layer, arrays in self.bundle.layers.items()}
        by_layer = [
            dict(zip(self.dictionary.layers, weights.split(sizes), strict=True))
            for weights in self._weights
        ]
        return [
            torch.stack([weighted_effects(self.contributions, means, w, image) for w in by_layer])
            if by_layer else torch.zeros(0, self.bundle.config.embed_dim)
            for image in range(images)
        ]  # fmt: skip

    def _groups(self, margin: Float[Tensor, " unit"]) -> list[tuple[tuple, Tensor]]:
        """Rules of each part, and the weight of every unit in it."""
        units, free = list(self.edit.units), torch.ones(self.count, dtype=torch.bool)
        free[[self._row(unit) for unit in units]] = False
        groups: list[tuple[tuple, Tensor]] = []
        for rule in reversed(self.edit.words):  # a unit belongs to the last rule that names it
            scores = self.dictionary.coefficient_scores([Phrase(rule.words)])
            said = (scores > rule.more_than) & free
            groups.insert(0, ((rule,), said.float()))
            free &= ~said
        if rest := tuple(units[_SLIDERS:]):
            weights = torch.zeros(self.count)
            for unit in rest:
                weights[self._row(unit)] = unit.factor - 1
            groups.append((rest, weights))
        order = margin.masked_fill(~free, 0)
        strongest = [
            row
            for signed in (order, -order)
            for row in signed.topk(min(_SHOWN, len(order))).indices.tolist()
        ]
        beside = [
            UnitFactor(*self.dictionary.place(row), 1.0)
            for row in dict.fromkeys(strongest)
            if free[row]
        ]
        for unit in (*units[:_SLIDERS], *beside):
            weights = torch.zeros(self.count)
            weights[self._row(unit)] = 1.0
            groups.append(((unit,), weights))
        return groups

    def _row(self, unit: UnitFactor) -> int:
        return self.dictionary.row(unit.layer, unit.unit)

    def _map(self, unit: UnitFactor, adds: float, toward: Tensor) -> list[list[float]] | None:
        shares = patch_attributions(self.contributions[unit.layer], unit.unit, toward)
        if shares is None:
            return None
        shares = (shares * math.copysign(1, adds)).clamp_min(0)
        shares = (shares / shares.max().clamp_min(1e-12)).unflatten(0, self.grid)
        return [[round(share, 3) for share in row] for row in shares.tolist()]
