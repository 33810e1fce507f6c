"""Load CLIP models through open_clip, and refuse those that would be read wrongly."""

import hashlib
import math
from collections.abc import Callable, Sequence
from copy import copy, deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import open_clip
import torch
from jaxtyping import Float, Int
from open_clip.modified_resnet import ModifiedResNet
from open_clip.transform import PreprocessCfg, image_transform_v2
from open_clip.transformer import QuickGELU, ResidualAttentionBlock, VisionTransformer
from torch import Tensor, nn

CONFIG_FILE = "open_clip_config.json"
WEIGHTS_FILE = "open_clip_model.safetensors"
RANDOM = "random"
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_THAT_WORK = "ViT-B-32, ViT-B-16, ViT-L-14 (openai, laion*, datacomp*, metaclip*), RN50, RN101"


class UnsupportedModel(ValueError):
    """The model's image tower is not one whose neurons this library reads exactly."""


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
    activation: Literal["gelu", "quick_gelu", "relu"]
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

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of positions that the image tower attends to."""
        if self.kind == "vit":
            return self.visual.grid_size
        height, width = self.image_size
        return height // 32, width // 32

    @torch.no_grad()
    def encode_image(
        self, images: Float[Tensor, "image 3 height width"]
    ) -> Float[Tensor, "image embed"]:
        """Image embeddings, not normalised."""
        return self.visual(images.to(self.device, self.dtype)).float()

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
    """Load a CLIP model whose image tower is a plain ViT or a ModifiedResNet.

    Args:
        model: an open_clip name (``"ViT-B-32"``), ``"hf-hub:owner/name"``, or a folder with
            ``open_clip_config.json`` and ``open_clip_model.safetensors``.
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
    name = str(model)
    if name in open_clip.list_models():
        network = _create_named(name, pretrained)
    elif name.startswith("hf-hub:"):
        network = _create(name)
    elif Path(name).is_dir():
        name = _folder(Path(name))
        network = _create(name)
    else:
        raise KeyError(
            f"{name!r} is neither a folder nor an open_clip model. Some that work: {_THAT_WORK}, "
            "'hf-hub:owner/name'"
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
        tokenizer=open_clip.get_tokenizer(name),
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
    holder = visual if clip.kind == "vit" else visual.attnpool
    table = holder.positional_embedding  # the class token or the mean first, then rows
    places = stretch_positions(table[1:].float(), old, new).to(table)
    holder.positional_embedding = nn.Parameter(torch.cat([table[:1], places]), requires_grad=False)
    visual.image_size = tuple(
        side // o * n for side, o, n in zip(clip.image_size, old, new, strict=True)
    )
    if clip.kind == "vit":
        visual.grid_size = new
    model = copy(clip.model)
    model._modules = {**clip.model._modules, "visual": visual}
    config = replace(PreprocessCfg(**visual.preprocess_cfg), size=visual.image_size)
    return replace(
        clip,
        model=model,
        image_size=visual.image_size,
        preprocess=image_transform_v2(config, is_train=False),
    )


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


def _create_named(name: str, pretrained: str | None) -> nn.Module:
    # What the configuration alone tells is said before gigabytes are fetched.
    config = open_clip.get_model_config(name)
    trunk = config["vision_cfg"].get("timm_model_name")
    if trunk:
        raise _unsupported(name, f"its image tower is timm's {trunk}")
    if "multimodal_cfg" in config:
        raise _unsupported(name, "it pools by attention (CoCa) instead of reading the class token")
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
    reason = _why_not_a_plain_vit(visual)
    if reason:
        raise _unsupported(name, reason)
    blocks = visual.transformer.resblocks
    gelu = blocks[0].mlp.gelu
    return {
        "kind": "vit",
        "activation": "quick_gelu" if isinstance(gelu, QuickGELU) else "gelu",
        "embed_dim": visual.output_dim,
        "layers": len(blocks),
        "heads": blocks[0].attn.num_heads,
        "neurons": blocks[0].mlp.c_fc.out_features,
    }


def _unsupported(name: str, reason: str) -> UnsupportedModel:
    return UnsupportedModel(
        f"{name} cannot be read exactly: {reason}. Models that work: {_THAT_WORK}"
    )


def _why_not_a_plain_vit(visual: nn.Module) -> str | None:
    if not isinstance(visual, VisionTransformer):
        inner = type(getattr(visual, "trunk", visual)).__name__
        return f"its image tower is a {inner}, not a CLIP ViT or ModifiedResNet"
    if visual.attn_pool is not None:
        return "it pools by attention (CoCa) instead of reading the class token"
    if visual.pool_type != "tok":
        return f"it pools by {visual.pool_type!r} instead of reading the class token"
    if visual.final_ln_after_pool:
        return "its last layer norm comes after pooling"
    if visual.proj is None:
        return "it has no projection into the joint space"
    for index, block in enumerate(visual.transformer.resblocks):
        # Exact type: the custom block adds norms and scales to the residual branches.
        if type(block) is not ResidualAttentionBlock or block.attn.in_proj_weight is None:
            return f"block {index} is a {type(block).__name__}, not a plain pre-norm block"
        if not (isinstance(block.ls_1, nn.Identity) and isinstance(block.ls_2, nn.Identity)):
            return f"block {index} scales its residual branches (LayerScale)"
        if not isinstance(block.ln_1, nn.LayerNorm):
            return f"block {index} normalises with {type(block.ln_1).__name__}, not LayerNorm"
        if not isinstance(block.mlp.gelu, (nn.GELU, QuickGELU)):
            return f"block {index} uses {type(block.mlp.gelu).__name__}, not GELU or QuickGELU"
    return None
