"""First-order effects of a ViT: what each head and MLP writes to the class token.

The decomposition is exact: with the final layer norm's scale of the image taken as given, the
image embedding is a sum over heads, MLP layers, the input of the first block and biases
(Gandelsman, Efros, Steinhardt: *Interpreting CLIP's Image Representation*, 2310.05916).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from clipneurons.lens.base import check_finite
from clipneurons.lens.second_order import class_attention, moments, value_weights
from clipneurons.models.clip import ClipModel
from clipneurons.models.hooks import record_activations


@dataclass(frozen=True)
class FirstOrderEffects:
    """Terms that sum to the image embedding: ``heads + mlps + embedding + bias``."""

    heads: Float[Tensor, "image layer head embed"]
    mlps: Float[Tensor, "image layer embed"]
    embedding: Float[Tensor, "image embed"]
    bias: Float[Tensor, "image embed"]

    def sum(self) -> Float[Tensor, "image embed"]:
        """All terms together: the image embedding."""
        return self.heads.sum((1, 2)) + self.mlps.sum(1) + self.embedding + self.bias


@dataclass(frozen=True)
class FirstOrderLens:
    """First-order effects of all heads and MLP layers of a ViT.

    Call it with preprocessed images ``[image, 3, height, width]`` to get the embeddings (not
    normalised) and the :class:`FirstOrderEffects`.
    """

    clip: ClipModel

    def __post_init__(self) -> None:
        if self.clip.kind != "vit":
            raise ValueError(f"expected a ViT, {self.clip.name} is a {self.clip.kind}")

    @cached_property
    def recorded(self) -> list[str]:
        """Names of the tensors that :meth:`read` and :meth:`token_scores` need."""
        blocks = [f"transformer.resblocks.{index}" for index in range(self.clip.layers)]
        return (
            [f"{block}.ln_1" for block in blocks]
            + [f"{block}.mlp" for block in blocks]
            + [f"{blocks[0]}.ln_1:input", "ln_post:input"]
        )

    @cached_property
    def _readout(self) -> Float[Tensor, "width embed"]:
        """From the class token to the embedding, but for the final norm's 1/σ."""
        visual = self.clip.visual
        readout = visual.ln_post.weight.float()[:, None] * visual.proj.float()
        # Subtracting the mean over coordinates is linear, so each term may do it for itself.
        return readout - readout.mean(0)

    @torch.no_grad()
    def __call__(
        self, images: Float[Tensor, "image 3 height width"]
    ) -> tuple[Float[Tensor, "image embed"], FirstOrderEffects]:
        """Image embeddings and their first-order terms."""
        with record_activations(self.clip.visual, self.recorded) as tensors:
            representation = self.clip.encode_image(images)
        check_finite(representation)
        return representation, self.read(tensors)

    def read(self, tensors: dict[str, Tensor]) -> FirstOrderEffects:
        """Effects from the :attr:`recorded` tensors of a forward pass."""
        visual, heads = self.clip.visual, self.clip.heads
        sigma = moments(visual.ln_post, tensors["ln_post:input"][:, 0])[1][:, None]
        by_head, by_mlp = [], []
        bias = (visual.ln_post.bias.float() @ visual.proj.float()).expand(len(sigma), -1)
        for index, block in enumerate(visual.transformer.resblocks):
            name = f"transformer.resblocks.{index}"
            tokens = tensors[f"{name}.ln_1"].float()
            mixed = class_attention(block, tokens) @ tokens  # [image, head, width]
            values, value_bias = value_weights(block)
            carried = torch.einsum("bhw,hrw->bhr", mixed, values) + value_bias
            outer = (block.attn.out_proj.weight.float().T @ self._readout).unflatten(0, (heads, -1))
            by_head.append(torch.einsum("bhr,hrd->bhd", carried, outer) / sigma[..., None])
            by_mlp.append(tensors[f"{name}.mlp"][:, 0].float() @ self._readout / sigma)
            bias = bias + block.attn.out_proj.bias.float() @ self._readout / sigma
        start = tensors["transformer.resblocks.0.ln_1:input"][:, 0].float()
        return FirstOrderEffects(
            heads=torch.stack(by_head, 1),
            mlps=torch.stack(by_mlp, 1),
            embedding=start @ self._readout / sigma,
            bias=bias,
        )

    def token_scores(
        self,
        tensors: dict[str, Tensor],
        vectors: Float[Tensor, "vector embed"],
        layers: Sequence[int] | None = None,
    ) -> Float[Tensor, "image token vector"]:
        """Each token's share, through the heads of the layers, of ``⟨embedding, vector⟩``.

        Summed over tokens this is the inner product of the heads' effects with the vector.
        By default all layers are used; TextSpan's segmentation uses the last four.
        """
        visual, heads = self.clip.visual, self.clip.heads
        sigma = moments(visual.ln_post, tensors["ln_post:input"][:, 0])[1]
        total = 0.0
        for index in range(self.clip.layers) if layers is None else layers:
            block = visual.transformer.resblocks[index]
            tokens = tensors[f"transformer.resblocks.{index}.ln_1"].float()
            written = block.attn.out_proj.weight.float().T @ (self._readout @ vectors.T)
            written = written.unflatten(0, (heads, -1))  # [head, rank, vector]
            values, value_bias = value_weights(block)
            read = torch.einsum("hrw,hrv->hwv", values, written)
            constant = torch.einsum("hr,hrv->hv", value_bias, written)
            attention = class_attention(block, tokens)
            for head in range(heads):  # [image, token, vector] at a time, not all heads
                scores = tokens @ read[head] + constant[head]
                total = total + attention[:, head, :, None] * scores
        return total / sigma[:, None, None]
