"""How much of the model the bundle's few numbers keep (2406.04341, sections 3 and 4; table 1).

Per layer: classify images from embeddings in which the layer's effects were replaced by their
mean, by their large or small part, by their first component, or by m texts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from clipneurons.bundle.bundle import Bundle
from clipneurons.bundle.layer_arrays import LayerArrays
from clipneurons.lens.contributions import Contributions, MeanEffect
from clipneurons.lens.directions import Directions
from clipneurons.lens.lens import Lens
from clipneurons.models.clip import ClipModel
from clipneurons.statistics.ablation import ablate
from export.common.errors import UserError
from export.common.pursuit import Pursuit, figure_sizes, pursue, unit_rows
from export.common.settings import SIZES
from export.data.dataset import Source
from export.data.loader import batches
from export.evaluation.tally import Tally


@dataclass(frozen=True)
class Replacements:
    """What the effects of a layer's units are replaced by: `rebuilt` holds the directions that
    the first component is written with, by their number of texts."""

    mean: MeanEffect
    threshold: Float[Tensor, " unit"]
    directions: Float[Tensor, "unit embed"]
    rebuilt: Mapping[int, Float[Tensor, "unit embed"]]

    @classmethod
    def of(
        cls,
        arrays: LayerArrays,
        carried: Directions,
        pursuit: Pursuit,
        texts: Float[Tensor, "text embed"],
        sizes: Iterable[int],
    ) -> Replacements:
        """Those of a layer of a bundle, on the texts' device."""
        device = texts.device
        return cls(
            MeanEffect.from_dense(arrays.means.to(device), carried),
            arrays.threshold.to(device),
            arrays.directions.to(device),
            {size: pursuit.rebuilt(size, texts) for size in sizes},
        )

    def conditions(
        self, representation: Float[Tensor, "image embed"], contributions: Contributions
    ) -> dict[str, Float[Tensor, "image embed"]]:
        """Image embeddings with the layer's effects replaced, by the name of the condition."""
        changed = ablate(representation, contributions, self.mean, self.threshold, self.directions)
        projections = contributions.project(self.directions, self.mean)
        return {
            "all effects mean-ablated": changed.all_units,
            "large effects mean-ablated": changed.significant,
            "small effects mean-ablated": changed.insignificant,
            "first component": changed.first_component,
        } | {
            f"{size} texts": changed.all_units + projections @ rebuilt
            for size, rebuilt in self.rebuilt.items()
        }


def fidelity(
    bundle: Bundle,
    clip: ClipModel,
    source: Source,
    classifier: Float[Tensor, "class embed"],
    *,
    sizes: tuple[int, ...] = SIZES,
    pursuits: Mapping[int, Pursuit] | None = None,
    batch: int = 64,
    workers: int = 1,
) -> dict:
    """Figures of every layer and condition on the source's images.

    `classifier` has a unit row a class (labels index them); without labels only agreement with
    the unchanged model's choice and cosines are given. `pursuits` are the decompositions of each
    layer at all `sizes`, where they are known. A pool smaller than all `sizes` is taken whole.
    Raises `UserError` for a bundle with the shared bias, whose means include it, and for images of
    which none can be read.
    """
    check_bias(bundle)
    lens, device = Lens.of_bundle(clip, bundle), clip.device
    texts = unit_rows(bundle.text_embeddings, bundle.config.centred_pool).to(device)
    sizes = figure_sizes(len(texts), clip.embed_dim, sizes)
    layers = {}
    for layer, arrays in bundle.layers.items():
        known = pursuits[layer] if pursuits else None
        pursuit = known or pursue(arrays.directions, texts, sizes, f"texts of layer {layer}")
        layers[layer] = Replacements.of(arrays, lens.directions[layer], pursuit, texts, sizes)
    baseline, tallies = Tally(), {f"layer {layer}": defaultdict(Tally) for layer in layers}
    for images, labels in _labelled(clip, source, batch, workers):
        representation, contributions = lens(images.to(device))
        labels = labels.to(device)
        for layer, replacements in layers.items():
            changed = replacements.conditions(representation, contributions[layer])
            for name, embeddings in changed.items():
                tally = tallies[f"layer {layer}"][name]
                tally.add(embeddings, representation, classifier, labels)
        baseline.add(representation, representation, classifier, labels)
    if not baseline.images:
        raise UserError(f"none of the images of {source.name} can be read")
    return _figures(source, baseline, tallies)


def _figures(source: Source, baseline: Tally, tallies: Mapping[str, Mapping[str, Tally]]) -> dict:
    """As `metrics.json` has them."""
    unnamed = baseline.images - baseline.labelled if source.class_names else 0
    known = ("accuracy", "accuracy_interval")
    return {
        "images": source.name,
        "count": baseline.images,
        "classes": len(source.class_names),
        **({"without_class": unnamed} if unnamed else {}),
        "baseline": {k: v for k, v in baseline.figures().items() if k in known},
        "layers": {
            place: {name: tally.figures() for name, tally in conditions.items()}
            for place, conditions in tallies.items()
        },
    }


def in_words(figures: Mapping) -> str:
    """A line a layer: accuracy where classes are known, else agreement, in every condition."""
    lines = []
    for layer, conditions in figures.get("layers", {}).items():
        kind = "accuracy" if "accuracy" in figures["baseline"] else "agreement"
        whole = figures["baseline"].get("accuracy", 1.0)
        kept = ", ".join(f"{name} {values[kind]:.1%}" for name, values in conditions.items())
        lines.append(f"{layer}  {kind} {whole:.1%} unchanged; {kept}")
    return "\n".join(lines + left_out(figures))


def left_out(figures: Mapping) -> list[str]:
    """A line on images without a class, or with one beyond the names; none where all have one."""
    if not figures.get("without_class"):
        return []
    return [
        f"labels   {figures['without_class']:,} of {figures['count']:,} images have no class,"
        f" or one beyond the {figures['classes']:,} names: left out of accuracy"
    ]


def check_bias(bundle: Bundle) -> None:
    """Refuse a bundle that has no figures, before the images are opened."""
    if bundle.config.shared_bias:
        raise UserError("figures need a bundle without the shared bias: export without it")


def _labelled(clip: ClipModel, source: Source, size: int, workers: int) -> Iterator:
    numbers = range(-(-len(source) // size))
    with tqdm(total=len(source), desc="fidelity", unit="images", disable=None) as bar:
        for batch in batches(source, clip.preprocess, numbers, size, workers):
            if batch.images is not None:
                yield batch.images, batch.labels
            bar.update(len(batch.ids) + len(batch.skipped))
