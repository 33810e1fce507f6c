"""Where a zero-shot classifier confuses classes, and the units behind each confusion.

Of an image of class c that is classified as d, unit n adds

    ⟨φ_n(I) − b_n, t_d − t_c⟩

to the margin of the wrong class over the right one. Averaged over the images of a pair (c, d), the
largest of these are the units behind the confusion. Ablating them is measured by forward passes
over all images, beside as many random units.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn.functional import normalize

from clipneurons.edit.class_effects import ClassEffects, places
from clipneurons.edit.edit import Edit
from clipneurons.edit.reading import TEMPLATES, EditReader
from clipneurons.models.clip import ClipModel
from clipneurons.text.embedding import embed_texts

# Units behind a pair, and random sets of as many that their ablation is compared with.
UNITS, RANDOM_SETS = 8, 5
_BATCH = 32

Progress = Callable[[int, int, str], object]


@dataclass(frozen=True)
class Push:
    """A unit, and what it adds to the wrong class rather than the right one, on average."""

    layer: int
    unit: int
    adds: float


@dataclass(frozen=True)
class ConfusedPair:
    """Images of class `correct` that are classified as `predicted`, and the units behind it."""

    correct: str
    predicted: str
    images: tuple[int, ...]
    units: tuple[Push, ...]


@dataclass(frozen=True, eq=False)
class Confusions:
    """Labelled images as a classifier reads them.

    `pixels` are what the model reads, in 8 bits; `pairs` are sorted by their number of images.
    """

    class_names: tuple[str, ...]
    pixels: UInt8[Tensor, "image 3 height width"]
    labels: Int[Tensor, " image"]
    predicted: Int[Tensor, " image"]
    pairs: tuple[ConfusedPair, ...]

    @property
    def accuracy(self) -> float:
        """Share of the images that are classified correctly."""
        return float((self.predicted == self.labels).float().mean())

    @property
    def matrix(self) -> Int[Tensor, "class class"]:
        """Numbers of images by correct and predicted class."""
        count = len(self.class_names)
        cells = torch.bincount(self.labels * count + self.predicted, minlength=count * count)
        return cells.reshape(count, count)

    def to_json(self) -> dict:
        """In JSON values."""
        return {
            "classes": list(self.class_names), "images": len(self.labels),
            "accuracy": self.accuracy, "matrix": self.matrix.tolist(),
            "labels": self.labels.tolist(), "predicted": self.predicted.tolist(),
            "pairs": [asdict(pair) for pair in self.pairs],
        }  # fmt: skip


@dataclass(frozen=True)
class Ablation:
    """Accuracy on all images without some units, and without random sets of as many.

    `corrected` images were wrong before and are right without the units, `broken` the reverse.
    """

    units: tuple[tuple[int, int], ...]
    before: float
    after: float
    random: tuple[float, ...]
    corrected: int
    broken: int


class ConfusionReader:
    """An `EditReader` with the classes to tell apart."""

    def __init__(self, reader: EditReader, class_names: Sequence[str]) -> None:
        """Raises `ValueError` for fewer than two classes."""
        if len(class_names) < 2:
            raise ValueError(f"Expected images of at least two classes, found {len(class_names)}.")
        self.reader, self.clip = reader, reader.lens.clip
        self.class_names = tuple(class_names)
        self.classes = embed_texts(self.clip, self.class_names, TEMPLATES)

    def read(
        self,
        pixels: UInt8[Tensor, "image 3 height width"],
        labels: Int[Tensor, " image"],
        progress: Progress = lambda *_: None,
    ) -> Confusions:
        """One pass over images, preprocessed by the model and kept in 8 bits (`eight_bits`)."""
        effects_of = ClassEffects(self.reader.bundle, self.reader.lens, self.classes)
        predicted, pushes = [], {}
        for start in range(0, len(labels), _BATCH):
            progress(start, len(labels), "Classifying images")
            batch = self._normalised(pixels[start : start + _BATCH])
            embeddings, effects, _ = effects_of(batch)
            wrong = (embeddings @ self.classes.cpu().T).argmax(1)
            right = labels[start : start + _BATCH]
            for i in (wrong != right).nonzero().flatten().tolist():
                pushes[start + i] = effects[i, :, wrong[i]] - effects[i, :, right[i]]
            predicted.append(wrong)
        predicted = torch.cat(predicted)
        pairs = self._pairs(labels, predicted, pushes)
        return Confusions(self.class_names, pixels, labels, predicted, pairs)

    def ablate(
        self,
        confusions: Confusions,
        units: Sequence[tuple[int, int]],
        progress: Progress = lambda *_: None,
        seed: int = 0,
    ) -> Ablation:
        """Measure all images without some units, and without random ones.

        Raises `ValueError` for a model into whose weights the ablation cannot be folded, and
        `EditError` for units that the bundle does not have.
        """
        bundle = self.reader.bundle
        count = sum(len(arrays.directions) for arrays in bundle.layers.values())
        generator = torch.Generator().manual_seed(seed)
        draws = [
            places(bundle, torch.randperm(count, generator=generator)[: len(units)].tolist())
            for _ in range(RANDOM_SETS)
        ]
        total, right = (1 + len(draws)) * len(confusions.labels), []
        for number, chosen in enumerate((list(units), *draws)):
            model = self.reader.edited_model(Edit.ablating(bundle, chosen))
            done = number * len(confusions.labels)

            def shown(image: int, done: int = done) -> None:
                progress(done + image, total, "Measuring ablations")

            right.append(self._predict(model, confusions.pixels, shown) == confusions.labels)
        after, *random = (float(hits.float().mean()) for hits in right)
        before = confusions.predicted == confusions.labels
        return Ablation(
            tuple((int(layer), int(unit)) for layer, unit in units), confusions.accuracy, after,
            tuple(random), int((right[0] & ~before).sum()), int((before & ~right[0]).sum()),
        )  # fmt: skip

    def _pairs(
        self, labels: Tensor, predicted: Tensor, pushes: dict[int, Tensor]
    ) -> tuple[ConfusedPair, ...]:
        images: dict[tuple[int, int], list[int]] = {}
        for image in pushes:
            images.setdefault((int(labels[image]), int(predicted[image])), []).append(image)
        pairs = []
        for (correct, wrong), members in images.items():
            mean = torch.stack([pushes[image] for image in members]).mean(0)
            largest = mean.topk(min(UNITS, len(mean)))
            units = places(self.reader.bundle, largest.indices.tolist())
            pairs.append(
                ConfusedPair(
                    self.class_names[correct], self.class_names[wrong], tuple(members),
                    tuple(
                        Push(*place, adds)
                        for place, adds in zip(units, largest.values.tolist(), strict=True)
                        if adds > 0
                    ),
                )
            )  # fmt: skip
        return tuple(sorted(pairs, key=lambda pair: (-len(pair.images), pair.images)))

    @torch.no_grad()
    def _predict(
        self, model: ClipModel, pixels: Tensor, progress: Callable[[int], object]
    ) -> Int[Tensor, " image"]:
        predicted = []
        for start in range(0, len(pixels), _BATCH):
            progress(start)
            batch = self._normalised(pixels[start : start + _BATCH])
            embeddings = normalize(model.encode_image(batch), dim=1)
            predicted.append((embeddings @ self.classes.T).argmax(1).cpu())
        return torch.cat(predicted)

    def _normalised(self, pixels: UInt8[Tensor, "image 3 height width"]) -> Tensor:
        mean, std = (
            torch.tensor(values, device=self.clip.device)[:, None, None]
            for values in (self.clip.image_mean, self.clip.image_std)
        )
        return (pixels.to(self.clip.device).float() / 255 - mean) / std


def eight_bits(
    clip: ClipModel, pixels: Float[Tensor, "3 height width"]
) -> UInt8[Tensor, "3 height width"]:
    """A preprocessed image in 8 bits, as it was before it was normalised."""
    mean, std = (torch.tensor(v)[:, None, None] for v in (clip.image_mean, clip.image_std))
    return (255 * (pixels.cpu() * std + mean)).round().clamp(0, 255).byte()
