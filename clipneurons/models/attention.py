"""Attention as a lens reads it: how much of each token reaches those that are read further on."""

import torch
from jaxtyping import Float
from torch import Tensor

from clipneurons.models.anatomy import Attention


def class_attention(
    attention: Attention, tokens: Float[Tensor, "image token width"]
) -> Float[Tensor, "image head token"]:
    """The first token's attention to each token, from the block's normalised input."""
    # In float32 whatever the model's precision, as everything that is read off its tensors.
    tokens = tokens.float()
    if attention.plain:
        return probe_attention(attention, attention.query(tokens[:, 0]), tokens)
    queries, keys = attention.queries_keys(tokens)
    return softmax_rows(queries[:, :, :1], keys)[:, :, 0]


def probe_attention(
    attention: Attention,
    query: Float[Tensor, "#image joined"],
    tokens: Float[Tensor, "image token width"],
) -> Float[Tensor, "image head token"]:
    """Attention of a query, its heads joined, to each of the normalised tokens."""
    tokens = tokens.float()
    query = query.float().unflatten(-1, (attention.heads, -1))  # [image, head, rank]
    if attention.key_norm is not None:
        keys = attention.key_norm(attention.split(attention.key(tokens)))
        return softmax_rows(query[:, :, None], keys)[:, :, 0]
    query = query / query.shape[-1] ** 0.5
    key_weight = attention.key.weight.float().unflatten(0, (attention.heads, -1))
    # (W_k x + b_k)·q = x·(W_kᵀ q) + const: the keys of all tokens are never formed.
    folded = torch.einsum("bhr,hrw->bhw", query, key_weight)
    return torch.softmax(folded @ tokens.mT, dim=-1)


def softmax_rows(
    queries: Float[Tensor, "*head query rank"], keys: Float[Tensor, "*head token rank"]
) -> Float[Tensor, "*head query token"]:
    """Each query's attention to all tokens."""
    return torch.softmax(queries @ keys.mT / queries.shape[-1] ** 0.5, dim=-1)


def carried_attention(
    attention: Attention,
    tokens: Float[Tensor, "image token width"],
    reading: Float[Tensor, "image reader query"],
) -> Float[Tensor, "image reader head token"]:
    """Σ_j reading_j · a_ji: how much of token i reaches what reads the first tokens j.

    ``reading`` are weights of the first tokens only: of one, where a class token is read.
    """
    tokens = tokens.float()
    if reading.shape[-1] == 1:
        return reading[..., None] * class_attention(attention, tokens)[:, None]
    queries, keys = attention.queries_keys(tokens)
    queries = queries[:, :, : reading.shape[-1]]
    # [image, query, token] of one head at a time.
    heads = zip(queries.unbind(1), keys.unbind(1), strict=True)
    return torch.stack([reading @ softmax_rows(q, k) for q, k in heads], 2)


def centred_heads(attention: Attention) -> Float[Tensor, "head rank width"]:
    """What each head writes, with its part of the norms' subtraction of the mean."""
    return attention.centred.unflatten(0, (attention.heads, -1))
