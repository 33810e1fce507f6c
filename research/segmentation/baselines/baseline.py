"""What a baseline is: maps of a class by tower, what they need, and what there is to choose.

A method's maps are ``maps(clip, images [image, 3, height, width], texts [class, embed])``, which
returns ``[image, class, row, column]`` on the patch grid; larger means more of the class. Those of
a ResNet take its `Lens` in place of the model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from clipneurons.lens.lens import Lens
from clipneurons.models.clip import ClipModel
from clipneurons.segmentation.patch_attribution import MapMaker

# Of a model's blocks, the last ones: what methods that sum over blocks can choose.
LAST_BLOCKS = {"last": (1 / 6, 1 / 3, 1 / 2, 2 / 3, 5 / 6, 1.0)}


@dataclass(frozen=True)
class Baseline:
    """A published method.

    Attributes:
        vit, resnet: its maps on either kind of tower, if it has any there.
        settings: keyword arguments of the maps, with the values to choose from.
        contrast: the paper centres the texts on those of all classes.
        reads_text: the maps depend on the class.
        class_token: it follows the score to a class token's attention.
        plain_blocks: its rules are for the first CLIP's blocks, neither gated nor rotated.
    """

    name: str
    vit: Callable | None = None
    resnet: Callable | None = None
    settings: Mapping[str, Sequence[float]] = field(default_factory=dict)
    contrast: bool = False
    reads_text: bool = True
    class_token: bool = False
    plain_blocks: bool = False

    def maps(self, clip: ClipModel) -> MapMaker:
        """The method on a model.

        Raises:
            ValueError: a model that it cannot read, with the reason.
        """
        if reason := self.why_not(clip):
            raise ValueError(f"{reason} ({clip.name}): choose another method")
        if clip.kind == "resnet":
            return partial(self.resnet, Lens(clip))
        return partial(self.vit, clip)

    def why_not(self, clip: ClipModel) -> str | None:
        """Why the method cannot read a model, or None where it can."""
        if (self.resnet if clip.kind == "resnet" else self.vit) is None:
            return f"{self.name} is not a method for a {clip.kind}"
        if clip.kind == "resnet":
            return None
        if self.class_token and clip.anatomy.pooling.kind != "token":
            return (
                f"{self.name} follows the score to a class token's attention, this model reads none"
            )
        if self.plain_blocks and not clip.anatomy.plain:
            return f"{self.name} has no rule for gated neurons, rotary positions and further norms"
        return None


def last_blocks(clip: ClipModel, share: float) -> int:
    """How many blocks a share of the last ones is."""
    return max(1, round(share * clip.layers))


def to_grid(
    clip: ClipModel, scores: Float[Tensor, "*map patch"]
) -> Float[Tensor, "*map row column"]:
    """Scores of the patches (without the class token), laid out as the image."""
    return scores.unflatten(-1, clip.grid).float()


def class_gradients(score: Float[Tensor, " image"], wanted: list[Tensor]) -> tuple[Tensor, ...]:
    """Gradients of each image's score by tensors of its forward pass, keeping the graph."""
    return torch.autograd.grad(score.sum(), wanted, retain_graph=True)


def similarities(
    embedding: Float[Tensor, "image embed"], texts: Float[Tensor, "class embed"]
) -> Float[Tensor, "image class"]:
    """Cosine of each image embedding with each class's direction."""
    return F.normalize(embedding.float(), dim=-1) @ texts.T


def read_out(
    clip: ClipModel, tokens: Float[Tensor, "*token width"]
) -> Float[Tensor, "*token embed"]:
    """Tokens after the last block, each taken to the joint space as if it alone was pooled."""
    pooling = clip.anatomy.pooling
    pooled = tokens if pooling.norm is None else pooling.norm(tokens)
    if pooling.attention is not None:
        pooled = pooling.attention.output(pooling.attention.value(pooled))
    if pooling.post is not None:
        pooled = pooling.post(pooled)
    if pooling.mlp is not None:
        mlp = pooling.mlp
        pooled = pooled + mlp(mlp.activations(pooled))
    return pooled if pooling.projection is None else pooling.projection(pooled)
