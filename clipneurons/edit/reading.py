"""How a classifier reads images under an edit of units: estimated at once, and measured.

estimated  effects of the edited units scaled in the embedding, as if no later layer read them
           (`Preview`): a few numbers give it for any factors
measured   a forward pass of the model with the same factors on its activations (`fold`), where
           later layers respond

Both can disagree; what is measured is what the model says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from io import BytesIO
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize

from clipneurons.bundle.bundle import Bundle
from clipneurons.bundle.unit_words import plain
from clipneurons.dictionary.search import dictionary_of
from clipneurons.edit.class_effects import ClassEffects, places
from clipneurons.edit.edit import DATA, Edit, EditError
from clipneurons.edit.fold import fold, mean_of_units
from clipneurons.edit.parts import EditParts, Part
from clipneurons.edit.preview import (
    Preview,
    order_that_turns,
)
from clipneurons.images.convert import to_rgb
from clipneurons.lens.lens import Lens
from clipneurons.models.clip import ClipModel
from clipneurons.notebook import article, bars, number
from clipneurons.text.embedding import embed_texts
from clipneurons.text.synonym_groups import CosineSpread, synonym_groups

TEMPLATES = "photo"
# Units of an edit that is looked for, and random sets of as many that it is compared with.
MOST_FOUND, RANDOM_SETS = 64, 20
_WORDS = 32  # rules of an edit
_GALLERY = 64  # images behind mean activations
_NEAREST = 60  # classes that are grouped


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

    def to_dict(self) -> dict[str, Any]:
        """In JSON values, as the page's endpoint gives it: the first image's classes and units."""
        before, estimated, measured = self.before(), self.estimated(), self.measured()
        return {
            "shares": "cosine" if self.scale is None else "probability",
            "top": self.class_names[self.top],
            "against": self.class_names[self.wanted],
            "classes": [
                {"name": name, "before": before[i], "estimated": estimated[i],
                 "measured": measured and measured[i]}
                for i, name in enumerate(self.class_names)
            ],
            "neurons": [
                asdict(part.rules[0]) | {
                    "adds": part.adds, "label": part.label, "reliable": part.reliable,
                    "map": part.map,
                }
                for part in self.parts
                if part.kind == "unit"
            ],
            "edit": self.edit.to_json(),
        }  # fmt: skip

    def __repr__(self) -> str:
        lines = [f"Classified as {self._now}, without the edit as {self.class_names[self.top]}"]
        rows = zip(self.class_names, self.before(), self.result(), strict=True)
        lines += [f"  {number(old, 3)} → {number(new, 3)}  {name}" for name, old, new in rows]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        names = self.class_names
        top, other = names[self.top], names[self.wanted]
        units = [
            (f"{part.rules[0].layer} · {part.rules[0].unit}  {part.label}", part.adds)
            for part in self.parts
            if part.kind == "unit"
        ]
        return article(
            f"Classified as {self._now}",
            bars("Before", list(zip(names, self.before(), strict=True)), 3),
            bars("Under the edit", list(zip(names, self.result(), strict=True)), 3),
            bars(f"Units: what each adds to {top} rather than {other}", units),
            note=f"Without the edit: {top}.",
        )

    @property
    def _now(self) -> str:
        shares = self.result()
        return self.class_names[shares.index(max(shares))]

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
        parts = EditParts(self.dictionary, edit, contributions, clip.grid)
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
