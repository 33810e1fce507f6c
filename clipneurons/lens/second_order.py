"""Second-order effects of ViT neurons: equation 7 of arXiv 2406.04341.

What neuron n of layer l adds to the embedding of image I through all later attention:

    φ_n^l(I)      = Σ_{l'>l} Σ_h  s_n^{l',h}(I) · d_n^{l',h}

    s_n^{l',h}(I) = 100/‖M(I)‖ · 1/σ_post · Σ_i a_i^{l',h} p_i^{l,n} / σ_i^{l'}            score
    d_n^{l',h}    = Pᵀ diag(γ_post) · W_O^{l',h} W_V^{l',h} · diag(γ^{l'}) · w_n^l         direction

of T tokens i, N neurons n a layer, H heads h of rank R, width W and embedding size D:

    M(I)             [D]        the image embedding, not normalised (100/‖M(I)‖: published scale)
    p^{l}            [T, N]     activations of the neurons, after the nonlinearity
    w^l              [N, W]     what each neuron writes: the columns of the MLP's output weights
    a^{l'}           [H, T]     attention of the class token to each token in block l'
    W_V, W_O         [H, R, W], [H, W, R]     value and output weights of block l', by head
    γ^{l'}, σ^{l'}   [W], [T]   gain and sqrt(variance + eps) of the layer norm before attention
    γ_post, σ_post   [W], 1     the same of the last layer norm, at the class token
    P                [W, D]     the projection to the joint space

How this differs from the paper and its published code:

- **Factored.** The code adds up one [D] vector for each image, token, neuron, block and head. Here
  scores depend on the image and directions on the weights alone. `Contributions` computes norms,
  sums and projections from these factors.
- **Own part.** φ is what the neuron itself writes. The code adds c^l(I), an equal share of all
  biases and layer-norm means (appendix A.5), which is the same vector for every neuron of a layer.
  ``shared_bias=True`` adds it too: see `SecondOrderEffects._shared_bias`.
- **Frozen norms.** As in the paper σ is that of the whole forward pass. The means that layer norms
  subtract are in c^l(I) only: directions are not centred.
- **More towers.** Where final tokens j are averaged, a_i / σ_post becomes Σ_j r_j a_ji with the
  weights r of `pooling_weights`. Where a probe attends to the final tokens, (l', h) are the
  probe's heads, which read the last block too; a hidden neuron of the MLP behind it writes straight
  to the embedding, with its activation as its score. Further norms divide a by their σ and multiply
  the weights by their gain.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from clipneurons.lens.base import SCALE, check_finite, check_layers
from clipneurons.lens.contributions import (
    Contributions,
    ScoredContributions,
    SpatialContributions,
)
from clipneurons.lens.directions import HeadDirections
from clipneurons.models.anatomy import Anatomy, Attention, Block
from clipneurons.models.clip import ClipModel


@dataclass(frozen=True)
class SecondOrderEffects:
    """Second-order effects of the neurons of chosen layers, from what `Lens` records.

    The heads of a contribution are ordered by later block, then head. With ``shared_bias`` they
    include the published code's share of biases and layer-norm means.

    Raises:
        ValueError: a ResNet, a layer without second-order effects (`check_layers`), a shared bias
            of a tower that the published code does not read.
    """

    clip: ClipModel
    layers: tuple[int, ...]
    shared_bias: bool = False

    def __post_init__(self) -> None:
        if self.clip.kind != "vit":
            raise ValueError(f"expected a ViT, {self.clip.name} is a {self.clip.kind}: see `Lens`")
        object.__setattr__(self, "layers", check_layers(self.clip, self.layers))
        blocks, pooling = self.clip.anatomy.blocks, self.clip.anatomy.pooling
        normed = any(block.attention.norms + block.mlp.norms for block in blocks)
        if self.shared_bias and (pooling.kind != "token" or normed):
            raise ValueError(
                "the shared bias is defined for plain ViTs that read a class token, "
                f"{self.clip.name} is none: leave it out"
            )

    @cached_property
    def directions(self) -> dict[int, HeadDirections]:
        """By layer, d: what each neuron writes to the embedding through each head."""
        anatomy = self.clip.anatomy
        return {
            layer: HeadDirections.of(anatomy.mlp(layer).gained[None], anatomy.pooling.readout[None])
            if layer == anatomy.pooling_layer
            else self._heads.directions(anatomy.mlp(layer).gained, anatomy.readers(layer))
            for layer in self.layers
        }

    @cached_property
    def _heads(self) -> "ReadingHeads":
        return ReadingHeads(self.clip.anatomy, self.layers[0] + 1)

    @property
    def recorded(self) -> list[str]:
        """Names of the tensors that :meth:`read` needs."""
        names = self._heads.recorded
        for mlp in map(self.clip.anatomy.mlp, self.layers):
            names += [mlp.path, *(f"{norm.path}:input" for norm in mlp.norms)]
        return names

    def read(
        self, tensors: dict[str, Tensor], representation: Float[Tensor, "image embed"]
    ) -> dict[int, Contributions]:
        """Contributions from the :attr:`recorded` tensors of a forward pass."""
        check_finite(representation)
        anatomy = self.clip.anatomy
        scale = SCALE / representation.norm(dim=-1)  # [image]
        attention = self._heads.attention_by_sigma(tensors)  # of each block [image, head, token]
        weights = torch.cat(attention, 1) * scale[:, None, None]  # [image, head, token]
        contributions = {}
        for layer in self.layers:
            mlp, directions = anatomy.mlp(layer), self.directions[layer]
            activations = tensors[mlp.path].float()  # [image, token, neuron]
            pooled = layer == anatomy.pooling_layer  # its one token is the pooled vector
            read = scale[:, None, None] if pooled else weights[:, -directions.heads :]
            for norm in mlp.norms:
                read = read / norm.sigma(tensors[f"{norm.path}:input"])[:, None]
            bias = None
            if self.shared_bias:
                bias = scale[:, None] * self._shared_bias(layer, tensors, attention)
            # s: the sum over tokens, read [image, head, token] with activations.
            if pooled:
                scores = torch.bmm(activations.mT, read.mT)  # [image, neuron, 1]
                contributions[layer] = ScoredContributions(scores, directions, bias)
            else:
                contributions[layer] = SpatialContributions(
                    activations, read, directions, bias, anatomy.prefix
                )
        return contributions

    def _shared_bias(
        self,
        layer: int,
        tensors: dict[str, Tensor],
        attention: list[Float[Tensor, "image head token"]],
    ) -> Float[Tensor, "image embed"]:
        """c^l(I) without its scale: each neuron's share of biases and layer-norm means.

        The published code's version of appendix A.5, summed over l' > l and h, where the inputs
        of block l' are a sum of nt = (1 + 2l')·N terms and those of the last norm one of
        nt_post = nt·(1 + 2L)·H:

            e_i = γ^{l'} (b_mlp/N − μ_i/nt)/σ_i + β^{l'}/nt
            v   = W_V^h Σ_i a_i e_i + b_V^h/nt
            o   = W_O^h v + b_O/(nt·H)
            c  += Pᵀ (γ_post (o − μ_post/nt_post)/σ_post + β_post/nt_post)
        """
        anatomy = self.clip.anatomy
        heads, neurons, blocks = anatomy.heads, anatomy.neurons, anatomy.blocks
        post = anatomy.pooling.norm or anatomy.pooling.post
        mu_post, sigma_post = post.moments(tensors[blocks[-1].path][:, :1])  # [image, 1] both
        mu_post, sigma_post = mu_post[..., None], sigma_post[..., None]  # [image, 1, 1]
        b_mlp = anatomy.mlp(layer).output.offset  # [width]
        total = 0.0
        for index in range(layer + 1, len(blocks)):
            norm, attend = blocks[index].norm, blocks[index].attention
            nt = (1 + 2 * index) * neurons
            nt_post = nt * (1 + 2 * len(blocks)) * heads
            mu = norm.moments(tensors[blocks[index].inputs])[0]  # [image, token]
            a_sigma = attention[index - self.layers[0] - 1] * sigma_post  # [image, head, token]
            # Σ_i a_i e_i: attention sums to 1, b_mlp is the same in all tokens.
            from_mlp = b_mlp / neurons * a_sigma.sum(-1, keepdim=True)  # [image, head, width]
            from_mean = (a_sigma @ mu[..., None]) / nt  # [image, head, 1]
            e = norm.weight * (from_mlp - from_mean) + norm.bias / nt  # [image, head, width]
            v = torch.einsum("hrw,bhw->bhr", attend.values, e)  # [image, head, rank]
            v = v + attend.value_bias / nt
            o = torch.einsum("hrw,bhr->bhw", attend.written, v)  # [image, head, width]
            o = o + attend.output.offset / (nt * heads)
            c = post.weight * (o - mu_post / nt_post) / sigma_post + post.bias / nt_post
            total = total + c.sum(1) @ anatomy.pooling.readout  # [image, embed]
        return total


@dataclass(frozen=True)
class ReadingHeads:
    """The heads that carry what stands in the stream to the embedding.

    Those of the blocks from ``first`` on, ordered by block, then head; where a probe pools the
    final tokens, the probe's heads.
    """

    anatomy: Anatomy
    first: int

    @property
    def blocks(self) -> tuple[Block, ...]:
        """Blocks whose attention reads; none where a probe does."""
        return () if self.anatomy.pooling.kind == "probe" else self.anatomy.blocks[self.first :]

    @property
    def recorded(self) -> list[str]:
        """Names of the tensors that :meth:`attention_by_sigma` needs."""
        names = pooling_names(self.anatomy)
        for block in self.blocks:
            names += attention_names(block)
        return names

    @cached_property
    def weights(
        self,
    ) -> tuple[Float[Tensor, "head rank width"], Float[Tensor, "head rank embed"]]:
        """W_V diag(γ), and W_O on to the embedding, of all heads."""
        anatomy = self.anatomy
        if anatomy.pooling.kind == "probe":
            readers = [(anatomy.pooling.norm, anatomy.pooling.attention)]
            to_embedding = after_pooling(anatomy)  # [width, embed]
        else:
            readers = [(block.norm, block.attention) for block in self.blocks]
            to_embedding = carry(anatomy)[0]  # [width, embed]
        w_value = [
            attention.values if norm is None else attention.values * norm.weight
            for norm, attention in readers
        ]
        w_output = [attention.written @ to_embedding for _, attention in readers]
        return torch.cat(w_value), torch.cat(w_output)

    def directions(
        self, w_out: Float[Tensor, "unit width"], heads: int | None = None
    ) -> HeadDirections:
        """What units that write ``w_out`` to the stream write to the embedding.

        ``heads``: the last so many of them, where later blocks alone read the units.
        """
        w_value, w_output = (weight[-(heads or 0) :] for weight in self.weights)

        def values(units: Int[Tensor, " chosen"] | slice) -> Float[Tensor, "head chosen rank"]:
            return torch.matmul(w_out[units], w_value.mT)

        return HeadDirections(values, w_output, len(w_out))

    def attention_by_sigma(
        self, tensors: dict[str, Tensor]
    ) -> list[Float[Tensor, "image head token"]]:
        """a / (σ · σ_post) of each block, or of the probe."""
        pooled = pooling_weights(self.anatomy, tensors)  # [image, reader, query]
        if self.anatomy.pooling.kind == "probe":
            return [pooled]
        by_block = []
        for block in self.blocks:
            attention = attention_to_values(block, tensors, pooled)[:, 0]  # [image, head, token]
            if block.norm is not None:
                attention = attention / block.norm.sigma(tensors[block.inputs])[:, None]
            by_block.append(attention)
        return by_block


# Attention: how much of the value of each token reaches what is read further on.


def attention_names(block: Block) -> list[str]:
    """Tensors to record for `attention_to_values`."""
    inside = (f"{norm.path}:input" for norm in block.attention.norms)
    return [block.inputs, block.normed, *inside]


def attention_to_values(
    block: Block, tensors: dict[str, Tensor], pooled: Float[Tensor, "image reader query"]
) -> Float[Tensor, "image reader head token"]:
    """Σ_j pooled_j · a_ji: how much of token i's value each head brings to what is pooled.

    ``pooled`` are weights of the first tokens j only: of one, where the class token is read.
    """
    for norm in block.attention.norms:
        queries = tensors[f"{norm.path}:input"][:, : pooled.shape[-1]]
        pooled = pooled / norm.sigma(queries)[:, None]  # [image, reader, query]
    # In float32 whatever the model's precision, as everything that is read off its tensors.
    tokens = tensors[block.normed].float()  # [image, token, width]
    if pooled.shape[-1] == 1:
        attention = class_attention(block.attention, tokens)  # [image, head, token]
        return pooled[..., None] * attention[:, None]  # [image, reader, head, token]
    queries, keys = block.attention.queries_keys(tokens)  # [image, head, token, rank] both
    queries = queries[:, :, : pooled.shape[-1]]  # [image, head, query, rank]
    by_head = zip(queries.unbind(1), keys.unbind(1), strict=True)
    # [image, query, token] of one head at a time.
    return torch.stack([pooled @ _softmax_rows(q, k) for q, k in by_head], 2)


def class_attention(
    attention: Attention, tokens: Float[Tensor, "image token width"]
) -> Float[Tensor, "image head token"]:
    """The first token's attention to each of the normalised tokens."""
    if attention.plain:
        return query_attention(attention, attention.query(tokens[:, 0]), tokens)
    queries, keys = attention.queries_keys(tokens)  # [image, head, token, rank] both
    return _softmax_rows(queries[:, :, :1], keys)[:, :, 0]  # [image, head, token]


def query_attention(
    attention: Attention,
    query: Float[Tensor, "#image joined"],
    tokens: Float[Tensor, "image token width"],
) -> Float[Tensor, "image head token"]:
    """Attention of one query, its heads joined, to each of the normalised tokens."""
    tokens = tokens.float()
    query = query.float().unflatten(-1, (attention.heads, -1))  # [image, head, rank]
    if attention.key_norm is not None:
        keys = attention.key_norm(attention.split(attention.key(tokens)))
        return _softmax_rows(query[:, :, None], keys)[:, :, 0]  # [image, head, token]
    query = query / query.shape[-1] ** 0.5
    w_key = attention.key.weight.float().unflatten(0, (attention.heads, -1))  # [head, rank, width]
    # (W_k x + b_k)·q = x·(W_kᵀ q) + const: the keys of all tokens are never formed.
    folded = torch.einsum("bhr,hrw->bhw", query, w_key)  # [image, head, width]
    return torch.softmax(folded @ tokens.mT, dim=-1)  # [image, head, token]


def _softmax_rows(
    queries: Float[Tensor, "*head query rank"], keys: Float[Tensor, "*head token rank"]
) -> Float[Tensor, "*head query token"]:
    return torch.softmax(queries @ keys.mT / queries.shape[-1] ** 0.5, dim=-1)


# Pooling: y = Σ_r Σ_j pooled_rj · z_j · carry_r + constants (+ the pooling's own MLP), where a
# reader r is a head of the probe, or the one that reads the class token or averages.


def pooling_names(anatomy: Anatomy) -> list[str]:
    """Tensors to record for `pooling_weights`."""
    final, post = anatomy.blocks[-1].path, anatomy.pooling.post
    return [final] if post is None else [final, f"{post.path}:input"]


def pooling_weights(
    anatomy: Anatomy, tensors: dict[str, Tensor]
) -> Float[Tensor, "image reader query"]:
    """Weights of the first tokens in the embedding: attention over σ and σ_post."""
    pooling, tokens = anatomy.pooling, tensors[anatomy.blocks[-1].path]
    weights = pooling_attention(anatomy, tokens)  # [image, reader, query]
    if pooling.norm is not None:
        weights = weights / pooling.norm.sigma(tokens[:, : weights.shape[-1]])[:, None]
    return weights * post_inverse(anatomy, tensors)[:, None, None]


def pooling_attention(
    anatomy: Anatomy, tokens: Float[Tensor, "image token width"]
) -> Float[Tensor, "image reader query"]:
    """The class token alone, or equal shares of the final tokens, or the probe's attention."""
    pooling, count = anatomy.pooling, tokens.shape[1] - anatomy.pooling.start
    if pooling.kind == "token":
        return tokens.new_ones(len(tokens), 1, 1, dtype=torch.float32)
    if pooling.kind == "mean":
        weights = tokens.new_full((len(tokens), 1, count), 1 / count, dtype=torch.float32)
    else:
        normed = tokens if pooling.norm is None else pooling.norm(tokens)
        normed = normed[:, pooling.start :]
        weights = query_attention(pooling.attention, pooling.query[None], normed)
    return F.pad(weights, (pooling.start, 0))  # zero for the tokens before `start`


def post_inverse(anatomy: Anatomy, tensors: dict[str, Tensor]) -> Float[Tensor, " image"]:
    """1/σ of the norm of the pooled vector; 1 where there is none."""
    post = anatomy.pooling.post
    if post is None:
        final = tensors[anatomy.blocks[-1].path]
        return final.new_ones(len(final), dtype=torch.float32)
    pooled = tensors[f"{post.path}:input"]
    # CoCa norms all its queries, of which the first is the embedding.
    return post.sigma(pooled[:, 0] if pooled.ndim == 3 else pooled).reciprocal()


def after_pooling(anatomy: Anatomy, centred: bool = False) -> Float[Tensor, "width embed"]:
    """diag(γ_post) P: from the pooled vector to the embedding, but for 1/σ_post.

    ``centred``: with the norm's subtraction of the mean, which is linear.
    """
    post, readout = anatomy.pooling.post, anatomy.pooling.readout
    return readout if post is None else _through_gain(post.weight, readout, centred)


def carry_factors(
    anatomy: Anatomy, centred: bool = False
) -> tuple[Float[Tensor, "reader width rank"], Float[Tensor, "reader rank embed"] | None]:
    """What each reader reads of a vector in a final token, and what it writes of that.

    Without heads the first factor gives the embedding already, and there is no second.
    """
    pooling, after = anatomy.pooling, after_pooling(anatomy, centred)
    reads = after[None] if pooling.attention is None else pooling.attention.values.mT
    if pooling.norm is not None:
        reads = _through_gain(pooling.norm.weight, reads, centred)
    return reads, None if pooling.attention is None else pooling.attention.written @ after


def carry(anatomy: Anatomy, centred: bool = False) -> Float[Tensor, "reader width embed"]:
    """What a vector in a final token writes to the embedding through each reader, but for 1/σ."""
    reads, writes = carry_factors(anatomy, centred)
    return reads if writes is None else reads @ writes


def _through_gain(
    gain: Float[Tensor, " width"], after: Float[Tensor, "*reader width out"], centred: bool
) -> Float[Tensor, "*reader width out"]:
    read = gain[:, None] * after
    return read - read.mean(-2, keepdim=True) if centred else read
