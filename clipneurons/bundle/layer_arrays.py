"""What a bundle knows of a layer's units: `neurons.safetensors`, `decomposition.safetensors`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from clipneurons.bundle.config import BundleConfig, BundleDamaged
from clipneurons.bundle.storage import along, narrow, read_fields, read_tensor, within
from clipneurons.bundle.weaker_images import weaker_problems

_NEURON_TENSORS = (
    "directions",
    "means",
    "percentile",
    "threshold",
    "explained_variance",
    "top_norms",
    "top_activating_images",
    "norm_histogram",
    "participation_ratio",
)
WEAKER = ("middle_images", "weak_images")
_STORED_HALF = ("directions", "means", "top_norms")
# In place of means that lie along the directions: their lengths.
_MEAN_SIZES = "mean_sizes"


@dataclass(frozen=True, eq=False)
class LayerArrays:
    """What is known of every unit of one layer; N units, d embedding, k kept effects, m phrases.

    directions            r_n, unit rows; a zero row is a dead unit (its effect never varies)
    means                 b_n, mean effect over the data set
    percentile            98th percentile (`config.percentile`) of ‖φ_n(I) − b_n‖ over the images
    threshold             k-th largest ‖φ_n(I) − b_n‖
    explained_variance    share of the k centred effects' squared norm along r_n, in [0, 1]
    top_norms, top_activating_images
                          the k largest ‖φ_n(I) − b_n‖, descending, and the images; −1 pads
    norm_histogram        number of images a bin of `config.norm_edges`
    participation_ratio   (Σ‖φ‖²)² / (D Σ‖φ‖⁴) of the centred effects: share of images that carry it
    indices, coefficients r_n ≈ Σ_j coefficients[n, j] · text_embeddings[indices[n, j]],
                          |coefficients| descending
    middle_images, weak_images
                          of the pictures `weaker_images.sampled`, by their places, a few of the
                          middle of ‖φ_n(I) − b_n‖ over the data set, and of what is below; −1 pads;
                          None where the export did not look
    """

    directions: Float[Tensor, "unit embed"]
    means: Float[Tensor, "unit embed"]
    percentile: Float[Tensor, " unit"]
    threshold: Float[Tensor, " unit"]
    explained_variance: Float[Tensor, " unit"]
    top_norms: Float[Tensor, "unit top"]
    top_activating_images: Int[Tensor, "unit top"]
    norm_histogram: Int[Tensor, "unit bin"]
    participation_ratio: Float[Tensor, " unit"]
    indices: Int[Tensor, "unit component"]
    coefficients: Float[Tensor, "unit component"]
    middle_images: Int[Tensor, "unit few"] | None = None
    weak_images: Int[Tensor, "unit few"] | None = None

    def mean_top_norm(self, unit: int) -> float:
        """Mean of a unit's k largest ‖φ_n(I) − b_n‖; 0 where none is kept."""
        kept = self.top_norms[unit][self.top_activating_images[unit] >= 0]
        return float(kept.mean()) if len(kept) else 0.0


@dataclass(frozen=True)
class LayerTensors:
    """A layer's tensors by their names in the two files."""

    neurons: dict[str, Tensor]
    decomposition: dict[str, Tensor]


def to_tensors(arrays: LayerArrays, layer: int, half: bool = False) -> LayerTensors:
    """As they are stored; the same arrays give the same tensors. `half`: in float16."""
    neurons = {}
    for name in _NEURON_TENSORS:
        neurons[name] = narrow(getattr(arrays, name), half and name in _STORED_HALF)
    if half and (sizes := along(arrays.means, arrays.directions)) is not None:
        del neurons["means"]
        neurons[_MEAN_SIZES] = sizes.half()
    for name in WEAKER:
        if (places := getattr(arrays, name)) is not None:
            neurons[name] = narrow(places)
    decomposition = {
        "indices": narrow(arrays.indices), "coefficients": narrow(arrays.coefficients, half),
    }  # fmt: skip
    return LayerTensors(_of_layer(layer, neurons), _of_layer(layer, decomposition))


def _of_layer(layer: int, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"layer{layer}.{name}": value.contiguous() for name, value in tensors.items()}


def from_tensors(
    neurons: Mapping[str, Tensor], decomposition: Mapping[str, Tensor], layer: int
) -> LayerArrays:
    """The inverse of `to_tensors`; `KeyError` names a tensor that is missing."""
    prefix, sizes = f"layer{layer}.", f"layer{layer}.{_MEAN_SIZES}"
    stored = {**neurons, **decomposition}
    if sizes in stored:
        directions = read_tensor(stored, f"{prefix}directions", Float[Tensor, "unit embed"])
        lengths = read_tensor(stored, sizes, Float[Tensor, " unit"])
        if len(lengths) != len(directions):
            raise BundleDamaged(f"{sizes} has {len(lengths)} values for {len(directions)} units")
        stored[f"{prefix}means"] = lengths[:, None] * directions
    return LayerArrays(**read_fields(LayerArrays, stored, prefix))


def problems(arrays: LayerArrays, config: BundleConfig, texts: int, pictures: int) -> list[str]:
    """What is wrong with a layer, in words: shapes, values, texts and pictures not there."""
    wrong = []
    units, k, m = len(arrays.directions), config.top_k, config.components
    expected = {
        "directions": (units, config.embed_dim),
        "means": (units, config.embed_dim),
        **dict.fromkeys(("percentile", "threshold"), (units,)),
        **dict.fromkeys(("explained_variance", "participation_ratio"), (units,)),
        **dict.fromkeys(("top_norms", "top_activating_images"), (units, k)),
        "norm_histogram": (units, len(config.norm_edges) - 1),
        **dict.fromkeys(("indices", "coefficients"), (units, m)),
    }
    for name, shape in expected.items():
        value = getattr(arrays, name)
        if tuple(value.shape) != shape:
            wrong.append(f"{name} is {tuple(value.shape)}, expected {shape}")
        elif value.is_floating_point() and not bool(value.isfinite().all()):
            wrong.append(f"{name} holds values that are not finite")
    if not units or units % config.units_per_neuron:
        wrong.append(f"has {units} units, {config.units_per_neuron} a neuron")
    images = config.data.count + config.data.skipped  # skipped images keep their numbers
    if not within(arrays.top_activating_images, -1, images):
        wrong.append(f"top_activating_images point outside the {images} images")
    if not within(arrays.norm_histogram, 0, 2**31):
        wrong.append("norm_histogram counts below 0")
    if not within(arrays.indices, 0, texts):
        wrong.append(f"indices point outside the {texts} texts")
    norms = arrays.directions.norm(dim=1)
    if bool((((norms - 1).abs() > 1e-3) & (norms > 0)).any()):
        wrong.append("directions are neither unit nor zero rows")
    return wrong + weaker_problems((arrays.middle_images, arrays.weak_images), units, pictures)
