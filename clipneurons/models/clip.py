"""A CLIP model with what is needed to feed and to read it."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import open_clip
import torch
from jaxtyping import Float, Int
from open_clip.modified_resnet import ModifiedResNet
from open_clip.transform import PreprocessCfg, image_transform_v2
from open_clip.transformer import QuickGELU
from torch import Tensor, nn

from clipneurons.models.adapters.common import Refused
from clipneurons.models.adapters.registry import anatomy_of
from clipneurons.models.anatomy import Anatomy
from clipneurons.models.networks import RANDOM, Reading, open_network, unsupported
from clipneurons.models.weights import check_values

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_CLEANED = {"canonicalize": "lower-cased, without punctuation, ", "lower": "lower-cased, "}


@dataclass(frozen=True)
class ClipModel:
    """A CLIP model in evaluation mode with what is needed to feed and to read it.

    ``layers``, ``heads`` and ``neurons`` describe the image tower: for a ViT its blocks, the
    heads and the MLP neurons of each block; for a ResNet its four stages, the heads of the
    attention pooling and the channels of the last stage.
    """

    model: nn.Module
    kind: Literal["vit", "resnet"]
    name: str
    pretrained: str | None
    activation: Literal["gelu", "gelu_tanh", "quick_gelu", "swiglu", "relu"]
    image_size: tuple[int, int]
    image_mean: tuple[float, float, float]
    image_std: tuple[float, float, float]
    embed_dim: int
    layers: int
    heads: int
    neurons: int
    device: torch.device
    dtype: torch.dtype
    preprocess: Callable
    tokenizer: Callable

    @property
    def visual(self) -> nn.Module:
        """The image tower."""
        return self.model.visual

    @cached_property
    def anatomy(self) -> Anatomy:
        """What the lenses read of a ViT.

        Raises:
            ValueError: a ResNet, which has no blocks.
        """
        if self.kind != "vit":
            raise ValueError(f"expected a ViT, {self.name} is a {self.kind}")
        return anatomy_of(self.visual)

    @property
    def tokenizer_notes(self) -> str:
        """What the tokenizer does to a text, in words: cleaning, and the length it is padded to."""
        return f"{_CLEANED.get(self._cleaning, '')}cut and padded to {self.context_length} tokens"

    @property
    def context_length(self) -> int:
        """Tokens that are read of a text, with those that mark its beginning and end."""
        return getattr(self.tokenizer, "open_clip", self.tokenizer).context_length

    @property
    def _cleaning(self) -> str:
        own = getattr(self.tokenizer, "open_clip", self.tokenizer)
        clean = getattr(getattr(own, "clean_fn", None), "__name__", "").removeprefix("_clean_")
        return "lower" if getattr(own, "lower", False) else clean

    @property
    def quick_gelu(self) -> bool:
        """Whether a tower has OpenAI's approximation of GELU; a ResNet's text tower may."""
        return any(isinstance(module, QuickGELU) for module in self.model.modules())

    @property
    def reads_texts(self) -> bool:
        """Whether it has a text tower; a checkpoint of an image tower alone has none."""
        return getattr(self.model, "text", self) is not None

    @property
    def siglip(self) -> bool:
        """Whether it was trained as SigLIP is: with a sigmoid, on lower-cased texts."""
        biased = getattr(self.model, "logit_bias", None) is not None
        sigmoid = biased or getattr(self.model, "sigmoid", False)
        return sigmoid and self._cleaning in _CLEANED

    @property
    def logit_scale(self) -> float | None:
        """What cosines are multiplied with before the softmax; None where there is no softmax.

        Models trained with a sigmoid (SigLIP: those with a bias of the logits) judge each text by
        itself, and of some checkpoints only the towers are read.
        """
        scale = getattr(self.model, "logit_scale", None)
        if scale is None or getattr(self.model, "logit_bias", None) is not None:
            return None
        return float(scale.detach().float().exp())

    @property
    def prefix(self) -> int:
        """Tokens before the patches: the class token, a ResNet's mean position, registers."""
        return self.anatomy.prefix if self.kind == "vit" else 1

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of positions that the image tower attends to."""
        if self.kind == "vit":
            return self.anatomy.grid
        height, width = self.image_size
        return height // 32, width // 32

    @torch.no_grad()
    def encode_image(
        self, images: Float[Tensor, "image 3 height width"]
    ) -> Float[Tensor, "image embed"]:
        """Image embeddings, not normalised."""
        embeddings = self.visual(images.to(self.device, self.dtype))
        # CoCa's tower gives its tokens as well.
        return (embeddings[0] if isinstance(embeddings, tuple) else embeddings).float()

    @torch.no_grad()
    def encode_text(self, texts: Sequence[str]) -> Float[Tensor, "text embed"]:
        """Unit-norm text embeddings of one batch."""
        tokens = self.tokenizer(list(texts)).to(self.device)
        return nn.functional.normalize(_encode_tokens(self.model, tokens).float(), dim=-1)

    def sha256(self) -> str:
        """SHA-256 over the names, shapes and float32 values of all weights."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.model.state_dict().items()):
            digest.update(f"{name} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.detach().float().cpu().contiguous().numpy().data)
        return digest.hexdigest()


def load_clip(
    model: str | Path,
    pretrained: str | None = None,
    *,
    device: str | torch.device | None = None,
    precision: str = "fp32",
    activation: str | None = None,
    preprocess: str | Path | Mapping | None = None,
    image_size: int | None = None,
) -> ClipModel:
    """Load a CLIP model whose image tower is a ViT (docs/guide/models.md) or a ModifiedResNet.

    Args:
        model: an open_clip name (``"ViT-B-32"``), ``"hf-hub:owner/name"`` of an open_clip model,
            ``"owner/name"`` of a transformers checkpoint, or a folder of either: with
            ``open_clip_config.json`` and ``open_clip_model.safetensors``, or with ``config.json``,
            ``model.safetensors``, tokenizer and ``preprocessor_config.json``.
        pretrained: open_clip tag (``"openai"``) or weights file of a named model; ``"random"``
            for seeded random weights, for tests and benchmarks.
        device: by default CUDA where there is one, else the CPU; MPS only when asked for, to run
            and segment: it has no float64, in which statistics and means are computed.
        precision: ``"fp32"``, ``"bf16"`` or ``"fp16"``.
        activation: of a weights file: ``"gelu"`` or ``"quick_gelu"``. Needed where the name's
            weights have been published with both.
        preprocess: of a weights file: ``"clip"``, ``"siglip"`` or a JSON file with mean, std,
            interpolation and resize_mode. By default that of the name's published weights.
        image_size: of a weights file: side in pixels, if positions are meant to be resampled.

    Raises:
        KeyError: an unknown model name or tag.
        ValueError: missing or damaged weights, weights that do not say how they are read, a
            tokenizer that cannot tell words apart, an unknown precision.
        UnsupportedModel: a model that would be read wrongly; the message says why.
    """
    if precision not in _DTYPES:
        raise ValueError(f"precision must be one of {', '.join(_DTYPES)}, not {precision!r}")
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    reading = Reading(activation, preprocess, image_size)
    network, name, tokenizer = open_network(model, pretrained, reading)
    check_values(network, name)
    description = _describe(network, name)
    network = network.eval().requires_grad_(False).to(device, _DTYPES[precision])
    preprocess_cfg = PreprocessCfg(**network.visual.preprocess_cfg)
    clip = ClipModel(
        model=network,
        name=name.removeprefix("local-dir:"),
        pretrained=pretrained,
        image_size=_pair(network.visual.image_size),
        image_mean=tuple(preprocess_cfg.mean),
        image_std=tuple(preprocess_cfg.std),
        device=device,
        dtype=_DTYPES[precision],
        preprocess=image_transform_v2(preprocess_cfg, is_train=False),
        tokenizer=tokenizer,
        **description,
    )
    if pretrained != RANDOM:
        _check_texts(clip)
    return clip


def _check_texts(clip: ClipModel) -> None:
    """Raise ValueError where the tokenizer or the text tower cannot tell words apart."""
    if not clip.reads_texts:
        return
    words = ("a dog", "water", "a red car")
    try:
        tokens = clip.tokenizer(list(words))
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"the tokenizer of {clip.name} cannot be had: {reason}") from None
    if len(set(map(tuple, tokens.tolist()))) < len(words):
        raise ValueError(
            f"the tokenizer of {clip.name} gives different words the same tokens: its files are "
            "missing or empty. Save the tokenizer beside the weights (tokenizer.json, or vocab.json"
            " and merges.txt)"
        )
    rows = _vocabulary(clip.model)
    if rows is not None and int(tokens.max()) >= rows:
        raise ValueError(
            f"the tokenizer of {clip.name} gives token {int(tokens.max())}, the text tower knows "
            f"{rows}: the tokenizer is of another model"
        )
    cosines = (embedded := clip.encode_text(words)) @ embedded.T
    if bool((cosines > 1 - 1e-6).fill_diagonal_(False).any()):
        raise ValueError(
            f"the text tower of {clip.name} gives different words the same embedding: its weights "
            "or its tokenizer are not those it was trained with"
        )


def _vocabulary(model: nn.Module) -> int | None:
    """Rows of the text tower's token embedding."""
    names = ("token_embedding.weight", "text.token_embedding.weight",
             "text.embeddings.token_embedding.weight")  # fmt: skip
    weights = dict(model.named_parameters())
    return next((len(weights[name]) for name in names if name in weights), None)


def with_visual(clip: ClipModel, visual: nn.Module) -> ClipModel:
    """The model with another image tower of the same kind; its text tower is shared, not copied."""
    model = copy(clip.model)
    model._modules = {**clip.model._modules, "visual": visual}
    return replace(clip, model=model)


def _encode_tokens(
    model: nn.Module, tokens: Int[Tensor, "text context"]
) -> Float[Tensor, "text embed"]:
    causal = type(model) is open_clip.CLIP and model.attn_mask is not None
    if not (causal and model.text_pool_type == "argmax"):
        return model.encode_text(tokens)
    # No token sees what comes after it, and the end token, which has the largest number, is
    # read: the padding behind the longest text of the batch only costs time.
    length = int(tokens.argmax(-1).max()) + 1
    tokens = tokens[:, :length]
    embedded = model.token_embedding(tokens) + model.positional_embedding[:length]
    stream = model.transformer(embedded, attn_mask=model.attn_mask[:length, :length])
    ends = model.ln_final(stream[torch.arange(len(tokens)), tokens.argmax(-1)])
    projection = model.text_projection
    return projection(ends) if isinstance(projection, nn.Linear) else ends @ projection


def _pair(size) -> tuple[int, int]:
    return tuple(size) if isinstance(size, (tuple, list)) else (size, size)


def _describe(network: nn.Module, name: str) -> dict:
    """The image tower's kind and sizes, or why it cannot be read."""
    visual = network.visual
    if isinstance(visual, ModifiedResNet):
        pool = visual.attnpool
        return {
            "kind": "resnet",
            "activation": "relu",
            "embed_dim": visual.output_dim,
            "layers": 4,
            "heads": pool.num_heads,
            "neurons": pool.v_proj.in_features,
        }
    try:
        anatomy = anatomy_of(visual)
    except Refused as refused:
        raise unsupported(name, str(refused)) from None
    return {
        "kind": "vit",
        "activation": anatomy.activation,
        "embed_dim": anatomy.pooling.readout.shape[1],
        "layers": len(anatomy.blocks),
        "heads": anatomy.heads,
        "neurons": anatomy.neurons,
    }
