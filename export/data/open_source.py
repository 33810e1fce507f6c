"""Where images come from: what a user's `--images` names."""

from __future__ import annotations

from pathlib import Path

from export.common.errors import SourceError
from export.data.dataset import Limited, Source
from export.data.dataset_sources import cifar10, composed_scenes, huggingface
from export.data.file_sources import FolderSource, TarSource, tar_files
from export.data.packed_sources import Joined, shipped_photographs

SCENES, PHOTOGRAPHS = "scenes", "photographs"
HELD_OUT = "photographs:held-out"


def is_scenes(spec: str) -> bool:
    """Whether a user's `--images` names composed scenes; `./scenes` is a folder."""
    return spec.partition(":")[0] == SCENES


def ships(spec: str) -> bool:
    """Whether `--images` names composed scenes, the shipped photographs, or both."""
    return all(is_scenes(part) or part in (PHOTOGRAPHS, HELD_OUT) for part in spec.split("+"))


def shipped_spec(data: str, scenes: int | None = None, photographs: str = PHOTOGRAPHS) -> str:
    """What names a bundle's data (`config.data.name`) where it ships with the project, else "".

    `scenes`: how many; `photographs`: which.
    """
    specs = {"composed scenes": f"{SCENES}:{scenes}" if scenes else SCENES,
             "photographs": photographs}  # fmt: skip
    parts = data.split(" and ")
    return "+".join(specs[part] for part in parts) if specs.keys() >= set(parts) else ""


def open_source(
    spec: str,
    *,
    split: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    image_size: int = 64,
    heldout: bool = False,
    image_key: str | None = None,
) -> Source:
    """The source that a user's `--images` names.

    `scenes` or `scenes:COUNT` (composed, of `image_size` pixels), `photographs` (those that ship,
    without those that are kept for figures: `photographs:held-out`), both
    (`scenes:3000+photographs`), a folder, tar files (a path, a glob or `name-{000..012}.tar`),
    `cifar10:ROOT`, or `hf:owner/name[@revision]`. `limit` keeps the first images. `heldout` takes
    the scenes and photographs that are kept for figures. `image_key` says which image of a tar
    file's samples is meant.
    Raises `SourceError`.
    """
    kind, _, rest = spec.partition(":")
    if "+" in spec and ships(spec):
        parts = [
            open_source(part, split=split, seed=seed, image_size=image_size, heldout=heldout)
            for part in spec.split("+")
        ]
        source = Joined(parts)
    elif spec in (PHOTOGRAPHS, HELD_OUT):
        source = shipped_photographs(heldout or spec == HELD_OUT)
    elif is_scenes(spec):
        if rest and not rest.isdigit():
            raise SourceError(f"--images {spec!r}: expected scenes:COUNT")
        source = composed_scenes(int(rest or limit or 5000), seed, image_size, heldout)
    elif kind == "cifar10":
        source = cifar10(Path(rest or "."), split or "test")
    elif kind == "hf":
        source = huggingface(rest, split or "train", limit)
    elif shards := tar_files(spec):
        source = TarSource(shards, Path(spec).name, image_key)
    elif Path(spec).is_dir():
        root = Path(spec) / split if split else Path(spec)
        source = FolderSource(root)
    else:
        state = "is a file" if Path(spec).exists() else "does not exist"
        raise SourceError(
            f"--images {spec!r} {state}. Expected a folder, tar files, 'scenes:COUNT',"
            " 'photographs', 'cifar10:FOLDER' or 'hf:owner/name'"
        )
    return Limited(source, limit) if limit and limit < len(source) else source
