"""One lens for every image tower: embeddings, and the effects of units on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from clipneurons.bundle.bundle import Bundle
from clipneurons.bundle.sparse_features import SparseFeatures
from clipneurons.lens.contributions import Contributions
from clipneurons.lens.directions import Directions
from clipneurons.lens.features import FeatureEffects
from clipneurons.lens.neuron_head import LAYER, NeuronHeadEffects
from clipneurons.lens.second_order import SecondOrderEffects
from clipneurons.models.clip import ClipModel
from clipneurons.models.hooks import record_activations
from clipneurons.models.inputs import Images, as_batch

# Layers that are read where none are named: of ViT-B/32 the paper's, 8 to 10. In a model of few
# blocks the early ones do the most.
_LAST, _SHALLOW = 3, 6


class LensResult(NamedTuple):
    """What a lens reads from a batch of images.

    Attributes:
        embedding: image embeddings, not normalised.
        effects: by layer, the effects of its units on each image.
    """

    embedding: Float[Tensor, "image embed"]
    effects: dict[int, Contributions]


class Lens:
    """Reads the effects of a model's units on its image embeddings, in one forward pass.

    A unit is a neuron of a ViT (:class:`~clipneurons.lens.second_order.SecondOrderEffects`), a
    neuron-head pair of a ResNet (:class:`~clipneurons.lens.neuron_head.NeuronHeadEffects`), or,
    with ``features``, a latent of a sparse dictionary.

    Args:
        clip: the model, see :func:`~clipneurons.models.clip.load_clip`.
        layers: MLP layers of a ViT, by default the last three with effects (`default_layers`). A
            ResNet has only its last stage, layer 4. Features name their layer themselves.
        shared_bias: add the published code's share of biases and layer-norm means to each effect
            of a ViT's neuron.
        features: a sparse autoencoder or transcoder, whose latents are read in place of neurons;
            or several, of different layers.

    Raises:
        ValueError: layers that the model has no effects for, features of another model.

    Example:
        >>> lens = cn.Lens(cn.load_clip("ViT-B-32", "openai"), layers=[8, 9, 10])
        >>> lens("cat.jpg").effects[9].norms()  # [image, neuron]
    """

    def __init__(
        self,
        clip: ClipModel,
        layers: Sequence[int] | None = None,
        *,
        shared_bias: bool = False,
        features: SparseFeatures | tuple[SparseFeatures, ...] | None = None,
    ) -> None:
        self.clip = clip
        self.method = _method(clip, layers, shared_bias, features)

    @classmethod
    def of_bundle(cls, clip: ClipModel, bundle: Bundle) -> Lens:
        """The lens on a bundle's units: its layers' neurons, or its features."""
        return cls(clip, bundle.config.layers, features=bundle.features)

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers that are read."""
        return self.method.layers

    @property
    def directions(self) -> dict[int, Directions]:
        """By layer, what each unit writes to the embedding: the weights' part of its effects."""
        return self.method.directions

    @torch.no_grad()
    def __call__(self, images: Images) -> LensResult:
        """Read one image or several.

        Args:
            images: a path, a PIL image, a list of these, or a preprocessed tensor
                ``[image, 3, height, width]``.

        Raises:
            FileNotFoundError: no such file.
            ValueError: an empty list, a file that is no image, a tensor of another size than the
                model's (see `clipneurons.models.larger_images.enlarge`), values that are not
                finite.
        """
        batch = as_batch(self.clip, images)
        with record_activations(self.clip.visual, self.method.recorded) as tensors:
            embedding = self.clip.encode_image(batch)
        return LensResult(embedding, self.method.read(tensors, embedding))

    def __repr__(self) -> str:
        return f"Lens({self.clip.name}, layers={list(self.layers)}, {type(self.method).__name__})"


def default_layers(clip: ClipModel) -> tuple[int, ...]:
    """The last three blocks with effects, as the papers read; of a model of few blocks all."""
    if clip.kind == "resnet":
        return (LAYER,)
    readable = clip.anatomy.readable_blocks
    return tuple(readable if clip.layers <= _SHALLOW else readable[-_LAST:])


def _method(
    clip: ClipModel,
    layers: Sequence[int] | None,
    shared_bias: bool,
    features: SparseFeatures | tuple[SparseFeatures, ...] | None,
) -> SecondOrderEffects | NeuronHeadEffects | FeatureEffects:
    if features is not None:
        method = FeatureEffects(clip, features)
        if layers is not None and tuple(layers) != method.layers:
            raise ValueError(
                f"the features are of layers {list(method.layers)}, not {list(layers)}: leave out "
                "layers"
            )
        return method
    if clip.kind == "vit":
        chosen = default_layers(clip) if layers is None else tuple(layers)
        return SecondOrderEffects(clip, chosen, shared_bias)
    if set(layers or ()) - {LAYER}:
        raise ValueError(f"expected layer {LAYER}, a ResNet's last stage, not {list(layers)}")
    return NeuronHeadEffects(clip)
