"""What the lenses need to know of an image tower, whatever library it comes from.

Residual blocks write to a stream of tokens, a pooling reads it out:

    block    z += outer(W_O · attention(norm(z))),   z += mlp_outer(W_out · p(mlp_norm(z)))
    pooling  y = project(o + mlp(o)),         o = post_norm(Σ_i a_i value(norm(z_i)))

Blocks normalise what they read (pre-norm) or what they write (post-norm); norms that a family
does not have are None. An adapter (`clipneurons.models.adapters`) gives this description of one
family of modules.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class UnsupportedModel(ValueError):
    """The model's image tower is not one whose neurons this library reads exactly."""


@dataclass(frozen=True)
class Affine:
    """``x -> weight · x + bias``; a scale of the outputs (LayerScale) is part of both."""

    weight: Float[Tensor, "out in"]
    bias: Float[Tensor, " out"] | None = None

    def __call__(self, inputs: Float[Tensor, "*token in"]) -> Float[Tensor, "*token out"]:
        """In the inputs' precision."""
        bias = None if self.bias is None else self.bias.to(inputs.dtype)
        return F.linear(inputs, self.weight.to(inputs.dtype), bias)

    @property
    def offset(self) -> Float[Tensor, " out"]:
        """The bias in float32; zero where there is none."""
        if self.bias is None:
            return self.weight.new_zeros(len(self.weight), dtype=torch.float32)
        return self.bias.float()

    @classmethod
    def of(cls, linear: nn.Linear, scale: Float[Tensor, " out"] | None = None) -> "Affine":
        """A linear layer, and the scale that its outputs are multiplied by."""
        if scale is None:
            return cls(linear.weight, linear.bias)
        bias = None if linear.bias is None else scale * linear.bias
        return cls(scale[:, None] * linear.weight, bias)


@dataclass(frozen=True)
class Norm:
    """A layer norm, and its path in the tower, where its inputs and outputs are recorded."""

    module: nn.LayerNorm
    path: str

    def __call__(self, inputs: Float[Tensor, "*token width"]) -> Float[Tensor, "*token width"]:
        """The normalised inputs."""
        return self.module(inputs)

    @property
    def weight(self) -> Float[Tensor, " width"]:
        """The gain, in float32."""
        return self.module.weight.float()

    @property
    def bias(self) -> Float[Tensor, " width"]:
        """What is added after the gain, in float32."""
        return self.module.bias.float()

    def sigma(self, inputs: Float[Tensor, "*token width"]) -> Float[Tensor, "*token"]:
        """What the norm divides each token by: sqrt(variance + eps)."""
        return self.moments(inputs)[1]

    def moments(
        self, inputs: Float[Tensor, "*token width"]
    ) -> tuple[Float[Tensor, "*token"], Float[Tensor, "*token"]]:
        """Mean and sqrt(variance + eps) of each token."""
        inputs, eps = inputs.float(), self.module.eps
        # On a CPU four times as fast as `var_mean`.
        _, mean, inverse = torch.native_layer_norm(inputs, inputs.shape[-1:], None, None, eps)
        return mean[..., 0], inverse[..., 0].reciprocal()

    def linear(self, parts: Float[Tensor, "*part width"]) -> Float[Tensor, "*part width"]:
        """What the norm makes of parts of its inputs, but for its 1/σ and bias."""
        return self.weight * (parts - parts.mean(-1, keepdim=True))


class _Branch:
    """What attention and MLPs share: ``outer(output(inner(values)))`` is added to the stream."""

    output: Affine
    inner: Norm | None
    outer: Norm | None

    def __call__(self, values: Float[Tensor, "*token in"]) -> Float[Tensor, "*token width"]:
        """What activations, or joined heads, write together."""
        written = self.output(values if self.inner is None else self.inner(values))
        return written if self.outer is None else self.outer(written)

    @property
    def norms(self) -> tuple[Norm, ...]:
        """The norms that there are."""
        return tuple(norm for norm in (self.inner, self.outer) if norm is not None)

    @property
    def gained(self) -> Float[Tensor, "in width"]:
        """What each value writes, the gains of the norms taken in, in float32."""
        weight = self.output.weight.float().T
        if self.inner is not None:
            weight = self.inner.weight[:, None] * weight
        return weight if self.outer is None else self.outer.weight * weight

    @property
    def centred(self) -> Float[Tensor, "in width"]:
        """The same with each value's part of the norms' subtraction of the mean."""
        weight = self.output.weight.float().T
        if self.inner is not None:
            weight = self.inner.weight[:, None] * weight
            weight = weight - weight.mean(0)
        return weight if self.outer is None else self.outer.linear(weight)


@dataclass(frozen=True)
class Attention(_Branch):
    """Multi-head attention: value and output weights by head, and how tokens attend.

    ``rotate`` turns queries and keys by their position (rotary embeddings), ``query_norm`` and
    ``key_norm`` normalise them. ``inner`` is a norm over the joined heads, before the output,
    ``outer`` one of what is written. A pooling that brings its own query has none here.
    """

    heads: int
    query: Affine | None
    key: Affine
    value: Affine
    output: Affine
    rotate: Callable[[Tensor], Tensor] | None = None
    query_norm: nn.Module | None = None
    key_norm: nn.Module | None = None
    inner: Norm | None = None
    outer: Norm | None = None

    @property
    def values(self) -> Float[Tensor, "head rank width"]:
        """Value weights by head, in float32."""
        return self.value.weight.float().unflatten(0, (self.heads, -1))

    @property
    def value_bias(self) -> Float[Tensor, "head rank"]:
        """Value biases by head, in float32; zero where there are none."""
        return self.value.offset.unflatten(0, (self.heads, -1))

    @property
    def written(self) -> Float[Tensor, "head rank width"]:
        """What each head writes, the gains of the norms taken in, in float32."""
        return self.gained.unflatten(0, (self.heads, -1))

    @property
    def written_centred(self) -> Float[Tensor, "head rank width"]:
        """The same with each head's part of the norms' subtraction of the mean."""
        return self.centred.unflatten(0, (self.heads, -1))

    @property
    def plain(self) -> bool:
        """Queries and keys are linear in the tokens."""
        return self.rotate is None and self.query_norm is None and self.key_norm is None

    def queries_keys(
        self, tokens: Float[Tensor, "image token width"]
    ) -> tuple[Float[Tensor, "image head token rank"], Float[Tensor, "image head token rank"]]:
        """Queries and keys by head, normalised and turned as the model has them."""
        found = []
        for project, norm in ((self.query, self.query_norm), (self.key, self.key_norm)):
            part = self.split(project(tokens))
            part = part if norm is None else norm(part)
            found.append(part if self.rotate is None else self.rotate(part))
        return tuple(found)

    def split(
        self, joined: Float[Tensor, "image token width"]
    ) -> Float[Tensor, "image head token rank"]:
        """Joined heads, one by one."""
        return joined.unflatten(-1, (self.heads, -1)).transpose(1, 2)


@dataclass(frozen=True)
class Mlp(_Branch):
    """Neurons: ``hidden`` gives their activations, ``output`` holds what each writes.

    ``path`` is where the activations are recorded. ``inner`` is a norm of the activations,
    ``outer`` one of what they write. ``input`` is the layer before the activation, None where the
    activation gates another.
    """

    norm: Norm | None
    hidden: Callable[[Tensor], Tensor]
    path: str
    output: Affine
    input: Affine | None = None
    inner: Norm | None = None
    outer: Norm | None = None

    def activations(self, tokens: Float[Tensor, "*token width"]) -> Float[Tensor, "*token neuron"]:
        """Activations of the neurons on tokens of the stream."""
        return self.hidden(tokens if self.norm is None else self.norm(tokens))


@dataclass(frozen=True)
class Block:
    """One residual block; ``run`` is the module itself."""

    path: str
    norm: Norm | None
    attention: Attention
    mlp: Mlp
    run: Callable[[Tensor], Tensor]

    @property
    def inputs(self) -> str:
        """Where the tokens that enter the block are recorded."""
        return f"{self.path}:input"

    @property
    def normed(self) -> str:
        """Where they are recorded as attention reads them."""
        return self.inputs if self.norm is None else self.norm.path


@dataclass(frozen=True)
class Pooling:
    """How the final tokens become one vector.

    ``kind``: "token" reads the first token, "mean" averages those from ``start`` on, "probe"
    attends to those from ``start`` on with a fixed ``query``. ``norm`` normalises the tokens
    before, ``post`` the vector after; ``mlp`` is a residual layer on that vector.
    """

    kind: Literal["token", "mean", "probe"]
    norm: Norm | None
    start: int = 0
    attention: Attention | None = None
    query: Float[Tensor, " width"] | None = None
    post: Norm | None = None
    mlp: Mlp | None = None
    projection: Affine | None = None

    @property
    def readout(self) -> Float[Tensor, "width embed"]:
        """From the pooled vector to the embedding, in float32; the identity where none is."""
        if self.projection is not None:
            return self.projection.weight.float().T
        weight = (self.mlp.output if self.mlp is not None else self.attention.output).weight
        return torch.eye(len(weight), device=weight.device)


@dataclass(frozen=True)
class Anatomy:
    """An image tower of residual blocks; ``embed`` and ``read_out`` are its own modules.

    ``prefix`` is the number of tokens before the patches, which are laid out on ``grid``.
    """

    blocks: tuple[Block, ...]
    pooling: Pooling
    prefix: int
    grid: tuple[int, int]
    activation: Literal["gelu", "gelu_tanh", "quick_gelu", "swiglu"]
    embed: Callable[[Tensor], Tensor]
    read_out: Callable[[Tensor], Tensor]

    @property
    def heads(self) -> int:
        """Attention heads of each block."""
        return self.blocks[0].attention.heads

    @property
    def neurons(self) -> int:
        """Neurons of each block's MLP."""
        return self.blocks[0].mlp.output.weight.shape[1]

    @property
    def pooling_layer(self) -> int | None:
        """Number of the pooling's own MLP, counted on from the blocks; None where it has none."""
        return None if self.pooling.mlp is None else len(self.blocks)

    @property
    def readable(self) -> range:
        """Layers whose neurons something reads afterwards: a later block, or a probe."""
        if self.pooling.kind == "probe":
            return range(len(self.blocks) + (self.pooling.mlp is not None))
        return range(len(self.blocks) - 1)

    @property
    def readable_blocks(self) -> list[int]:
        """The blocks among them: all but the pooling's own MLP."""
        return [layer for layer in self.readable if layer != self.pooling_layer]

    def readers(self, layer: int) -> int:
        """Heads that read the neurons of a layer."""
        if self.pooling.kind == "probe":
            return 1 if layer == self.pooling_layer else self.pooling.attention.heads
        return (len(self.blocks) - 1 - layer) * self.heads

    @property
    def plain(self) -> bool:
        """The blocks are those of the first CLIP: linear queries and keys, ungated neurons."""
        return all(
            block.attention.plain
            and block.mlp.input
            and not block.attention.norms + block.mlp.norms
            for block in self.blocks
        )

    def mlp(self, layer: int) -> Mlp:
        """The MLP of a layer, the pooling's own counted as the last."""
        return self.pooling.mlp if layer == self.pooling_layer else self.blocks[layer].mlp
