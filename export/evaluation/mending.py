"""What mean-ablating units does to the groups of a classifier, beside what else could be done."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from clipneurons.bundle.bundle import Bundle
from clipneurons.explore.edit import Edit, apply_edit
from clipneurons.explore.fold import fold, mean_of_units
from clipneurons.explore.mending import (
    FindOptions,
    Found,
    accuracies,
    find_units,
    margins,
    strongest_rivals,
)
from clipneurons.lens.attribution_patching import attribute, mean_of_neurons
from clipneurons.lens.base import SCALE
from clipneurons.lens.first_order import FirstOrderLens
from clipneurons.lens.make import Lens
from clipneurons.models.clip import ClipModel
from clipneurons.stats.intervals import wilson
from export.data.grouped import GroupedImages, chunks

OURS, REAL = "ours", "ours, for real"
PROBE = "linear probe"


@dataclass(frozen=True, eq=False)
class Observed:
    """Images as a classifier reads them, and what each unit and attention head adds.

    logits   ⟨100 y/‖y‖, t_c⟩
    effects  ⟨φ_n − b_n, t_c⟩ of the units of all layers of the bundle, in order
    heads    the same of first-order effects of attention heads, a ViT's only, not centred
    """

    embeddings: Float[Tensor, "image embed"]
    logits: Float[Tensor, "image class"]
    effects: Float[Tensor, "image unit class"]
    heads: Float[Tensor, "image head class"] | None
    labels: Int[Tensor, " image"]
    cues: Int[Tensor, " image"]


@dataclass(frozen=True, eq=False)
class Mender:
    """A bundle on its model, with the classes to tell apart, unit rows of `classes`."""

    bundle: Bundle
    lens: Lens
    classes: Float[Tensor, "class embed"]
    batch: int = 64

    @property
    def clip(self) -> ClipModel:
        """The model."""
        return self.lens.clip

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

    @torch.no_grad()
    def observe(self, images: GroupedImages, numbers: Sequence[int]) -> Observed:
        """One pass over the images."""
        directions = self.lens.directions
        along = {layer: directions[layer].project(self.classes) for layer in self.bundle.layers}
        centre = torch.cat([a.means.to(self.classes) @ self.classes.T
                            for a in self.bundle.layers.values()])  # fmt: skip
        first_order = FirstOrderLens(self.clip) if self.clip.kind == "vit" else None
        embeddings, effects, heads, ids = [], [], [], []
        for part, pixels in self.batches(images, numbers):
            representation, contributions = self.lens(pixels)
            mine = torch.cat(
                [
                    torch.einsum("bnk,nkc->bnc", contributions[layer].scores, along[layer])
                    for layer in self.bundle.layers
                ],
                1,
            )
            effects.append((mine - centre).cpu())
            embeddings.append((SCALE * normalize(representation, dim=1)).cpu())
            if first_order:
                scale = SCALE / representation.norm(dim=1)[:, None, None]
                by_head = first_order(pixels)[1].heads @ self.classes.T
                heads.append((by_head.flatten(1, 2) * scale).cpu())
            ids += part
        if not ids:
            raise ValueError(f"none of the images of {images.name} can be read")
        embedded = torch.cat(embeddings)
        return Observed(
            embedded, embedded @ self.classes.cpu().T, torch.cat(effects),
            torch.cat(heads) if heads else None,
            torch.tensor([images.labels[i] for i in ids]),
            torch.tensor([images.cues[i] for i in ids]),
        )  # fmt: skip

    def attributions(
        self, images: GroupedImages, numbers: Sequence[int], seen: Observed
    ) -> Float[Tensor, "image neuron"]:
        """Indirect effects of all neurons on the margins, to first order."""
        means = mean_of_neurons(
            self.clip, (p for _, p in self.batches(images, numbers)), list(self.bundle.layers)
        )
        rivals = strongest_rivals(seen.logits, seen.labels)
        toward = self.classes.cpu()[seen.labels] - self.classes.cpu()[rivals]
        rows, start = [], 0
        for part, pixels in self.batches(images, numbers):
            vectors = toward[start : start + len(part)]
            found = attribute(self.clip, pixels, vectors, means)
            rows.append(torch.cat([found[layer].cpu() for layer in self.bundle.layers], 1))
            start += len(part)
        return torch.cat(rows)

    def places(self, units: Sequence[int]) -> list[tuple[int, int]]:
        """(layer, unit) of numbers among the units of all layers."""
        counts = {layer: len(a.directions) for layer, a in self.bundle.layers.items()}
        found = []
        for unit in units:
            for layer, count in counts.items():
                if unit < count:
                    found.append((layer, unit))
                    break
                unit -= count
        return found

    def edit(self, units: Sequence[int]) -> Edit:
        """The mean-ablation of some units."""
        return Edit.ablating(self.bundle, self.places(units))

    def edited(self, edit: Edit) -> Callable[[Tensor], Tensor]:
        """From images to embeddings with the effects of an edit."""
        factors = edit.factors(self.bundle)
        means = {layer: self.bundle.layers[layer].means for layer in factors}
        return lambda pixels: apply_edit(*self.lens(pixels), factors, means)

    def folded(self, edit: Edit, images: GroupedImages, numbers: Sequence[int]) -> ClipModel:
        """The model with an edit in its weights; means are those of the images."""
        factors = edit.factors(self.bundle)
        pixels = (part for _, part in self.batches(images, numbers))
        return fold(self.clip, factors, mean_of_units(self.clip, pixels, list(factors)))


def group_numbers(seen: Observed, known: bool) -> Int[Tensor, " image"]:
    """Class x cue where cues are known, else class x whether the model reads the image rightly."""
    other = seen.cues if known else (seen.logits.argmax(1) != seen.labels).long()
    return seen.labels * (int(other.max()) + 1) + other


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


def controls(
    mender: Mender,
    images: GroupedImages,
    numbers: Sequence[int],
    seen: Observed,
    held: Observed,
    count: int,
    known: bool,
    options: FindOptions,
    draws: int = 50,
    seed: int = 0,
) -> dict[str, list[Float[Tensor, "image class"]]]:
    """Logits of the held-out images under each control; several of those that are drawn.

    Random units and neurons by indirect effect (of a ResNet, with all their heads) are `count`
    units, attention heads as many as cross-validation finds best for them.
    """
    generator = torch.Generator().manual_seed(seed)
    total = held.effects.shape[1]
    found = {
        "random neurons": [
            held.logits - held.effects[:, torch.randperm(total, generator=generator)[:count]].sum(1)
            for _ in range(draws)
        ]
    }
    shares = mender.attributions(images, numbers, seen)
    each = mender.bundle.config.units_per_neuron
    neurons = find(seen, shares, known, options).order[: -(-count // each)]
    units = [neuron * each + head for neuron in neurons for head in range(each)]
    found["neurons by indirect effect"] = [held.logits - held.effects[:, units].sum(1)]
    if seen.heads is not None and held.heads is not None:
        mean = seen.heads.mean(0)
        heads = list(find(seen, unit_margins(seen.heads - mean, seen), known, options).units)
        found["attention heads (TextSpan)"] = [held.logits - (held.heads - mean)[:, heads].sum(1)]
    found["class offsets"] = [held.logits + _offsets(seen, known)]
    found[PROBE] = [_probe(seen, held, known, len(mender.classes))]
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
