"""How an image tower's pooling reads the final tokens, with its norms of the image as given.

``y = Σ_r Σ_j reading_rj · z_j · carry_r + constants (+ the pooling's own MLP)``, where a reader is
a head of a probe's attention, or the one that reads the class token or averages.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from clipneurons.models.anatomy import Anatomy
from clipneurons.models.attention import probe_attention


def pooling_names(anatomy: Anatomy) -> list[str]:
    """Tensors to record for `read_pooling`."""
    pooling, names = anatomy.pooling, [anatomy.blocks[-1].path]
    if pooling.kind == "probe" and pooling.norm is not None:
        names.append(pooling.norm.path)
    if pooling.post is not None:
        names.append(f"{pooling.post.path}:input")
    return names


@dataclass(frozen=True)
class PooledReading:
    """Weights of the final tokens in the embedding, one row a reader.

    ``weights`` cover the first tokens, all norms taken in; ``sums`` are their sums without the
    norm of the tokens, for what is the same at all of them.
    """

    weights: Float[Tensor, "image reader query"]
    sums: Float[Tensor, "image reader"]


def read_pooling(anatomy: Anatomy, tensors: dict[str, Tensor]) -> PooledReading:
    """What the pooling reads of each final token, from the tensors of `pooling_names`."""
    pooling, tokens = anatomy.pooling, tensors[anatomy.blocks[-1].path]
    if pooling.kind == "token":
        tokens = tokens[:, :1]
        plain = tokens.new_ones(len(tokens), 1, 1, dtype=torch.float32)
    else:
        plain = _over_tokens(anatomy, tensors, tokens)
    weights = plain
    if pooling.norm is not None:
        weights = plain / pooling.norm.sigma(tokens)[:, None]
    sums = plain.sum(-1)
    if pooling.post is not None:
        vector = tensors[f"{pooling.post.path}:input"]
        # CoCa norms all its queries, of which the first is the embedding.
        vector = vector[:, 0] if vector.ndim == 3 else vector
        inverse = pooling.post.sigma(vector).reciprocal()[:, None]
        weights, sums = weights * inverse[..., None], sums * inverse
    return PooledReading(weights, sums)


def _over_tokens(
    anatomy: Anatomy, tensors: dict[str, Tensor], tokens: Float[Tensor, "image token width"]
) -> Float[Tensor, "image reader token"]:
    """Attention of the probe, or equal shares; zero for the tokens before ``start``."""
    pooling = anatomy.pooling
    count = tokens.shape[1] - pooling.start
    if pooling.kind == "mean":
        found = tokens.new_full((len(tokens), 1, count), 1 / count, dtype=torch.float32)
    else:
        normed = tokens if pooling.norm is None else tensors[pooling.norm.path]
        found = probe_attention(pooling.attention, pooling.query[None], normed[:, pooling.start :])
    return torch.nn.functional.pad(found, (pooling.start, 0))


def after_pooling(anatomy: Anatomy, centred: bool = False) -> Float[Tensor, "width embed"]:
    """From the pooled vector to the embedding, but for 1/σ of the norm in between.

    ``centred``: with the norm's subtraction of the mean, which is linear.
    """
    pooling, readout = anatomy.pooling, anatomy.pooling.readout
    return readout if pooling.post is None else _through(pooling.post.weight, readout, centred)


def through_norm(
    anatomy: Anatomy, written: Float[Tensor, "*reader width out"], centred: bool = False
) -> Float[Tensor, "*reader width out"]:
    """The norm of the tokens before what reads them, but for its 1/σ."""
    norm = anatomy.pooling.norm
    return written if norm is None else _through(norm.weight, written, centred)


def _through(gain: Tensor, after: Tensor, centred: bool) -> Tensor:
    read = gain[:, None] * after
    return read - read.mean(-2, keepdim=True) if centred else read


def carry_factors(
    anatomy: Anatomy, centred: bool = False
) -> tuple[Float[Tensor, "reader width rank"], Float[Tensor, "reader rank embed"] | None]:
    """What each reader reads of a vector in a final token, and what it writes of that.

    Without heads the first factor gives the embedding already, and there is no second.
    """
    after = after_pooling(anatomy, centred)
    if anatomy.pooling.attention is None:
        return through_norm(anatomy, after[None], centred), None
    attention = anatomy.pooling.attention
    return through_norm(anatomy, attention.values.mT, centred), attention.written @ after


def carry(anatomy: Anatomy, centred: bool = False) -> Float[Tensor, "reader width embed"]:
    """What a vector in a final token writes to the embedding through each reader."""
    reads, writes = carry_factors(anatomy, centred)
    return reads if writes is None else reads @ writes


def pooled_constant(anatomy: Anatomy, reading: PooledReading) -> Float[Tensor, "image embed"]:
    """What the pooling's own biases write: the same for all tokens."""
    pooling, after = anatomy.pooling, after_pooling(anatomy, centred=True)
    inverse = reading.sums[:, :1]  # 1/σ of the last norm: attention and means sum to 1
    width = len(after)
    vector = after.new_zeros(width) if pooling.norm is None else pooling.norm.bias
    if pooling.attention is not None:
        attention = pooling.attention
        heads = torch.einsum("hrw,w->hr", attention.values, vector) if pooling.norm else 0.0
        vector = torch.einsum("hr,hrw->w", heads + attention.value_bias, attention.written)
        vector = vector + attention.output.offset
    total = inverse * (vector @ after)
    if pooling.post is not None:
        total = total + pooling.post.bias @ pooling.readout
    if pooling.mlp is not None:
        total = total + pooling.mlp.output.offset @ pooling.readout
    if pooling.projection is not None and pooling.projection.bias is not None:
        total = total + pooling.projection.bias.float()
    return total
