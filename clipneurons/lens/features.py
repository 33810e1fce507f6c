"""Effects of sparse features: latents of SAEs and transcoders, carried as a neuron's write is.

A dictionary describes a tensor x of the model (its *site*) by few of many latents:

    x̂_i = (x_i − μ_i) / σ_i                               normalisation; μ = 0, σ = 1 without one
    f_i = activation((x̂_i − centre) W_enc + b_enc)        latents of token i
    y_i = σ_i (f_i W_dec + b_dec) + μ_i + error_i         what the model has at the target

The target is x itself for an autoencoder, and the MLP's output for a transcoder. Latent k writes
σ_i f_i^k d_k at token i, where d_k is row k of W_dec, just as neuron n writes p_i^n w_n. Its effect
on the embedding is therefore equation 7 with f σ in place of p and d in place of w:

    φ_k(I) = Σ_{l'} Σ_h s_k^{l',h}(I) · d_k^{l',h}
    s_k^{l',h}(I) = 100/‖M(I)‖ · 1/σ_post · Σ_i a_i^{l',h} f_i^k σ_i / σ_i^{l'}

Blocks l' ≥ l read what enters block l (``resid_pre``), blocks l' > l what stands in the stream
after its attention or its MLP. In a CLIP-ResNet the site is the map of the last stage, and each
latent is one unit for each pooling head, as a neuron is (`clipneurons.lens.neuron_head`).

    W_enc [X, K]   W_dec [K, Y]   of K latents, X and Y the widths of site and target
    f     [T, K]   latents at T tokens; zero at tokens that the dictionary does not describe
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from clipneurons.lens.base import SCALE, check_finite
from clipneurons.lens.contributions import SpatialContributions
from clipneurons.lens.directions import Directions
from clipneurons.lens.neuron_head import LAYER, NeuronHeadEffects
from clipneurons.lens.second_order import ReadingHeads
from clipneurons.models.clip import ClipModel
from clipneurons.models.hooks import record_activations

SETTINGS = {
    "site": ("resid_pre", "resid_mid", "resid_post", "mlp_in", "mlp_out", "last_stage"),
    "activation": ("relu", "topk", "jumprelu"),
    "normalisation": ("none", "layer_norm", "unit_norm"),
    "tokens": ("all", "patches", "class"),
}
# Added to the standard deviation by the library whose dictionaries normalise so.
_EPS = 1e-5


class FeatureError(ValueError):
    """A dictionary that cannot be read, or that does not fit the model; the message says why."""


@dataclass(frozen=True, eq=False)
class SparseFeatures:
    """A dictionary of sparse features: the weights of an SAE or a transcoder, and where it sits.

    Args:
        w_enc, b_enc: encoder.
        w_dec, b_dec: decoder, a row for each latent.
        block: the block it belongs to, from 0; a ResNet's last stage is 4.
        site: the tensor that the encoder reads. ``mlp_in`` is what the MLP reads, normalised, and
            makes it a transcoder that predicts ``mlp_out``.
        activation: ``relu``; ``topk`` keeps the ``k`` largest of a token; ``jumprelu`` keeps what
            exceeds ``threshold`` (BatchTopK once trained).
        normalisation: ``layer_norm`` subtracts each token's mean and divides by its standard
            deviation; ``unit_norm`` scales each token to norm sqrt(X).
        centred: whether the encoder reads x̂ − b_dec.
        tokens: the tokens that it describes.
        model, source: names of the model it was trained on and of where it came from.

    Raises:
        FeatureError: shapes that do not fit each other, values that are not finite, an unknown
            setting.
    """

    w_enc: Float[Tensor, "_ _"]
    b_enc: Float[Tensor, " _"]
    w_dec: Float[Tensor, "_ _"]
    b_dec: Float[Tensor, " _"]
    block: int
    site: str
    activation: str = "relu"
    k: int | None = None
    threshold: Float[Tensor, " _"] | None = None
    normalisation: str = "none"
    centred: bool = False
    tokens: str = "all"
    model: str = ""
    source: str = ""

    def __post_init__(self) -> None:
        latents = self.w_enc.shape[-1]
        expected = {"b_enc": (latents,), "w_dec": (latents, len(self.b_dec))}
        if self.threshold is not None:
            expected["threshold"] = (latents,)
        for name, shape in expected.items():
            found = tuple(getattr(self, name).shape)
            if found != shape:
                hint = ": transposed?" if found == shape[::-1] and len(shape) == 2 else ""
                raise FeatureError(f"{name} is {list(found)}, expected {list(shape)}{hint}")
        for name, known in SETTINGS.items():
            if getattr(self, name) not in known:
                words = ", ".join(known)
                raise FeatureError(f"{name} {getattr(self, name)!r}: expected one of {words}")
        if self.activation == "topk" and not (self.k and 0 < self.k <= latents):
            raise FeatureError(f"topk needs k from 1 to {latents}, not {self.k}")
        if self.activation == "jumprelu" and self.threshold is None:
            raise FeatureError("jumprelu needs a threshold for each latent")
        if self.centred and self.transcoder:
            raise FeatureError("a transcoder's decoder bias is of its target, not of its site")
        for name in ("w_enc", "b_enc", "w_dec", "b_dec", "threshold"):
            value = getattr(self, name)
            if value is not None and not bool(value.isfinite().all()):
                raise FeatureError(f"{name} holds values that are not finite")

    @property
    def latents(self) -> int:
        """Number of latents."""
        return self.w_enc.shape[1]

    @property
    def transcoder(self) -> bool:
        """Whether it predicts the MLP's output from its input."""
        return self.site == "mlp_in"

    def encode(
        self, site: Float[Tensor, "image token site"]
    ) -> tuple[
        Float[Tensor, "image token latent"],
        Float[Tensor, "image token 1"],
        Float[Tensor, "image token 1"],
    ]:
        """f, and the σ and μ that a reconstruction is scaled back with."""
        mu, sigma = torch.zeros_like(site[..., :1]), torch.ones_like(site[..., :1])
        if self.normalisation == "layer_norm":
            mu = site.mean(-1, keepdim=True)
            sigma = (site - mu).std(-1, keepdim=True) + _EPS
        elif self.normalisation == "unit_norm":
            sigma = site.norm(dim=-1, keepdim=True) / site.shape[-1] ** 0.5
        inputs = (site - mu) / sigma
        if self.centred:
            inputs = inputs - self.b_dec
        pre = inputs @ self.w_enc + self.b_enc  # [image, token, latent]
        latents = torch.relu(pre)
        if self.activation == "topk":
            values, indices = latents.topk(self.k, dim=-1)
            latents = torch.zeros_like(latents).scatter_(-1, indices, values)
        elif self.activation == "jumprelu":
            latents = latents * (pre > self.threshold)
        return latents, sigma, mu

    def to(self, device: torch.device) -> SparseFeatures:
        """The same dictionary on a device, in float32."""
        tensors = {
            name: None if getattr(self, name) is None else getattr(self, name).to(device).float()
            for name in ("w_enc", "b_enc", "w_dec", "b_dec", "threshold")
        }
        return SparseFeatures(**(vars(self) | tensors))


@dataclass(frozen=True)
class FeatureParts:
    """Terms that sum to the embedding of norm 100: latents, bias, what they miss, all the rest."""

    features: Float[Tensor, "image embed"]
    decoder_bias: Float[Tensor, "image embed"]
    error: Float[Tensor, "image embed"]
    rest: Float[Tensor, "image embed"]
    explained_variance: float


@dataclass(frozen=True)
class FeatureEffects:
    """Effects of the latents of a dictionary, from what `Lens` records.

    A unit is a latent; in a ResNet a pair
    of a latent and a pooling head, ``unit = latent · heads + head``.

    Raises:
        FeatureError: a dictionary of another width or site than the model has.
    """

    clip: ClipModel
    features: SparseFeatures

    def __post_init__(self) -> None:
        features, clip = self.features.to(self.clip.device), self.clip
        object.__setattr__(self, "features", features)
        of_resnet = features.site == "last_stage"
        if of_resnet != (clip.kind == "resnet"):
            raise FeatureError(
                f"a dictionary of {features.site} does not fit {clip.name}, a {clip.kind}"
            )
        blocks = clip.layers + (features.site == "resid_pre") - (clip.kind == "vit")
        if clip.kind == "vit" and clip.anatomy.pooling.kind == "probe":
            blocks = clip.layers
        if not of_resnet and not 0 <= features.block < blocks:
            raise FeatureError(
                f"{features.site} of block {features.block}: expected blocks 0 to {blocks - 1} of "
                f"{clip.name}, which later attention reads"
            )
        width = clip.neurons if of_resnet else clip.anatomy.blocks[0].mlp.output.weight.shape[0]
        for name, found in (
            ("encoder reads", len(features.w_enc)), ("decoder writes", len(features.b_dec)),
        ):  # fmt: skip
            if found != width:
                raise FeatureError(
                    f"the {name} {found} numbers a token, {clip.name} has {width}: the dictionary "
                    f"is of another model ({features.model or 'it names none'})"
                )

    @property
    def layers(self) -> tuple[int, ...]:
        """The one layer under which effects are given."""
        return (LAYER if self.clip.kind == "resnet" else self.features.block,)

    @cached_property
    def _heads(self) -> ReadingHeads:
        after = self.features.site != "resid_pre"
        return ReadingHeads(self.clip.anatomy, self.features.block + after)

    @cached_property
    def _pooling(self) -> NeuronHeadEffects:
        return NeuronHeadEffects(self.clip)

    @cached_property
    def directions(self) -> dict[int, Directions]:
        """By layer, what each latent writes to the embedding through each head."""
        if self.clip.kind == "resnet":
            return {LAYER: self._pooling.written_through(self.features.w_dec).split()}
        return {self.features.block: self._heads.directions(self.features.w_dec)}

    @property
    def recorded(self) -> list[str]:
        """Names of the tensors that :meth:`read` and :meth:`parts` need."""
        if self.clip.kind == "resnet":
            return self._pooling.recorded
        block = self.clip.anatomy.blocks[self.features.block]
        paths = {
            "resid_pre": [block.inputs],
            "resid_post": [block.path],
            "resid_mid": [f"{block.mlp.norm.path}:input"] if block.mlp.norm else [],
            "mlp_in": [block.mlp.norm.path, block.mlp.path] if block.mlp.norm else [],
            "mlp_out": [block.mlp.path],
        }[self.features.site]
        if not paths:
            raise FeatureError(
                f"{self.features.site} is not read in {self.clip.name}: its MLPs have no norm "
                "before them"
            )
        return self._heads.recorded + paths

    def read(
        self, tensors: dict[str, Tensor], representation: Float[Tensor, "image embed"]
    ) -> dict[int, SpatialContributions]:
        """Contributions from the :attr:`recorded` tensors of a forward pass."""
        check_finite(representation)
        latents, sigma, _ = self._encode(self._site(tensors))
        (layer,) = self.layers
        prefix = 1 if self.clip.kind == "resnet" else self.clip.anatomy.prefix
        weights = self._weights(tensors, representation)
        written = self._pooled_tokens(latents * sigma)
        return {layer: SpatialContributions(written, weights, self.directions[layer], None, prefix)}

    @torch.no_grad()
    def parts(self, images: Float[Tensor, "image 3 height width"]) -> FeatureParts:
        """What latents, decoder bias, reconstruction error and all the rest bring to embeddings.

        ``explained_variance``: the share of the target's variance, over tokens that the dictionary
        describes and images, that its reconstruction explains. Less than half means most likely
        another block, another preprocessing or another normalisation than it was trained with.
        """
        with record_activations(self.clip.visual, self.recorded) as tensors:
            representation = self.clip.encode_image(images)
        (effects,) = self.read(tensors, representation).values()
        site, target = self._site(tensors), self._target(tensors)
        latents, sigma, mu = self._encode(site)
        mine = self._mine(target).to(target.dtype)  # [token, 1]: 1 where it describes the token
        bias = (sigma * self.features.b_dec + mu) * mine  # [image, token, target]
        rebuilt = sigma * (latents @ self.features.w_dec) + bias
        missed = target - rebuilt
        total = ((target - target.mean((0, 1))) * mine).square().sum()
        weights = self._weights(tensors, representation)
        error, of_bias = self._carried(missed, weights), self._carried(bias, weights)
        features = effects.sum()
        scaled = SCALE * representation / representation.norm(dim=-1, keepdim=True)
        return FeatureParts(
            features=features,
            decoder_bias=of_bias,
            error=error,
            rest=scaled - self._carried(target, weights),
            explained_variance=float(1 - (missed * mine).square().sum() / total),
        )

    def _encode(self, site: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        latents, sigma, mu = self.features.encode(site)
        return latents * self._mine(site), sigma, mu

    def _mine(self, tokens: Float[Tensor, "image token width"]) -> Tensor:
        """[token, 1]: whether the dictionary describes the token."""
        described = torch.ones(tokens.shape[1], 1, dtype=torch.bool, device=tokens.device)
        if self.clip.kind == "vit" and self.features.tokens != "all":
            described[: self.clip.anatomy.prefix] = self.features.tokens == "class"
            described[self.clip.anatomy.prefix :] = self.features.tokens == "patches"
        return described

    def _site(self, tensors: dict[str, Tensor]) -> Float[Tensor, "image token site"]:
        if self.clip.kind == "resnet":
            return tensors["attnpool:input"].float().flatten(2).mT
        block = self.clip.anatomy.blocks[self.features.block]
        if self.features.site == "mlp_in":
            return tensors[block.mlp.norm.path].float()
        return self._target(tensors)

    def _target(self, tensors: dict[str, Tensor]) -> Float[Tensor, "image token target"]:
        if self.clip.kind == "resnet":
            return self._site(tensors)
        block = self.clip.anatomy.blocks[self.features.block]
        if self.features.site in ("mlp_in", "mlp_out"):
            return block.mlp(tensors[block.mlp.path]).float()
        names = {
            "resid_pre": block.inputs,
            "resid_post": block.path,
            "resid_mid": f"{block.mlp.norm.path}:input" if block.mlp.norm else "",
        }
        return tensors[names[self.features.site]].float()

    def _weights(
        self, tensors: dict[str, Tensor], representation: Float[Tensor, "image embed"]
    ) -> Float[Tensor, "image head token"]:
        """Attention of every head that reads, over the norms' σ, on the published scale."""
        if self.clip.kind == "resnet":
            (effects,) = self._pooling.read(tensors, representation).values()
            return effects.weights
        scale = SCALE / representation.norm(dim=-1)
        attention = torch.cat(self._heads.attention_by_sigma(tensors), 1)  # [image, head, token]
        return attention * scale[:, None, None]

    def _pooled_tokens(
        self, tokens: Float[Tensor, "image token width"]
    ) -> Float[Tensor, "image pooled width"]:
        """With the mean of the positions before them, where a ResNet's pooling adds it."""
        if self.clip.kind == "vit":
            return tokens
        return torch.cat([tokens.mean(1, keepdim=True), tokens], 1)

    def _carried(
        self,
        written: Float[Tensor, "image token target"],
        weights: Float[Tensor, "image head pooled"],
    ) -> Float[Tensor, "image embed"]:
        """What vectors in the tokens bring to the embedding through the heads that read."""
        pooled = weights @ self._pooled_tokens(written)  # [image, head, target]
        whole = torch.eye(written.shape[-1], device=written.device)
        if self.clip.kind == "resnet":
            directions = self._pooling.written_through(whole)
        else:
            directions = self._heads.directions(whole)
        return directions.sum(pooled.mT)  # each coordinate of the target as a unit
