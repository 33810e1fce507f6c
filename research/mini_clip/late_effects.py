"""What second-order effects of a ViT's later layers are worth: the accuracy lost without them."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from clipneurons.lens.base import SCALE
from clipneurons.lens.lens import Lens
from clipneurons.models.clip import ClipModel


def later_layers(clip: ClipModel) -> tuple[int, ...]:
    """The later half of the layers, as far as a later attention reads their neurons."""
    return tuple(range(clip.layers // 2, clip.layers - 1))


def lost_accuracy(
    clip: ClipModel,
    images: Float[Tensor, "image 3 height width"],
    classes: Float[Tensor, "class embed"],
    labels: Int[Tensor, " image"],
) -> tuple[float, float]:
    """Shares of the accuracy, in percent, lost by mean-ablating the second-order effects of all
    later layers together, and of the one whose loss is largest (2406.04341, section 3.2).

    images are preprocessed, classes unit rows; means are those of the same images.
    """
    lens = Lens(clip, later_layers(clip))
    embeddings, effects = [], []
    for part in images.split(64):
        representation, contributions = lens(part.to(clip.device))
        embeddings.append(SCALE * representation / representation.norm(dim=-1, keepdim=True))
        effects.append(torch.stack([contributions[layer].sum() for layer in lens.layers]))
    whole, effect = torch.cat(embeddings), torch.cat(effects, 1)  # [layer, image, embed]
    centred = effect - effect.mean(1, keepdim=True)

    def accuracy(rows: Tensor) -> float:
        return float(((rows @ classes.T).argmax(1) == labels).float().mean())

    base = accuracy(whole)
    left = accuracy(whole - centred.sum(0)), min(accuracy(whole - one) for one in centred)
    return tuple(100 * (base - rest) / base for rest in left) if base else (0.0, 0.0)
