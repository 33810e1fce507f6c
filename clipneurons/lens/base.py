"""What all lenses share: one recorded forward pass, the scale of effects, checks of the input."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from clipneurons.lens.contributions import Contributions
from clipneurons.models.clip import ClipModel
from clipneurons.models.hooks import record_activations

# The published scale: effects are given relative to an embedding of norm 100.
SCALE = 100.0


class RecordingLens:
    """Runs the image tower once and computes contributions from the tensors it recorded."""

    clip: ClipModel
    recorded: list[str]

    def read(
        self, tensors: dict[str, Tensor], representation: Float[Tensor, "image embed"]
    ) -> dict[int, Contributions]:
        """Contributions by layer, from the :attr:`recorded` tensors of a forward pass."""
        raise NotImplementedError

    @torch.no_grad()
    def __call__(
        self, images: Float[Tensor, "image 3 height width"]
    ) -> tuple[Float[Tensor, "image embed"], dict[int, Contributions]]:
        """Image embeddings (not normalised), and contributions by layer.

        Raises:
            ValueError: images of another size than the model's (see
                `clipneurons.models.larger_images.enlarge`), values that are not finite.
        """
        size = tuple(images.shape[-2:])
        if size != self.clip.image_size:
            raise ValueError(
                f"expected preprocessed images of {self.clip.image_size} pixels, not {size}: "
                "see `clip.preprocess`"
            )
        with record_activations(self.clip.visual, self.recorded) as tensors:
            representation = self.clip.encode_image(images)
        return representation, self.read(tensors, representation)


def check_finite(representation: Float[Tensor, "image embed"]) -> None:
    """Raise ValueError for NaN and infinite embeddings, which would spoil every statistic."""
    finite = representation.isfinite().all(-1)
    if not finite.all():
        bad = (~finite).nonzero().flatten().tolist()
        raise ValueError(
            f"expected finite activations, image {bad[0]} of the batch gives NaN or infinity "
            f"({len(bad)} of {len(representation)} do): check the image and the precision"
        )


def check_layers(clip: ClipModel, layers: Sequence[int]) -> tuple[int, ...]:
    """The layers, sorted and checked to have second-order effects.

    Raises:
        ValueError: no layer, a layer out of range, or the last one where no probe reads it.
    """
    readable, blocks = clip.anatomy.readable, clip.layers
    last = readable[-1]
    if not layers:
        raise ValueError(f"no layer given: expected some of 0 to {last}")
    for layer in layers:
        if layer == blocks - 1 and layer not in readable:
            raise ValueError(
                f"layer {layer} is the last block of {clip.name}: no later attention reads its "
                f"neurons, so they have no second-order effect. Expected layers 0 to {last}"
            )
        if layer not in readable:
            raise ValueError(
                f"layer {layer} is out of range: {clip.name} has blocks 0 to {blocks - 1}, and "
                f"second-order effects in 0 to {last}"
            )
    return tuple(sorted(set(layers)))
