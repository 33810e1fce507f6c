"""Load CLIP models through open_clip, and refuse those that would be read wrongly."""

import hashlib
import math
from collections.abc import Callable, Sequence
from copy import copy, deepcopy
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import open_clip
import torch
from jaxtyping import Float, Int
from open_clip.modified_resnet import ModifiedResNet
from open_clip.timm_model import TimmModel
from open_clip.transform import PreprocessCfg, image_transform_v2
from safetensors import SafetensorError
from torch import Tensor, nn

from clipneurons.models.adapters.common import Refused
from clipneurons.models.adapters.registry import anatomy_of
from clipneurons.models.anatomy import Anatomy, UnsupportedModel
from clipneurons.models.configurations import anatomy_of_configuration
from clipneurons.models.open_clip_folder import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    complete,
    text_owner,
)
from clipneurons.models.transformers_clip import (
    TransformersVision,
    fetch,
    is_checkpoint,
    is_repository,
    load_checkpoint,
)

RANDOM = "random"
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_CLEANED = {"canonicalize": "lower-cased, without punctuation, ", "lower": "lower-cased, "}
_THAT_WORK = (
    "ViT-B-32, ViT-B-16, ViT-L-14 (openai, laion*, datacomp*, metaclip*), ViT-*-SigLIP*, "
    "PE-Core-*, EVA02-*, RN50, RN101"
)


@dataclass(frozen=True)
class Tokenizer:
    """open_clip's tokenizer of a model, fetched when the first text needs it."""

    name: str

    @cached_property
    def open_clip(self) -> Callable:
        """The tokenizer itself."""
        return open_clip.get_tokenizer(self.name)

    def __call__(self, texts: Sequence[str]) -> Int[Tensor, "text context"]:
        """Token numbers, cleaned, cut and padded as the model was trained with."""
        return self.open_clip(list(texts))


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
        own = getattr(self.tokenizer, "open_clip", self.tokenizer)
        return f"{_CLEANED.get(self._cleaning, '')}cut and padded to {own.context_length} tokens"

    @property
    def _cleaning(self) -> str:
        own = getattr(self.tokenizer, "open_clip", self.tokenizer)
        clean = getattr(getattr(own, "clean_fn", None), "__name__", "").removeprefix("_clean_")
        return "lower" if getattr(own, "lower", False) else clean

    @property
    def siglip(self) -> bool:
        """Whether it was trained as SigLIP is: with a sigmoid, on lower-cased texts."""
        biased = getattr(self.model, "logit_bias", None) is not None
        sigmoid = biased or getattr(self.model, "sigmoid", False)
        return sigmoid and self._cleaning in _CLEANED

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
    device: str | torch.device | None = None,
    precision: str = "fp32",
) -> ClipModel:
    """Load a CLIP model whose image tower is a ViT (docs/models.md) or a ModifiedResNet.

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

    Raises:
        KeyError: an unknown model name or tag.
        ValueError: missing weights, an unknown precision.
        UnsupportedModel: a model that would be read wrongly; the message says why.
    """
    if precision not in _DTYPES:
        raise ValueError(f"precision must be one of {', '.join(_DTYPES)}, not {precision!r}")
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    name, tokenizer = str(model), None
    if name in open_clip.list_models():
        network = _create_named(name, pretrained)
    elif name.startswith("hf-hub:"):
        network = _create(name)
    elif Path(name).is_dir() and is_checkpoint(Path(name)):
        network, tokenizer = load_checkpoint(Path(name))
    elif Path(name).is_dir():
        name = _folder(Path(name))
        network = _create_from(Path(model), name)
    elif is_repository(name):
        network, tokenizer = load_checkpoint(fetch(name))
    else:
        raise KeyError(
            f"{name!r} is neither a folder nor an open_clip model. Some that work: {_THAT_WORK}, "
            "'hf-hub:owner/name' of open_clip, 'owner/name' of transformers"
        )
    description = _describe(network, name)
    network = network.eval().requires_grad_(False).to(device, _DTYPES[precision])
    preprocess_cfg = PreprocessCfg(**network.visual.preprocess_cfg)
    return ClipModel(
        model=network,
        name=name.removeprefix("local-dir:"),
        pretrained=pretrained,
        image_size=_pair(network.visual.image_size),
        image_mean=tuple(preprocess_cfg.mean),
        image_std=tuple(preprocess_cfg.std),
        device=device,
        dtype=_DTYPES[precision],
        preprocess=image_transform_v2(preprocess_cfg, is_train=False),
        tokenizer=tokenizer or Tokenizer(name),
        **description,
    )


@torch.no_grad()
def enlarge(clip: ClipModel, factor: float) -> ClipModel:
    """The model for larger images: the same weights, positional embeddings stretched to the grid.

    ``factor`` is that of the image's sides, rounded to whole patches or positions. The image
    model is copied. Raises `ValueError` where less than one patch would be left, or the factor is
    no finite number.
    """
    if not math.isfinite(factor):
        raise ValueError(f"factor must be a finite number, not {factor}")
    old = clip.grid
    new = tuple(round(side * factor) for side in old)
    if min(new) < 1:
        raise ValueError(f"a grid of {old} times {factor} leaves no patch")
    if new == old:
        return clip
    visual = deepcopy(clip.visual)
    size = tuple(side // o * n for side, o, n in zip(clip.image_size, old, new, strict=True))
    if isinstance(visual, TimmModel):
        visual.trunk.set_input_size(img_size=size)
    elif not isinstance(visual, TransformersVision):  # which stretches them as it reads
        holder = visual if clip.kind == "vit" else visual.attnpool
        table = holder.positional_embedding  # the class token or the mean first, then rows
        places = stretch_positions(table[1:].float(), old, new).to(table)
        stretched = torch.cat([table[:1], places])
        holder.positional_embedding = nn.Parameter(stretched, requires_grad=False)
        if clip.kind == "vit":
            visual.grid_size = new
    visual.image_size = size
    config = replace(PreprocessCfg(**visual.preprocess_cfg), size=visual.image_size)
    return replace(
        with_visual(clip, visual),
        image_size=visual.image_size,
        preprocess=image_transform_v2(config, is_train=False),
    )


def with_visual(clip: ClipModel, visual: nn.Module) -> ClipModel:
    """The model with another image tower of the same kind; its text tower is shared, not copied."""
    model = copy(clip.model)
    model._modules = {**clip.model._modules, "visual": visual}
    return replace(clip, model=model)


def stretch_positions(
    table: Float[Tensor, "position width"], old: tuple[int, int], new: tuple[int, int]
) -> Float[Tensor, "stretched width"]:
    """Positional embeddings of one grid for another, as open_clip stretches those of ViTs."""
    places = table.T.unflatten(-1, old)[None]
    stretched = nn.functional.interpolate(places, new, mode="bicubic", antialias=True)
    return stretched[0].flatten(1).T


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


def _create(name: str, pretrained: str | None = None, **options) -> nn.Module:
    try:
        return open_clip.create_model(name, pretrained, require_pretrained=True, **options)
    except Exception as error:  # unpickling a file that holds no weights may raise anything
        reason = f"{type(error).__name__}: {error}".splitlines()[0].split(". ")[0]
        raise ValueError(
            f"the weights {f'{pretrained} ' if pretrained else ''}of {name!r} could not be loaded"
            f" ({reason}). Expected a model that is in the local cache or reachable on the Hub, or"
            " a file or folder with its weights"
        ) from error


def _create_from(folder: Path, name: str) -> nn.Module:
    try:
        if not text_owner(folder):
            return _create(name)
        with TemporaryDirectory() as whole:
            complete(folder, Path(whole))
            return _create(f"local-dir:{whole}")
    except (OSError, SafetensorError) as error:
        raise ValueError(f"the weights of {name!r} could not be loaded ({error})") from error


def _create_named(name: str, pretrained: str | None) -> nn.Module:
    try:  # what the configuration alone tells is said before gigabytes are fetched
        anatomy_of_configuration(name)
    except Refused as refused:
        raise _unsupported(name, str(refused)) from None
    if pretrained == RANDOM:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return open_clip.create_model(name, pretrained_text=False)
    tags = open_clip.list_pretrained_tags_by_model(name)
    known = pretrained is not None and pretrained.lower().replace("-", "_") in tags
    if not known and not (pretrained and Path(pretrained).is_file()):
        wrong = f"{pretrained!r} is not a set of weights of {name}"
        if not pretrained:
            wrong = f"{name} needs the name of its weights (--pretrained)"
        raise KeyError(f"{wrong}. Expected one of {', '.join(tags)}, or a file")
    # OpenAI's weights were trained with QuickGELU in both towers; open_clip only warns.
    tag_config = open_clip.get_pretrained_cfg(name, pretrained) if known else {}
    quick = bool(tag_config.get("quick_gelu"))
    return _create(name, pretrained, force_quick_gelu=quick)


def _folder(path: Path) -> str:
    for file in (CONFIG_FILE, WEIGHTS_FILE):
        if not (path / file).is_file():
            raise ValueError(f"{path} holds no {file}: expected a folder saved for open_clip")
    return f"local-dir:{path}"


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
        raise _unsupported(name, str(refused)) from None
    return {
        "kind": "vit",
        "activation": anatomy.activation,
        "embed_dim": anatomy.pooling.readout.shape[1],
        "layers": len(anatomy.blocks),
        "heads": anatomy.heads,
        "neurons": anatomy.neurons,
    }


def _unsupported(name: str, reason: str) -> UnsupportedModel:
    return UnsupportedModel(
        f"{name} cannot be read exactly: {reason}. Models that work: {_THAT_WORK}"
    )
