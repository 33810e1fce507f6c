"""Networks of open_clip and transformers by name or folder, and their tokenizers."""

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from tempfile import TemporaryDirectory

import open_clip
import torch
from jaxtyping import Int
from open_clip.pretrained import download_pretrained_from_hf
from safetensors import SafetensorError
from torch import Tensor, nn

from clipneurons.bundle.hub import REPOSITORY
from clipneurons.models.adapters.common import Refused
from clipneurons.models.allowed import check_open_clip, check_tokenizer, fitting, read_json
from clipneurons.models.anatomy import UnsupportedModel
from clipneurons.models.configurations import anatomy_of_configuration
from clipneurons.models.open_clip_folder import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    complete,
    text_owner,
)
from clipneurons.models.preprocessing import preprocessing_of, quick_gelu_of
from clipneurons.models.transformers_clip import (
    adapter,
    fetch,
    is_checkpoint,
    load_checkpoint,
)
from clipneurons.models.weights import load_weights

RANDOM = "random"
_ON_HUB = "hf-hub:"  # before the name of a repository in open_clip's form
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
        from_transformers = "hf_tokenizer_name" in open_clip.get_model_config(self.name)["text_cfg"]
        options = {"trust_remote_code": False} if from_transformers else {}
        return open_clip.get_tokenizer(self.name, **options)

    def __call__(self, texts: Sequence[str]) -> Int[Tensor, "text context"]:
        """Token numbers, cleaned, cut and padded as the model was trained with."""
        return self.open_clip(list(texts))


@dataclass(frozen=True)
class Reading:
    """How weights are to be read that do not say it themselves; None leaves it to the name.

    ``activation`` is "gelu" or "quick_gelu", ``preprocess`` "clip", "siglip" or a JSON file (see
    `clipneurons.models.preprocessing`), ``image_size`` a side in pixels, for which positions are
    resampled.
    """

    activation: str | None = None
    preprocess: str | Path | Mapping | None = None
    image_size: int | None = None


def open_network(
    model: str | Path, pretrained: str | None, reading: Reading
) -> tuple[nn.Module, str, Callable]:
    """The network that `clipneurons.models.clip.load_clip` is asked for, as it was saved.

    Returns it with its name (open_clip's, or the checkpoint's) and its tokenizer.

    Raises:
        KeyError: an unknown model name or tag.
        ValueError: missing weights.
        UnsupportedModel: what its configuration alone tells that it would be read wrongly.
    """
    name = str(model)
    if name in open_clip.list_models():
        return _create_named(name, pretrained, reading), name, Tokenizer(name)
    if reading != Reading():
        raise ValueError(
            f"activation, preprocess and image size are those that {name} was saved with: they are "
            "given for a named model with a weights file"
        )
    if name.startswith(_ON_HUB):
        return _create_from_hub(name), name, Tokenizer(name)
    if Path(name).is_dir() and is_checkpoint(Path(name)):
        network, tokenizer = load_checkpoint(Path(name))
        return network, name, tokenizer
    if Path(name).is_dir():
        name = _folder(Path(name))
        return _create_from_folder(Path(model), name), name, Tokenizer(name)
    if REPOSITORY.fullmatch(name) and name.replace("/", "-") not in open_clip.list_models():
        network, tokenizer = load_checkpoint(fetch(name))
        return network, name, tokenizer
    if "/" in name and (Path(name).is_absolute() or Path(name).parent.is_dir()):
        raise KeyError(f"there is no folder {name}")
    if close := difflib.get_close_matches(name.replace("/", "-"), open_clip.list_models(), 1, 0.8):
        raise KeyError(f"{name!r} is no model of open_clip: did you mean {close[0]}?")
    raise KeyError(
        f"{name!r} is neither a folder nor an open_clip model. Some that work: {_THAT_WORK}, "
        "'hf-hub:owner/name' of open_clip, 'owner/name' of transformers"
    )


def _create(name: str, pretrained: str | None = None, **options) -> nn.Module:
    try:
        return open_clip.create_model(name, pretrained, require_pretrained=True, **options)
    except Exception as error:  # unpickling a file that holds no weights may raise anything
        raise _not_loaded(name, error, pretrained) from error


def _create_from_hub(name: str) -> nn.Module:
    repository = name.removeprefix(_ON_HUB)
    try:
        config = read_json(Path(download_pretrained_from_hf(repository, CONFIG_FILE)))
        check_open_clip(config, name, from_hub=True)
        weights = download_pretrained_from_hf(repository)
    except FileNotFoundError as error:
        raise _not_loaded(name, error) from None
    fitting(partial(_empty, config), [Path(weights)], name)
    return _create(name)


def _create_from_folder(folder: Path, name: str) -> nn.Module:
    config = read_json(folder / CONFIG_FILE)
    check_open_clip(config, str(folder))
    check_tokenizer(folder)
    try:
        owner = text_owner(folder)
        files = [part / WEIGHTS_FILE for part in (folder, owner) if part]
        fitting(partial(_empty, config), files, str(folder))
        if not owner:
            return _create(name)
        with TemporaryDirectory() as whole:
            complete(folder, Path(whole))
            return _create(f"local-dir:{whole}")
    except (OSError, SafetensorError) as error:
        raise ValueError(f"the weights of {name!r} could not be loaded ({error})") from error


def _empty(config: dict) -> nn.Module:
    """The network of an `open_clip_config.json` as open_clip makes it, before its weights."""
    settings = dict(config["model_cfg"])
    own_text = settings.pop("custom_text", False) or "hf_model_name" in settings["text_cfg"]
    settings["vision_cfg"] = settings["vision_cfg"] | {"timm_model_pretrained": False}
    settings["text_cfg"] = settings["text_cfg"] | {"hf_model_pretrained": False}
    if not own_text:
        return open_clip.CLIP(**settings)
    captions = "multimodal_cfg" in settings
    return (open_clip.CoCa if captions else open_clip.CustomTextCLIP)(**settings)


def _not_loaded(name: str, error: Exception, pretrained: str | None = None) -> ValueError:
    reason = f"{type(error).__name__}: {error}".splitlines()[0].split(". ")[0]
    return ValueError(
        f"the weights {f'{pretrained} ' if pretrained else ''}of {name!r} could not be loaded"
        f" ({reason}). Expected a model that is in the local cache or reachable on the Hub, or"
        " a file or folder with its weights"
    )


def _create_named(name: str, pretrained: str | None, reading: Reading) -> nn.Module:
    try:  # what the configuration alone tells is said before gigabytes are fetched
        anatomy_of_configuration(name)
    except Refused as refused:
        raise unsupported(name, str(refused)) from None
    tags = open_clip.list_pretrained_tags_by_model(name)
    known = pretrained is not None and pretrained.lower().replace("-", "_") in tags
    is_file = not known and pretrained is not None and Path(pretrained).is_file()
    if known:
        if reading != Reading():
            raise ValueError(
                f"the activation, preprocessing and image size of {name} {pretrained} are known: "
                "they are given for a weights file"
            )
        # OpenAI's weights were trained with QuickGELU in both towers; open_clip only warns.
        quick = bool(open_clip.get_pretrained_cfg(name, pretrained).get("quick_gelu"))
        return _create(name, pretrained, force_quick_gelu=quick)
    if not is_file and pretrained != RANDOM:
        wrong = f"{pretrained!r} is not a set of weights of {name}"
        if not pretrained:
            wrong = f"{name} needs the name of its weights (--pretrained)"
        expected = f"Expected one of {', '.join(tags)}, or a file" if tags else "Expected a file"
        raise KeyError(f"{wrong}. {expected}")
    cfg = preprocessing_of(name, reading.preprocess, asking=is_file)
    options: dict = {"force_preprocess_cfg": cfg}
    options["force_quick_gelu"] = quick_gelu_of(name, reading.activation, asking=is_file)
    if reading.image_size:
        options["force_image_size"] = reading.image_size
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = open_clip.create_model(name, load_weights=False, pretrained_text=False, **options)
    if is_file:
        load_weights(network, Path(pretrained), name, resample=reading.image_size is not None)
    return network


def _folder(path: Path) -> str:
    if (path / "adapter_config.json").exists():
        raise adapter(path)
    for file in (CONFIG_FILE, WEIGHTS_FILE):
        if not (path / file).is_file():
            raise ValueError(f"{path} holds no {file}: expected a folder saved for open_clip")
    return f"local-dir:{path}"


def unsupported(name: str, reason: str) -> UnsupportedModel:
    """The refusal of a network, with what works instead."""
    return UnsupportedModel(
        f"{name} cannot be read exactly: {reason}. Models that work: {_THAT_WORK}"
    )
