"""CLIP and SigLIP checkpoints of transformers, with their tokenizer and preprocessing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError
from jaxtyping import Float, Int
from open_clip.constants import (
    INCEPTION_MEAN,
    INCEPTION_STD,
    OPENAI_DATASET_MEAN,
    OPENAI_DATASET_STD,
)
from open_clip.model import set_model_preprocess_cfg
from open_clip.transform import PreprocessCfg
from safetensors import SafetensorError
from torch import Tensor, nn

from clipneurons.models.allowed import (
    check_colours,
    check_tokenizer,
    fitting,
    plain_config,
    read_json,
)
from clipneurons.models.open_clip_folder import CONFIG_FILE
from clipneurons.models.weights import read_header

if TYPE_CHECKING:
    from transformers import PretrainedConfig

# Of transformers, which is imported only where a checkpoint of it is opened.
_CLASSES = ("CLIPModel", "CLIPVisionModelWithProjection", "SiglipModel", "Siglip2Model")
_FILES = ("*.json", "*.txt", "*.model", "model*.safetensors")
_INTERPOLATIONS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
_RESIZED = (2, 3)  # those of open_clip


class TransformersVision(nn.Module):
    """The image tower of a checkpoint: images to embeddings, not normalised."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.vision = model.vision_model
        self.projection = getattr(model, "visual_projection", None)
        config = model.config
        config = getattr(config, "vision_config", config)
        self.patch_size = config.patch_size
        side = getattr(config, "image_size", None)
        if self.naflex:
            rows = math.isqrt(config.num_patches)
            if rows**2 != config.num_patches:
                raise ValueError(
                    f"{config.num_patches} patches make no square grid: expected a square number, "
                    "such as 256"
                )
            side = rows * config.patch_size
        self.native = self.image_size = (side, side)

    @property
    def naflex(self) -> bool:
        """SigLIP 2's tower of any aspect: it takes patches and their grid; here of one square."""
        return "Siglip2" in type(self.vision).__name__

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        height, width = self.image_size
        return height // self.patch_size, width // self.patch_size

    def inputs(self, images: Float[Tensor, "image 3 height width"]) -> dict:
        """What the checkpoint's own model is called with."""
        if not self.naflex:
            return {
                "pixel_values": images,
                "interpolate_pos_encoding": self.image_size != self.native,
            }
        rows, columns = self.grid
        size = self.patch_size
        patches = images.unfold(2, size, size).unfold(3, size, size)
        patches = patches.permute(0, 2, 3, 4, 5, 1).reshape(len(images), rows * columns, -1)
        shapes = torch.tensor([[rows, columns]], device=images.device)
        return {"pixel_values": patches, "spatial_shapes": shapes.expand(len(images), 2)}

    def forward(self, images: Float[Tensor, "image 3 height width"]) -> Tensor:
        """Image embeddings ``[image, embed]``."""
        inputs = self.inputs(images)
        if self.naflex:
            mask = inputs["pixel_values"].new_ones(inputs["pixel_values"].shape[:2])
            inputs["pixel_attention_mask"] = mask.long()
        pooled = self.vision(**inputs).pooler_output
        return pooled if self.projection is None else self.projection(pooled)


class TransformersClip(nn.Module):
    """Both towers of a checkpoint, under open_clip's names."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.visual = TransformersVision(model)
        # Without a text tower images can be read, texts cannot.
        self.text = getattr(model, "text_model", None)
        self.text_projection = getattr(model, "text_projection", None)
        self.sigmoid = hasattr(model, "logit_bias")

    def encode_text(self, tokens: Int[Tensor, "text context"]) -> Float[Tensor, "text embed"]:
        """Text embeddings, not normalised.

        Raises:
            ValueError: a checkpoint without text tower.
        """
        if self.text is None:
            raise ValueError(
                "the checkpoint has no text tower: expected a CLIPModel or SiglipModel"
            )
        pooled = self.text(input_ids=tokens).pooler_output
        return pooled if self.text_projection is None else self.text_projection(pooled)


@dataclass(frozen=True)
class TransformersTokenizer:
    """The tokenizer saved with a checkpoint; SigLIP's texts are lower-cased, all are padded."""

    folder: Path
    config: PretrainedConfig
    context_length: int
    lower: bool

    @cached_property
    def _own(self):
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(
            self.folder, config=self.config, local_files_only=True, trust_remote_code=False
        )

    def __call__(self, texts: Sequence[str]) -> Int[Tensor, "text context"]:
        """Token numbers, cut and padded to the length that the model was trained with."""
        texts = [text.lower() for text in texts] if self.lower else list(texts)
        # To the right whatever the class's default is: SigLIP reads the last of all 64 tokens.
        return self._own(
            texts, padding="max_length", truncation=True, max_length=self.context_length,
            padding_side="right", return_tensors="pt",
        ).input_ids  # fmt: skip


def is_checkpoint(folder: Path) -> bool:
    """Whether a folder holds a model saved by transformers.

    Of a `config.json` of something else beside open_clip's files those are read.
    """
    if not (folder / "config.json").is_file():
        return False
    saved = read_json(folder / "config.json")
    if (folder / CONFIG_FILE).is_file():
        return _architecture(saved) in _CLASSES
    return "architectures" in saved


def fetch(name: str) -> Path:
    """The folder of a repository on the Hub, weights as safetensors only.

    Raises:
        KeyError: no such repository.
        ValueError: the Hub cannot be reached, or refuses.
    """
    try:
        return Path(snapshot_download(name, allow_patterns=list(_FILES)))
    except RepositoryNotFoundError:
        raise KeyError(
            f"there is no repository {name!r} on the Hub that you may read: expected 'owner/name' "
            "of a transformers checkpoint, or 'hf-hub:owner/name' of an open_clip model"
        ) from None
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ValueError(f"{name!r} could not be fetched from the Hub ({reason})") from None


def load_checkpoint(folder: Path) -> tuple[TransformersClip, TransformersTokenizer]:
    """The model of a folder, in float32 on the CPU, and its tokenizer.

    Raises:
        ValueError: no CLIP or SigLIP, missing weights, or weights that are no safetensors.
    """
    if not is_checkpoint(folder):
        raise ValueError(
            f"{folder} holds no config.json of transformers: expected a saved CLIPModel or "
            "SiglipModel; an open_clip model on the Hub is 'hf-hub:owner/name'"
        )
    saved = read_json(folder / "config.json")
    architecture = _architecture(saved)
    if architecture not in _CLASSES:
        told = f"is a {architecture}" if architecture else "names no architecture"
        raise ValueError(f"{folder}/config.json {told}: expected one of {', '.join(_CLASSES)}")
    if not (weights := list(folder.glob("model*.safetensors"))):
        openai = "OpenAI's own are ViT-B-32 (or -B-16, -L-14, -L-14-336) with --pretrained openai"
        hint = openai if "openai" in str(folder) else "save it again with transformers"
        raise ValueError(
            f"{folder} holds no model.safetensors; other weights are not opened: {hint}"
        )
    if (folder / "adapter_config.json").exists():
        raise adapter(folder)
    check_tokenizer(folder)
    config = plain_config(saved, architecture, str(folder))
    import transformers

    kind = getattr(transformers, architecture)
    _check_shards(folder, weights)
    fitting(partial(kind, config), weights, str(folder))
    try:
        model, report = kind.from_pretrained(
            folder, config=config, local_files_only=True, use_safetensors=True,
            output_loading_info=True, dtype=torch.float32, ignore_mismatched_sizes=True,
        )  # fmt: skip
    except (RuntimeError, OSError, ValueError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"the weights in {folder} do not fit its config.json ({reason})") from None
    for key, saved_shape, shape in report["mismatched_keys"]:
        raise ValueError(
            f"the weights in {folder} do not fit its config.json: {key} is {list(saved_shape)},"
            f" expected {list(shape)}"
        )
    if missing := sorted(report["missing_keys"]):
        raise ValueError(f"the weights in {folder} do not fit its config.json: {missing[0]}")
    network = TransformersClip(model)
    preprocess = _preprocessing(folder, network.visual.native)
    set_model_preprocess_cfg(network, asdict(preprocess))
    text = getattr(model.config, "text_config", None)
    length = 77 if text is None else text.max_position_embeddings
    return network, TransformersTokenizer(folder, config, length, "Siglip" in architecture)


def adapter(folder: Path) -> ValueError:
    """The refusal of what PEFT saved beside, or instead of, a model's weights."""
    return ValueError(
        f"{folder} holds an adapter, which would not be read: merge it first (merge_and_unload() of"
        " peft), and save the whole model"
    )


def _architecture(saved: dict) -> str:
    named = saved.get("architectures")
    return named[0] if isinstance(named, list) and named else ""


def _check_shards(folder: Path, weights: Sequence[Path]) -> None:
    """Raise ValueError for a damaged file of weights, a missing shard or a missing index."""
    for file in weights:
        read_header(file)
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        named = set(read_json(index).get("weight_map", {}).values())
        if absent := sorted(named - {file.name for file in weights}):
            raise ValueError(f"{folder} lacks {absent[0]}, which its index names: fetch it again")
    elif not (folder / "model.safetensors").is_file():
        raise ValueError(f"{folder} holds shards of weights without {index.name}: fetch it too")


def _preprocessing(folder: Path, size: tuple[int, int]) -> PreprocessCfg:
    """What the saved image processor does, in open_clip's words."""
    for name in ("preprocessor_config.json", "processor_config.json"):
        if (folder / name).is_file():
            saved = read_json(folder / name)
            saved = saved.get("image_processor") or saved
            break
    else:
        raise ValueError(
            f"{folder} holds no preprocessor_config.json: save the processor there too"
        )
    return _open_clip_words(saved, size, _default_processor(folder, saved), folder)


def _default_processor(folder: Path, saved: dict) -> dict:
    """What the processor's class does where its file says nothing."""
    kind = saved.get("image_processor_type") or saved.get("feature_extractor_type") or ""
    if not kind:
        kind = read_json(folder / "config.json")["architectures"][0]
    clip = "Siglip" not in kind
    return {
        "image_mean": list(OPENAI_DATASET_MEAN if clip else INCEPTION_MEAN),
        "image_std": list(OPENAI_DATASET_STD if clip else INCEPTION_STD),
        "resample": 3 if clip else 2 if "Siglip2" in kind else 3,
        "do_center_crop": clip,
        "rescale_factor": 1 / 255,
    }


def _open_clip_words(
    saved: dict, size: tuple[int, int], defaults: dict, folder: Path
) -> PreprocessCfg:
    """The same preprocessing in open_clip's words; `ValueError` names a key that has none."""

    def value(key: str):
        return defaults[key] if saved.get(key) is None else saved[key]

    def refuse(key: str, expected: str) -> ValueError:
        return ValueError(
            f"{folder}: the image processor has {key} = {saved.get(key)!r}, expected {expected}: "
            "images would be read otherwise than the model was trained with"
        )

    for key in ("do_resize", "do_rescale", "do_normalize"):
        if saved.get(key) not in (None, True):
            raise refuse(key, "true")
    if (
        not isinstance(value("rescale_factor"), float)
        or abs(value("rescale_factor") * 255 - 1) > 1e-6
    ):
        raise refuse("rescale_factor", "1/255")
    for key in ("image_mean", "image_std"):
        check_colours(value(key), key, str(folder))
    resample = value("resample")
    if isinstance(resample, str):
        resample = {word: number for number, word in _INTERPOLATIONS.items()}.get(resample.lower())
    if resample not in _RESIZED:
        raise refuse("resample", "2 (bilinear) or 3 (bicubic)")
    crop, told = bool(value("do_center_crop")), saved.get("size")
    kind = "shortest_edge" if isinstance(told, int) and crop else None
    if isinstance(told, dict):
        kind = "shortest_edge" if "shortest_edge" in told else "height and width"
    if kind and crop != (kind == "shortest_edge"):
        raise refuse("size", "a shortest_edge where images are cropped, else height and width")
    for key in ("size", "crop_size") if crop else ("size",):
        if _sides(saved.get(key)) not in (None, size):
            raise refuse(key, f"{size[0]} pixels, as the model reads")
    return PreprocessCfg(
        size=size,
        mean=tuple(value("image_mean")),
        std=tuple(value("image_std")),
        interpolation=_INTERPOLATIONS[resample],
        resize_mode="shortest" if crop else "squash",
    )


def _sides(told: object) -> tuple[object, object] | None:
    """Height and width in a processor's file: a number, or one of two kinds of objects."""
    if isinstance(told, dict) and told:
        edge = told.get("shortest_edge")
        return told.get("height", edge), told.get("width", edge)
    return None if told is None or isinstance(told, dict) else (told, told)
