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

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from clipneurons.bundle.sparse_features import FeatureError, SparseFeatures
from clipneurons.lens.base import SCALE, check_finite
from clipneurons.lens.contributions import SpatialContributions
from clipneurons.lens.directions import Directions
from clipneurons.lens.neuron_head import LAYER, NeuronHeadEffects
from clipneurons.lens.second_order import ReadingHeads
from clipneurons.models.clip import ClipModel
from clipneurons.models.hooks import record_activations


@dataclass(frozen=True)
class FeatureParts:
    """Terms that sum to the embedding of norm 100: latents, bias, what they miss, all the rest."""

    features: Float[Tensor, "image embed"]
    decoder_bias: Float[Tensor, "image embed"]
    error: Float[Tensor, "image embed"]
    rest: Float[Tensor, "image embed"]
    explained_variance: float


@dataclass(frozen=True)
class FeatureSite:
    """The tensors of a model that a dictionary reads and writes.

    Args:
        block, name, tokens: `SparseFeatures.block`, ``site`` and ``tokens``.

    Raises:
        FeatureError: a site or a block that the model does not have, or that no attention reads.
    """

    clip: ClipModel
    block: int
    name: str
    tokens: str = "all"

    def __post_init__(self) -> None:
        clip = self.clip
        of_resnet = self.name == "last_stage"
        if of_resnet != (clip.kind == "resnet"):
            raise FeatureError(
                f"a dictionary of {self.name} does not fit {clip.name}, a {clip.kind}"
            )
        if of_resnet:
            return
        blocks = clip.layers + (self.name == "resid_pre") - 1
        if clip.anatomy.pooling.kind == "probe":
            blocks = clip.layers
        if not 0 <= self.block < blocks:
            raise FeatureError(
                f"{self.name} of block {self.block}: expected blocks 0 to {blocks - 1} of "
                f"{clip.name}, which later attention reads"
            )
        if self.name in ("resid_mid", "mlp_in") and not clip.anatomy.blocks[self.block].mlp.norm:
            raise FeatureError(
                f"{self.name} is not read in {clip.name}: its MLPs have no norm before them"
            )

    @property
    def width(self) -> int:
        """Numbers that the site, and the target, has for each token."""
        if self.clip.kind == "resnet":
            return self.clip.neurons
        return self.clip.anatomy.blocks[0].mlp.output.weight.shape[0]

    @property
    def recorded(self) -> list[str]:
        """Names of the tensors that :meth:`inputs` and :meth:`target` need."""
        if self.clip.kind == "resnet":
            return ["attnpool:input"]
        mlp = self.clip.anatomy.blocks[self.block].mlp
        if self.name in ("mlp_in", "mlp_out"):
            return [mlp.path] if self.name == "mlp_out" else [mlp.norm.path, mlp.path]
        return [self._stream]

    @property
    def _stream(self) -> str:
        block = self.clip.anatomy.blocks[self.block]
        return {
            "resid_pre": block.inputs,
            "resid_post": block.path,
            "resid_mid": f"{block.mlp.norm.path}:input" if block.mlp.norm else "",
        }[self.name]

    def inputs(self, tensors: dict[str, Tensor]) -> Float[Tensor, "image token width"]:
        """What the encoder reads, from the recorded tensors."""
        if self.name == "mlp_in":
            return tensors[self.clip.anatomy.blocks[self.block].mlp.norm.path].float()
        return self.target(tensors)

    def target(self, tensors: dict[str, Tensor]) -> Float[Tensor, "image token width"]:
        """What the decoder rebuilds, from the recorded tensors."""
        if self.clip.kind == "resnet":
            return tensors["attnpool:input"].float().flatten(2).mT
        if self.name in ("mlp_in", "mlp_out"):
            mlp = self.clip.anatomy.blocks[self.block].mlp
            return mlp(tensors[mlp.path]).float()
        return tensors[self._stream].float()

    def described(self, tokens: Float[Tensor, "image token width"]) -> Bool[Tensor, "token 1"]:
        """Whether the dictionary describes each token."""
        mask = torch.ones(tokens.shape[1], 1, dtype=torch.bool, device=tokens.device)
        if self.clip.kind == "vit" and self.tokens != "all":
            mask[: self.clip.anatomy.prefix] = self.tokens == "class"
            mask[self.clip.anatomy.prefix :] = self.tokens == "patches"
        return mask


@dataclass(frozen=True)
class FeatureEffects:
    """Effects of the latents of dictionaries, at most one a block, from what `Lens` records.

    A unit is a latent; in a ResNet a pair of a latent and a pooling head,
    ``unit = latent · heads + head``.

    Args:
        features: a dictionary or several.

    Raises:
        FeatureError: a dictionary of another model, width or site than the model has; two of one
            block.
    """

    clip: ClipModel
    features: SparseFeatures | tuple[SparseFeatures, ...]

    def __post_init__(self) -> None:
        clip, known = self.clip, _published_names(self.clip)
        several = self.features if isinstance(self.features, tuple) else (self.features,)
        for features in several:
            if features.model and known and _plain(features.model) not in known:
                name = f"{clip.name} {clip.pretrained or ''}".rstrip()
                raise FeatureError(
                    f"the dictionary is of {features.model}, the model is {name}: expected a "
                    "dictionary of this model"
                )
            width = FeatureSite(clip, features.block, features.site).width
            for end, found in (
                ("encoder reads", len(features.w_enc)), ("decoder writes", len(features.b_dec)),
            ):  # fmt: skip
                if found != width:
                    raise FeatureError(
                        f"the {end} {found} numbers a token, {clip.name} has {width}: the "
                        f"dictionary is of another model ({features.model or 'it names none'})"
                    )
        if not several or len(several) > len(self._by_layer(several)):
            blocks = ", ".join(str(features.block) for features in several)
            raise FeatureError(f"dictionaries of blocks {blocks or 'none'}: expected one a block")
        on_device = tuple(features.to(clip.device) for features in several)
        object.__setattr__(self, "features", on_device)

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers under which effects are given: the blocks of the dictionaries."""
        return tuple(self._dictionaries)

    @cached_property
    def _dictionaries(self) -> dict[int, SparseFeatures]:
        return self._by_layer(self.features)

    def _by_layer(self, several: tuple[SparseFeatures, ...]) -> dict[int, SparseFeatures]:
        resnet = self.clip.kind == "resnet"
        by_layer = {LAYER if resnet else features.block: features for features in several}
        return dict(sorted(by_layer.items()))

    def site(self, layer: int) -> FeatureSite:
        """Where the dictionary of a layer sits."""
        features = self._dictionaries[layer]
        return FeatureSite(self.clip, features.block, features.site, features.tokens)

    def _first(self, layer: int) -> int:
        """The first block that reads what a layer's latents write."""
        return layer + (self._dictionaries[layer].site != "resid_pre")

    def _readers(self, layer: int) -> int | None:
        """How many of the heads, the last ones, read it; None for all, a probe's."""
        if self.clip.anatomy.pooling.kind == "probe":
            return None
        return (self.clip.layers - self._first(layer)) * self.clip.heads

    @cached_property
    def _heads(self) -> ReadingHeads:
        return ReadingHeads(self.clip.anatomy, min(map(self._first, self.layers)))

    @cached_property
    def _pooling(self) -> NeuronHeadEffects:
        return NeuronHeadEffects(self.clip)

    @cached_property
    def directions(self) -> dict[int, Directions]:
        """By layer, what each latent writes to the embedding through each head."""
        return {
            layer: self._pooling.written_through(features.w_dec).split()
            if self.clip.kind == "resnet"
            else self._heads.directions(features.w_dec, self._readers(layer))
            for layer, features in self._dictionaries.items()
        }

    @property
    def recorded(self) -> list[str]:
        """Names of the tensors that :meth:`read` and :meth:`parts` need."""
        heads = self._pooling if self.clip.kind == "resnet" else self._heads
        sites = [name for layer in self.layers for name in self.site(layer).recorded]
        return list(dict.fromkeys(heads.recorded + sites))

    def read(
        self, tensors: dict[str, Tensor], representation: Float[Tensor, "image embed"]
    ) -> dict[int, SpatialContributions]:
        """Contributions from the :attr:`recorded` tensors of a forward pass."""
        check_finite(representation)
        weights = self._weights(tensors, representation)
        prefix = 1 if self.clip.kind == "resnet" else self.clip.anatomy.prefix
        contributions = {}
        for layer, directions in self.directions.items():
            latents, sigma, _ = self._encode(layer, tensors)
            plain = self._dictionaries[layer].normalisation == "none"
            written = latents if plain else latents * sigma
            contributions[layer] = SpatialContributions(
                self._pooled_tokens(written), self._of_layer(weights, layer), directions, None,
                prefix,
            )  # fmt: skip
        return contributions

    @torch.no_grad()
    def parts(
        self, images: Float[Tensor, "image 3 height width"], layer: int | None = None
    ) -> FeatureParts:
        """What latents, decoder bias, reconstruction error and all the rest bring to embeddings.

        ``layer``: of several dictionaries, the one's. ``explained_variance`` is the share of the
        target's variance, over images and the tokens that the dictionary describes, that its
        reconstruction explains. Less than half means most likely another block, another
        preprocessing or another normalisation than it was trained with.
        """
        layer = self.layers[0] if layer is None else layer
        features = self._dictionaries[layer]
        with record_activations(self.clip.visual, self.recorded) as tensors:
            representation = self.clip.encode_image(images)
        effects = self.read(tensors, representation)[layer]
        target = self.site(layer).target(tensors)
        latents, sigma, mu = self._encode(layer, tensors)
        described = self.site(layer).described(target).to(target.dtype)  # [token, 1]
        bias = (sigma * features.b_dec + mu) * described  # [image, token, target]
        rebuilt = sigma * (latents @ features.w_dec) + bias
        weights = self._of_layer(self._weights(tensors, representation), layer)
        scaled = SCALE * representation / representation.norm(dim=-1, keepdim=True)
        return FeatureParts(
            features=effects.sum(),
            decoder_bias=self._carried(bias, weights, layer),
            error=self._carried(target - rebuilt, weights, layer),
            rest=scaled - self._carried(target, weights, layer),
            explained_variance=explained_variance(
                target[:, described[:, 0] > 0], rebuilt[:, described[:, 0] > 0]
            ),
        )

    def _encode(self, layer: int, tensors: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Latents, zero at tokens that the dictionary does not describe, σ and μ."""
        site = self.site(layer)
        inputs = site.inputs(tensors)
        latents, sigma, mu = self._dictionaries[layer].encode(inputs)
        return latents if site.tokens == "all" else latents * site.described(inputs), sigma, mu

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

    def _of_layer(self, weights: Float[Tensor, "image head token"], layer: int) -> Tensor:
        """Those of the heads that read the layer."""
        readers = None if self.clip.kind == "resnet" else self._readers(layer)
        return weights if readers is None else weights[:, -readers:]

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
        layer: int,
    ) -> Float[Tensor, "image embed"]:
        """What vectors in the tokens bring to the embedding through the heads that read."""
        pooled = weights @ self._pooled_tokens(written)  # [image, head, target]
        whole = torch.eye(written.shape[-1], device=written.device)
        if self.clip.kind == "resnet":
            directions = self._pooling.written_through(whole)
        else:
            directions = self._heads.directions(whole, self._readers(layer))
        return directions.sum(pooled.mT)  # each coordinate of the target as a unit


def explained_variance(
    target: Float[Tensor, "*token width"], rebuilt: Float[Tensor, "*token width"]
) -> float:
    """Share of the variance of tokens that their reconstruction explains."""
    total = (target - target.flatten(0, -2).mean(0)).square().sum()
    return float(1 - (target - rebuilt).square().sum() / total)


def _published_names(clip: ClipModel) -> set[str]:
    """What others call a published model; nothing for weights of the user's own."""
    import open_clip

    if Path(clip.name).exists():
        return set()
    if "/" in clip.name:
        return {_plain(clip.name)}
    config = open_clip.get_pretrained_cfg(clip.name, clip.pretrained or "")
    if not config:
        return set()
    names = {f"{clip.name} {clip.pretrained}", config.get("hf_hub") or ""}
    vit = re.fullmatch(r"ViT-([BL])-(\d+)(-336)?(-quickgelu)?", clip.name)
    if clip.pretrained == "openai" and vit:
        size = {"B": "base", "L": "large"}[vit[1]]
        names.add(f"openai/clip-vit-{size}-patch{vit[2]}{vit[3] or ''}")
    return {_plain(name) for name in names if name}


def _plain(name: str) -> str:
    """A model's name without the library before it, letters and digits alone."""
    name = re.sub(r"^(open-clip|hf-hub|timm):", "", name.lower())
    return re.sub(r"[^a-z0-9]", "", name)
