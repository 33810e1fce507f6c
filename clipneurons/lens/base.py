"""What all effects share: their scale, and checks of what they are computed from."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from clipneurons.models.clip import ClipModel

# The published scale: effects are given relative to an embedding of norm 100.
SCALE = 100.0


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
