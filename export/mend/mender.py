"""What mean-ablating units does to the groups of a classifier, in the picture of their effects."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from tqdm import tqdm

from clipneurons.bundle.bundle import Bundle
from clipneurons.edit.class_effects import ClassEffects, places
from clipneurons.edit.edit import DATA, IMAGES, Edit, apply_edit
from clipneurons.edit.mending import (
    FindOptions,
    Found,
    accuracies,
    find_units,
    margins,
    strongest_rivals,
)
from clipneurons.lens.attribution_patching import attribute, mean_by_place
from clipneurons.lens.base import SCALE
from clipneurons.lens.contributions import MeanEffect
from clipneurons.lens.first_order import FirstOrderLens
from clipneurons.lens.lens import Lens
from clipneurons.models.clip import ClipModel
from clipneurons.stats.intervals import wilson
from export.common.errors import UserError
from export.common.kept_batches import KeptBatches
from export.data.grouped import GroupedImages, chunks

OURS, REAL = "ours", "ours, for real"


@dataclass(frozen=True, eq=False)
class Observed:
    """Images as a classifier reads them, and what each unit and attention head adds.

    logits   ⟨100 y/‖y‖, t_c⟩
    effects  ⟨φ_n − b_n, t_c⟩ of the units of all layers of the bundle, in order
    heads    the same of first-order effects of attention heads, a ViT's only, not centred
    ids      numbers of the images that could be read
    scores   mean scores of the units' heads over the images, by layer
    """

    embeddings: Float[Tensor, "image embed"]
    logits: Float[Tensor, "image class"]
    effects: Float[Tensor, "image unit class"]
    heads: Float[Tensor, "image head class"] | None
    labels: Int[Tensor, " image"]
    cues: Int[Tensor, " image"]
    ids: list[int]
    scores: Mapping[int, Float[Tensor, "unit head"]]

    def about(self, means: str, images: Observed) -> Observed:
        """The same with effects about their means over `images` instead of the bundle's data."""
        if means == DATA:
            return self
        return replace(self, effects=self.effects - images.effects.mean(0))


@dataclass(frozen=True, eq=False)
class Mender:
    """A bundle on its model, with the classes to tell apart, unit rows of `classes`.

    Batches are `kept`, where that is given, and taken from there.
    """

    bundle: Bundle
    lens: Lens
    classes: Float[Tensor, "class embed"]
    batch: int = 64
    kept: KeptBatches | None = None

    @property
    def clip(self) -> ClipModel:
        """The model."""
        return self.lens.clip

    @cached_property
    def _read(self) -> ClassEffects:
        return ClassEffects(self.bundle, self.lens, self.classes)

    @cached_property
    def _first_order(self) -> FirstOrderLens | None:
        return FirstOrderLens(self.clip) if self.clip.kind == "vit" else None

    def batches(
        self, images: GroupedImages, numbers: Sequence[int]
    ) -> Iterator[tuple[list[int], Tensor]]:
        """The images that can be read, preprocessed, with their numbers."""
        for part in chunks(numbers, self.batch):
            loaded = [(number, images.load(number)) for number in part]
            kept = [(number, image) for number, image in loaded if image is not None]
            if kept:
                pixels = torch.stack([self.clip.preprocess(image) for _, image in kept])
                yield [number for number, _ in kept], pixels.to(self.clip.device)

    def observe(
        self, images: GroupedImages, numbers: Sequence[int], kind: str = "seen"
    ) -> Observed:
        """One pass over the images; `kind` is what its batches are kept as."""
        parts = self.in_batches(kind, images, numbers, self._observe)
        if not parts:
            raise ValueError(f"none of the images of {images.name} can be read")
        columns = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        ids = columns["ids"].tolist()
        return Observed(
            columns["embeddings"], columns["embeddings"] @ self.classes.cpu().T,
            columns["effects"], columns.get("heads"),
            torch.tensor([images.labels[i] for i in ids]),
            torch.tensor([images.cues[i] for i in ids]), ids,
            {layer: columns[f"scores{layer}"].sum(0) / len(ids) for layer in self.bundle.layers},
        )  # fmt: skip

    def in_batches(
        self,
        kind: str,
        images: GroupedImages,
        numbers: Sequence[int],
        make: Callable[[list[int], Tensor], dict[str, Tensor]],
    ) -> list[dict[str, Tensor]]:
        """`make(numbers, pixels)` of every batch with images that can be read, or what was kept."""
        parts = []
        with tqdm(total=len(numbers), desc=kind, unit="images", disable=None) as bar:
            for number, part in enumerate(chunks(numbers, self.batch)):
                state = self.kept.get(kind, number) if self.kept else None
                found = dict(state.tensors) if state else {}
                if not state:
                    for ids, pixels in self.batches(images, part):
                        found = make(ids, pixels)
                    if self.kept:
                        self.kept.put(kind, number, found)
                if found:
                    parts.append(found)
                bar.update(len(part))
        return parts

    @torch.no_grad()
    def _observe(self, ids: list[int], pixels: Tensor) -> dict[str, Tensor]:
        embeddings, effects, contributions = self._read(pixels)
        found = {"ids": torch.tensor(ids), "embeddings": embeddings, "effects": effects}
        for layer in self.bundle.layers:
            found[f"scores{layer}"] = contributions[layer].scores.sum(0, keepdim=True).cpu()
        if self._first_order:
            representation, parts = self._first_order(pixels)
            scale = SCALE / representation.norm(dim=1)[:, None, None]
            found["heads"] = ((parts.heads @ self.classes.T).flatten(1, 2) * scale).cpu()
        return found

    def attributions(
        self, images: GroupedImages, numbers: Sequence[int], seen: Observed
    ) -> Float[Tensor, "image neuron"]:
        """Indirect effects of all neurons on the margins, to first order."""
        layers = list(self.bundle.layers)
        pixels = (part for _, part in self.batches(images, numbers))
        means = mean_by_place(self.clip, pixels, layers)
        rivals = strongest_rivals(seen.logits, seen.labels)
        toward = self.classes.cpu()[seen.labels] - self.classes.cpu()[rivals]
        rows = iter(toward)

        def make(ids: list[int], pixels: Tensor) -> dict[str, Tensor]:
            found = attribute(self.clip, pixels, torch.stack([next(rows) for _ in ids]), means)
            return {"shares": torch.cat([found[layer].cpu() for layer in layers], 1)}

        plain = replace(self, kept=None)  # the rows of `toward` go with whole passes
        parts = plain.in_batches("indirect effects", images, numbers, make)
        return torch.cat([part["shares"] for part in parts])

    def edit(self, units: Sequence[int], means: str = DATA) -> Edit:
        """The mean-ablation of some units, numbers among those of all layers."""
        return Edit.ablating(self.bundle, places(self.bundle, list(units)), means)

    def edited(self, edit: Edit, seen: Observed) -> Callable[[Tensor], Tensor]:
        """From images to embeddings with the effects of an edit; `seen` it was found on."""
        factors = edit.factors(self.bundle)
        means = {layer: self.bundle.layers[layer].means for layer in factors}
        if edit.means == IMAGES:
            means = {
                layer: MeanEffect(seen.scores[layer].to(self.clip.device)).dense(
                    self.lens.directions[layer]
                )
                for layer in factors
            }
        return lambda pixels: apply_edit(*self.lens(pixels), factors, means)


@dataclass(frozen=True, eq=False)
class Choice:
    """Units that were found, and the mean that their effects are set to (`Edit.means`)."""

    found: Found
    means: str


def group_numbers(seen: Observed, known: bool) -> Int[Tensor, " image"]:
    """Class x cue where cues are known, else class x whether the model reads the image rightly."""
    other = seen.cues if known else (seen.logits.argmax(1) != seen.labels).long()
    return seen.labels * (int(other.max()) + 1) + other


def check_enough(images: GroupedImages, seen: Observed, known: bool, folds: int) -> None:
    """Raise `UserError` for too few images of a group to cross-validate: how many it would take."""
    groups = group_numbers(seen, known)
    if not known and len(groups.unique()) == len(seen.labels.unique()):
        raise UserError(
            "the model reads all images of a class rightly, or none: expected some of both, or a"
            " cue for each (ROOT/CLASS/CUE/IMAGE)"
        )
    numbers, counts = groups.unique(return_counts=True)
    least = int(counts.argmin())
    if (count := int(counts[least])) >= folds:
        return
    rows = groups == numbers[least]
    label = int(seen.labels[rows][0])
    name = images.group_name(label, int(seen.cues[rows][0]))
    if known:
        raise UserError(
            f"{name}: {count} images to find neurons on; expected at least {folds}, so"
            f" {2 * folds} images of this group (half of them are held out)"
        )
    found_on, of_class = int((seen.labels == label).sum()), images.labels.count(label)
    kind = "correctly" if int(seen.logits[rows][0].argmax()) == label else "wrongly"
    raise UserError(
        f"{name}: {count} of {found_on} images to find neurons on {'is' if count == 1 else 'are'}"
        f" classified {kind}; expected at least {folds}. At this rate it takes about"
        f" {-(-of_class * folds // count)} images of this class, not {of_class}"
    )


def unit_margins(values: Float[Tensor, "image unit class"], seen: Observed) -> Tensor:
    """What each unit adds to each image's margin."""
    return margins(values, seen.labels, strongest_rivals(seen.logits, seen.labels))


def find(
    seen: Observed, values: Float[Tensor, "image unit"], known: bool, options: FindOptions
) -> Found:
    """`find_units` on what was observed."""
    rivals = strongest_rivals(seen.logits, seen.labels)
    margin = margins(seen.logits, seen.labels, rivals)
    return find_units(values, margin, seen.labels, group_numbers(seen, known), options)


def choose(seen: Observed, known: bool, options: FindOptions) -> Choice:
    """The fewest units that help, with the mean that left-out images say is the better one."""
    tried = []
    for means in (DATA, IMAGES):
        values = unit_margins(seen.about(means, seen).effects, seen)
        tried.append(Choice(find(seen, values, known, options), means))
    return min(tried, key=lambda choice: choice.found.loss)


def measured(
    logits: Sequence[Float[Tensor, "image class"]], seen: Observed, images: GroupedImages
) -> dict:
    """Accuracy by group with 95 % intervals, worst and mean; means over several sets of logits."""
    groups = seen.labels * max(1, len(images.cue_names)) + seen.cues
    rows = torch.stack([accuracies(one.argmax(1) == seen.labels, groups) for one in logits])
    by_group = {}
    for i, group in enumerate(groups.unique().tolist()):
        label, cue = divmod(group, max(1, len(images.cue_names)))
        count = int((groups == group).sum())
        rate = wilson(round(float(rows[:, i].mean()) * count), count)
        by_group[images.group_name(label, cue)] = {
            "accuracy": float(rows[:, i].mean()), "interval": rate.interval, "images": count,
        }  # fmt: skip
    return {
        "worst": float(rows.amin(1).mean()),
        "average": float(rows.mean(1).mean()),
        "groups": by_group,
    }


@torch.no_grad()
def elsewhere(
    encoders: Mapping[str, Callable[[Tensor], Tensor]],
    batches: Iterator[tuple[Tensor, Tensor]],
    classes: Float[Tensor, "class embed"],
    names: Sequence[str],
) -> dict:
    """Accuracy of several encoders on other labelled images, and the classes that lost most.

    `batches` are (images, labels); the first encoder is what the others are compared with.
    """
    right: dict[str, list[Bool[Tensor, " image"]]] = {name: [] for name in encoders}
    labels = []
    for pixels, known in batches:
        keep = known >= 0
        labels.append(known[keep].cpu())
        for name, encode in encoders.items():
            read = (encode(pixels[keep]) @ classes.T).argmax(1)
            right[name].append(read.cpu() == labels[-1])
    label = torch.cat(labels)
    hits = {name: torch.cat(rows) for name, rows in right.items()}
    base = next(iter(hits.values()))
    result = {}
    for name, rows in hits.items():
        rate = wilson(int(rows.sum()), len(rows))
        lost = torch.zeros(len(names)).index_add_(0, label, base.float() - rows.float())
        worst = [i for i in lost.topk(min(5, len(names))).indices.tolist() if lost[i] > 0]
        result[name] = {
            "accuracy": rate.value, "interval": rate.interval, "images": len(rows),
            "lost": {names[i]: int(lost[i]) for i in worst},
        }  # fmt: skip
    return result
