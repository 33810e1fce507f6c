"""The lens for either kind of image tower."""

from collections.abc import Sequence

from clipneurons.lens.neuron_head import LAYER, NeuronHeadLens
from clipneurons.lens.second_order import SecondOrderLens
from clipneurons.models.clip import ClipModel

Lens = SecondOrderLens | NeuronHeadLens


def make_lens(clip: ClipModel, layers: Sequence[int] = ()) -> Lens:
    """The lens of a model: call it with images to get embeddings and contributions by layer.

    ``layers`` are MLP layers of a ViT. A ResNet has only its last stage, which may be left out.

    Raises:
        ValueError: layers that the model has no effects for.
    """
    if clip.kind == "vit":
        return SecondOrderLens(clip, tuple(layers))
    if set(layers) - {LAYER}:
        raise ValueError(f"expected layer {LAYER}, a ResNet's last stage, not {list(layers)}")
    return NeuronHeadLens(clip)
