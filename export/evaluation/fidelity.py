"""How much of the model the bundle's few numbers keep (2406.04341, sections 3 and 4; table 1).

Per layer: classify images from embeddings in which the layer's effects were replaced by their
mean, by their large or small part, by their first component, or by m texts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import sqrt

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from clipneurons.analysis.ablation import ablate
from clipneurons.analysis.omp import omp_sizes, reconstruct
from clipneurons.bundle.bundle import Bundle
from clipneurons.lens.contributions import MeanEffect
from clipneurons.lens.make import make_lens
from clipneurons.models.clip import ClipModel
from clipneurons.stats.intervals import Z95, wilson
from clipneurons.text.embedding import centre
from export.common.errors import UserError
from export.common.settings import SIZES
from export.data.dataset import Source
from export.data.loader import batches


@dataclass
class Tally:
    """Counts of one condition over the images, each against the unchanged embedding."""

    images: int = 0
    labelled: int = 0
    correct: int = 0
    agree: int = 0
    cosine: float = 0.0
    lost: int = 0
    won: int = 0

    def add(self, embeddings, original, classifier, labels) -> None:
        """Add a batch; labels are −1 where unknown."""
        predicted, before = (e @ classifier.T for e in (embeddings, original))
        predicted, before = predicted.argmax(1), before.argmax(1)
        known = labels >= 0
        right, was = (predicted == labels) & known, (before == labels) & known
        self.images += len(labels)
        self.labelled += int(known.sum())
        self.correct += int(right.sum())
        self.agree += int((predicted == before).sum())
        self.lost += int((was & ~right).sum())
        self.won += int((right & ~was).sum())
        self.cosine += float(torch.cosine_similarity(embeddings, original).double().sum())

    def figures(self) -> dict:
        """Accuracy and its change with 95 % intervals, agreement and mean cosine."""
        result = {
            "agreement": self.agree / self.images,
            "agreement_interval": wilson(self.agree, self.images).interval,
            "cosine": self.cosine / self.images,
        }
        if self.labelled:
            change = (self.won - self.lost) / self.labelled
            spread = (self.won + self.lost) / self.labelled - change**2
            half = Z95 * sqrt(max(spread, 0.0) / self.labelled)
            result |= {
                "accuracy": self.correct / self.labelled,
                "accuracy_interval": wilson(self.correct, self.labelled).interval,
                "change": change,
                "change_interval": [change - half, change + half],
            }
        return _rounded(result)


def fidelity(
    bundle: Bundle,
    clip: ClipModel,
    source: Source,
    classifier: Float[Tensor, "class embed"],
    *,
    sizes: tuple[int, ...] = SIZES,
    batch: int = 64,
    workers: int = 1,
    note: Callable[[str], None] = lambda text: None,
) -> dict:
    """Figures of every layer and condition on the source's images.

    `classifier` has a unit row a class (labels index them); without labels only agreement with
    the unchanged model's choice and cosines are given. A pool smaller than all `sizes` is taken
    whole. Raises `UserError` for a bundle with the shared bias, whose mean cannot be told apart
    from the neurons' own, and for images of which none can be read.
    """
    check_bias(bundle)
    lens, device = make_lens(clip, bundle.config.layers), clip.device
    texts = bundle.text_embeddings
    texts = centre(texts) if bundle.config.centred_pool else texts
    texts = torch.nn.functional.normalize(texts, dim=1).to(device)
    most = min(len(texts), clip.embed_dim)
    sizes = tuple(m for m in sizes if m <= most) or (most,)
    layers = {}
    for layer, arrays in bundle.layers.items():
        note(f"phrases of layer {layer}")
        directions = arrays.directions.to(device)
        indices, coefficients = omp_sizes(directions, texts, sizes)
        layers[layer] = {
            "mean": MeanEffect.from_dense(arrays.means.to(device), lens.directions[layer]),
            "threshold": arrays.threshold.to(device),
            "directions": directions,
            "texts": {m: reconstruct(indices[:, :m], coefficients[m], texts) for m in sizes},
        }
    tallies: dict[str, dict[str, Tally]] = {"all": {"baseline": Tally()}}
    for images, labels in _labelled(clip, source, batch, workers):
        representation, contributions = lens(images.to(device))
        labels = labels.to(device)
        for layer, kept in layers.items():
            mine = contributions[layer]
            changed = ablate(
                representation, mine, kept["mean"], kept["threshold"], kept["directions"]
            )
            projections = mine.project(kept["directions"], kept["mean"])
            conditions = {
                "all effects mean-ablated": changed.all_units,
                "large effects mean-ablated": changed.significant,
                "small effects mean-ablated": changed.insignificant,
                "first component": changed.first_component,
            } | {
                f"{m} texts": changed.all_units + projections @ rebuilt
                for m, rebuilt in kept["texts"].items()
            }
            for name, embeddings in conditions.items():
                tally = tallies.setdefault(f"layer {layer}", {}).setdefault(name, Tally())
                tally.add(embeddings, changed.original, classifier, labels)
        tallies["all"]["baseline"].add(representation, representation, classifier, labels)
    if not tallies["all"]["baseline"].images:
        raise UserError(f"none of the images of {source.name} can be read")
    figures = {
        place: {name: tally.figures() for name, tally in conditions.items()}
        for place, conditions in tallies.items()
    }
    baseline, seen = figures.pop("all")["baseline"], tallies["all"]["baseline"]
    unnamed = seen.images - seen.labelled if source.class_names else 0
    known = ("accuracy", "accuracy_interval")
    return {
        "images": source.name,
        "count": seen.images,
        "classes": len(source.class_names),
        **({"without_class": unnamed} if unnamed else {}),
        "baseline": {k: baseline[k] for k in known if k in baseline},
        "layers": figures,
    }


def check_bias(bundle: Bundle) -> None:
    """Refuse a bundle that has no figures, before the images are opened."""
    if bundle.config.shared_bias:
        raise UserError("figures need a bundle without the shared bias: export without it")


def in_words(figures: Mapping) -> str:
    """A line a layer: accuracy where classes are known, else agreement, in every condition."""
    lines = []
    for layer, conditions in figures.get("layers", {}).items():
        kind = "accuracy" if "accuracy" in figures["baseline"] else "agreement"
        whole = figures["baseline"].get("accuracy", 1.0)
        kept = ", ".join(f"{name} {found[kind]:.1%}" for name, found in conditions.items())
        lines.append(f"{layer}  {kind} {whole:.1%} unchanged; {kept}")
    return "\n".join(lines + left_out(figures))


def left_out(figures: Mapping) -> list[str]:
    """A line on the images that say no class, or one beyond the names; none where all say one."""
    if not figures.get("without_class"):
        return []
    return [
        f"labels   {figures['without_class']:,} of {figures['count']:,} images have no class,"
        f" or one beyond the {figures['classes']:,} names: left out of accuracy"
    ]


def _labelled(clip: ClipModel, source: Source, size: int, workers: int) -> Iterator:
    numbers = range(-(-len(source) // size))
    with tqdm(total=len(source), desc="fidelity", unit="images", disable=None) as bar:
        for batch in batches(source, clip.preprocess, numbers, size, workers):
            if batch.images is not None:
                yield batch.images, batch.labels
            bar.update(len(batch.ids) + len(batch.skipped))


def _rounded(figures: dict) -> dict:
    """Six decimals: more would be noise, and differ between machines."""
    return {
        k: [round(x, 6) for x in v] if isinstance(v, list) else round(v, 6)
        for k, v in figures.items()
    }
