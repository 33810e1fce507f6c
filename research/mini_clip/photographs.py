"""Photographs for training: which are kept out, and all of them decoded once.

The packs (`clipneurons.synthetic.photographs`) may come in several files; whether a photograph is
kept out depends on its own bytes alone, so that the files' number and order change nothing.
"""

import hashlib
import io
import json
from dataclasses import dataclass, replace
from multiprocessing import Pool
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import save_file
from torch import Tensor
from tqdm import tqdm

from clipneurons.synthetic.photographs import Photographs, load_photographs
from export.common.errors import UserError
from research.mini_clip.class_names import plain

SIZE = 64
IMAGES, LABELS = "photographs.npy", "photographs.safetensors"
# How often a batch draws from each data set; another one's share is OTHER.
SHARES = {"tiny-imagenet": 0.5, "cifar-10": 0.2, "caltech-101": 0.1, "natural-images": 0.05,
          "flowers": 0.03, "intel-scenes": 0.07, "describable-textures": 0.05}  # fmt: skip
OTHER = 0.1
# Shares kept out of training besides what a pack marks: CIFAR-10 has no validation images, and
# Caltech-101's are the ones that ship.
KEPT_OUT = {"cifar-10": 0.1, "caltech-101": 0.17}
# Of Caltech-101: drawings under somebody's rights, and persons.
NOT_SHIPPED = ("garfield", "snoopy", "face")


def open_packs(paths: list[Path]) -> list[Photographs]:
    """The packs of the photographs; `UserError` for a missing or damaged one."""
    try:
        return [load_photographs(path) for path in paths]
    except (FileNotFoundError, ValueError) as error:
        raise UserError(str(error)) from None


def kept_out(pack: Photographs) -> np.ndarray:
    """Which photographs no training sees: bool [n]."""
    out = pack.split.astype(bool)
    shippable = ~np.isin([plain(entry["name"]) for entry in pack.classes], NOT_SHIPPED)
    for row, source in enumerate(pack.sources):
        share = KEPT_OUT.get(str(source), 0)
        if share and shippable[pack.label[row]] and not out[row]:
            digest = hashlib.sha256(pack.data(row)).digest()
            out[row] = int.from_bytes(digest[:4], "big") < share * 2**32
    return out


def shipped(pack: Photographs) -> Photographs | None:
    """The photographs of a pack that the project may publish, all of them kept out of training."""
    allowed = ~np.isin([plain(entry["name"]) for entry in pack.classes], NOT_SHIPPED)
    rows = (pack.sources == "caltech-101") & kept_out(pack) & allowed[pack.label]
    if not rows.any():
        return None
    chosen = pack.subset(np.flatnonzero(rows))
    classes = tuple({**entry, "name": plain(entry["name"])} for entry in chosen.classes)
    return replace(chosen, classes=classes, split=np.ones_like(chosen.split))


def decoded(packed: bytes) -> np.ndarray:
    """uint8 [3, SIZE, SIZE], stretched to a square."""
    with Image.open(io.BytesIO(packed)) as picture:
        picture = picture.convert("RGB")
        if picture.size != (SIZE, SIZE):
            picture = picture.resize((SIZE, SIZE), Image.BICUBIC)
        return np.asarray(picture).transpose(2, 0, 1)


def prepare(paths: list[Path], run: Path) -> None:
    """Decode the packs into `run`: an array on disk, and what each image shows."""
    packs = open_packs(paths)
    entries = [entry for pack in packs for entry in pack.classes]
    starts = np.cumsum([0, *(len(pack.classes) for pack in packs)])
    label = np.concatenate([p.label + at for p, at in zip(packs, starts, strict=False)])
    out = np.concatenate([kept_out(pack) for pack in packs])
    run.mkdir(parents=True, exist_ok=True)
    shape = (len(label), 3, SIZE, SIZE)
    partial = run / "photographs.tmp.npy"
    images = np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=shape)
    files = (pack.data(row) for pack in packs for row in range(len(pack)))
    with Pool() as pool:
        made = pool.imap(decoded, files, chunksize=256)
        for row, image in enumerate(tqdm(made, "decoding", len(label), disable=None)):
            images[row] = image
    images.flush()
    partial.replace(run / IMAGES)
    arrays = {"label": label.astype(np.int64), "kept_out": out}
    save_file(arrays, str(run / LABELS), metadata={"classes": json.dumps(entries)})


def class_entries(run: Path) -> list[dict]:
    """The classes of the photographs that were prepared; none if none were."""
    if not (run / LABELS).is_file():
        return []
    with safe_open(str(run / LABELS), framework="numpy") as file:
        return json.loads(file.metadata()["classes"])


@dataclass(frozen=True)
class Collection:
    """Photographs of several data sets: `images` uint8 [n, 3, 64, 64] on disk or on a device,
    `label` [n] into the space's classes, and each data set's `rows`."""

    images: np.ndarray | Tensor
    label: np.ndarray
    rows: dict[str, np.ndarray]

    def take(self, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        """Images uint8 [n, 3, 64, 64], where they lie, and labels [n]."""
        return taken(self.images, rows), torch.from_numpy(self.label[rows])

    def sample(self, count: int, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Images, labels and the number of their data set [count], by `SHARES`."""
        shares = np.array([SHARES.get(source, OTHER) for source in self.rows])
        source = np.sort(rng.choice(len(shares), count, p=shares / shares.sum()))
        counts = np.bincount(source, minlength=len(shares))
        chosen = [rng.choice(rows, n) for rows, n in zip(self.rows.values(), counts, strict=True)]
        images, labels = self.take(np.concatenate(chosen))
        return images, labels, torch.from_numpy(source)


def taken(images: np.ndarray | Tensor, rows: np.ndarray) -> Tensor:
    """Rows of an array on disk, or of a tensor on a device, as a tensor there."""
    return torch.from_numpy(images[rows]) if isinstance(images, np.ndarray) else images[rows]


def on_device(path: Path, device: str) -> np.ndarray | Tensor:
    """An array as it lies on disk for the CPU, else the whole of it on the device."""
    images = np.load(path, mmap_mode="r")
    return images if device == "cpu" else torch.from_numpy(np.asarray(images)).to(device)


def collections(run: Path, classes: list[str], device: str) -> tuple[Collection, Collection] | None:
    """What is trained on, and what is kept out; None where no photographs were prepared."""
    entries = class_entries(run)
    if not entries:
        return None
    with safe_open(str(run / LABELS), framework="numpy") as file:
        raw, out = file.get_tensor("label"), file.get_tensor("kept_out").astype(bool)
    source = np.array([entry["source"] for entry in entries])[raw]
    label = np.array([classes.index(plain(entry["name"])) for entry in entries])[raw]
    images = on_device(run / IMAGES, device)
    names = list(dict.fromkeys(entry["source"] for entry in entries))
    parts = [
        {name: np.flatnonzero((source == name) & chosen) for name in names}
        for chosen in (~out, out)
    ]
    train, kept = (
        Collection(images, label, {name: rows for name, rows in part.items() if len(rows)})
        for part in parts
    )
    return train, kept
