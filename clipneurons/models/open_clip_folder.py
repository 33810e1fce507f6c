"""A folder saved for open_clip; its text tower may be that of the folder beside it, stored once."""

import shutil
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import load_file, save, save_file
from torch import Tensor

CONFIG_FILE = "open_clip_config.json"
WEIGHTS_FILE = "open_clip_model.safetensors"
_SHARED = "text_tower"  # in the file's metadata: the neighbour whose text tower it is
_IMAGE = ("visual.", "logit_scale")  # what is never shared


def text_owner(folder: Path) -> Path | None:
    """The folder beside this one that holds its text tower; None where the weights are whole.

    Raises:
        ValueError: the metadata name something else than a neighbour, or one without weights.
    """
    with safe_open(folder / WEIGHTS_FILE, "pt") as file:
        name = (file.metadata() or {}).get(_SHARED)
    if name is None:
        return None
    owner = folder.resolve().parent / name
    if name in ("", ".", "..") or Path(name).name != name or owner == folder.resolve():
        raise ValueError(f"{folder}: {name!r} is no name of a folder beside it")
    if not (owner / WEIGHTS_FILE).is_file():
        raise ValueError(
            f"{folder} shares the text tower of {name}, which does not lie beside it: "
            f"expected {owner / WEIGHTS_FILE}"
        )
    return owner


def read_weights(folder: Path) -> dict[str, Tensor]:
    """All weights of a folder, with the text tower of its neighbour where it shares that."""
    weights = load_file(folder / WEIGHTS_FILE)
    if owner := text_owner(folder):
        weights |= _text(load_file(owner / WEIGHTS_FILE))
    return weights


def complete(folder: Path, whole: Path) -> None:
    """Write configuration and all weights into another folder, which open_clip loads by itself."""
    shutil.copyfile(folder / CONFIG_FILE, whole / CONFIG_FILE)
    write_weights(whole, read_weights(folder))


def whole_file(folder: Path) -> Path | bytes:
    """The weights file of a folder as it must travel alone: its path, or completed bytes."""
    if text_owner(folder) is None:
        return folder / WEIGHTS_FILE
    return save(read_weights(folder), {"format": "pt"})


def write_weights(
    folder: Path, weights: dict[str, Tensor], shares_text_of: str | None = None
) -> None:
    """Write weights of an open_clip model, without the text tower if a neighbour holds it."""
    metadata = {"format": "pt"}
    if shares_text_of:
        weights = {name: weights[name] for name in weights.keys() - _text(weights).keys()}
        metadata[_SHARED] = shares_text_of
    path = folder / WEIGHTS_FILE
    save_file(weights, path, metadata)
    path.chmod(0o644)


def _text(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in weights.items() if not name.startswith(_IMAGE)}
