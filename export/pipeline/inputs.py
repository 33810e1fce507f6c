"""From what a user typed to a model, a lens, images and texts; mistakes become `UserError`."""

from __future__ import annotations

import argparse
from contextlib import suppress
from dataclasses import fields
from pathlib import Path

import torch

from clipneurons.bundle.config import BUNDLE_FILES, MODEL_FILES
from clipneurons.bundle.folders import CHECKSUMS
from clipneurons.lens.make import Lens, make_lens
from clipneurons.lens.second_order import SecondOrderLens
from clipneurons.models.clip import ClipModel, load_clip
from clipneurons.models.open_clip_folder import WEIGHTS_FILE, whole_file
from clipneurons.synthetic.pictograms import ARTIFACTS
from clipneurons.text.pools import VOCABULARY, TextPool, text_pool
from export.common.errors import UserError
from export.common.settings import Settings
from export.data.dataset import Source
from export.data.open_source import is_scenes, open_source
from export.pipeline import distributed

SHALLOW = 6  # blocks


def prepare(args: argparse.Namespace) -> tuple[ClipModel, Settings]:
    """The model, and the settings with the defaults that depend on it."""
    values = {f.name: getattr(args, f.name) for f in fields(Settings)}
    values["layers"] = tuple(values["layers"] or ())
    device = distributed.local_device(args.device)
    clip = open_clip_model(args.model, args.pretrained, device, args.precision)
    if not values["layers"]:
        values["layers"] = default_layers(clip)
    values["texts"] = values["texts"] or default_texts(args.model, args.images)
    if not 0 <= values["percentile"] <= 100:
        raise UserError(f"--percentile {values['percentile']}: expected 0 to 100")
    return clip, Settings(**values)


def default_layers(clip: ClipModel) -> tuple[int, ...]:
    """The last three blocks with effects, as the papers read; of a model of few blocks all."""
    if clip.kind == "resnet":
        return (4,)
    readable = clip.anatomy.readable_blocks
    # In a model of few blocks the early ones do the most.
    return tuple(readable if clip.layers <= SHALLOW else readable[-3:])


def default_texts(model: str, images: str) -> str:
    """Common words, but not for a bundled model: it was taught its captions' words alone."""
    bundled = Path(model).resolve().is_relative_to(ARTIFACTS)
    return VOCABULARY if bundled or is_scenes(images) else "common-30k"


def open_clip_model(
    model: str,
    pretrained: str | None = None,
    device: str | None = None,
    precision: str = "fp32",
) -> ClipModel:
    """`load_clip`, with the user's mistakes as `UserError`."""
    if device and device.partition(":")[0] == "mps":
        raise UserError(f"--device {device} has no float64, which sums need: expected cpu or cuda")
    check_device(device)
    try:
        return load_clip(model, pretrained, device, precision)
    except (KeyError, ValueError) as error:
        raise UserError(error.args[0] if isinstance(error, KeyError) else str(error)) from None


def check_device(name: str | None) -> None:
    """Raise `UserError` unless tensors can be put on the device that `--device` names."""
    known = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.mps.is_available()}
    here = [kind for kind, is_here in known.items() if is_here]
    with suppress(RuntimeError):  # no such kind of device, or none of that number
        if not name or (torch.device(name).type in here and len(torch.zeros(1, device=name))):
            return
    raise UserError(f"--device {name} is not on this machine: expected {' or '.join(here)}")


def weights_sha256(clip: ClipModel, settings: Settings) -> str:
    """Digest by which readers know the model; they load it in fp32, whatever made the bundle."""
    if settings.precision != "fp32":
        clip = open_clip_model(settings.model, settings.pretrained, "cpu")
    return clip.sha256()


def open_lens(clip: ClipModel, settings: Settings) -> Lens:
    """The lens of the settings' layers."""
    try:
        if settings.shared_bias and clip.kind == "vit":
            return SecondOrderLens(clip, settings.layers, shared_bias=True)
        return make_lens(clip, settings.layers)
    except ValueError as error:
        raise UserError(f"--layers: {error}") from None


def open_images(settings: Settings, clip: ClipModel) -> Source:
    """The images of a run, of the size that the model takes where they are composed."""
    return open_source(
        settings.images,
        split=settings.split,
        limit=settings.limit,
        seed=settings.seed,
        image_size=max(clip.image_size),
    )


def open_texts(name: str) -> TextPool:
    """The pool of texts of that name or file."""
    try:
        return text_pool(name)
    except ValueError as error:
        raise UserError(f"--texts: {error}") from None


def check_centring(centred: bool, texts: int) -> None:
    """Refuse what could only fail after the passes: one text minus the pool's mean is zero."""
    if centred and texts < 2:
        raise UserError("--centred-pool needs at least two texts, the pool has one")


def default_out(model: str) -> str:
    """Where a bundle goes when nobody says."""
    if Path(model).is_dir():
        # Beside a checkpoint of transformers two files would be called config.json.
        beside = (Path(model) / MODEL_FILES[0]).exists()
        return model if beside else f"artifacts/{Path(model).resolve().name.lower()}"
    return f"artifacts/{model.removeprefix('hf-hub:').replace('/', '--').lower()}"


def check_out(out: Path, overwrite: bool) -> None:
    """Refuse to touch a bundle that was not meant, or a folder that is something else."""
    if (out / CHECKSUMS).exists():
        if not overwrite:
            raise UserError(
                f"{out} holds a bundle already: add --overwrite, or choose another --out"
            )
        return
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out} is a file, expected a folder")
    known = {*MODEL_FILES, *BUNDLE_FILES, "examples"}
    foreign = [p.name for p in out.iterdir() if p.name not in known] if out.exists() else []
    if foreign and not (out / MODEL_FILES[0]).exists():
        raise UserError(f"--out {out} holds other files ({foreign[0]}): choose a folder of its own")


def model_files(model: str, out: Path) -> tuple[str, dict[str, Path | bytes]]:
    """What `config.json` calls the model, and the weights to put beside the bundle.

    A model that is a folder travels with its bundle, since nobody else can find it.
    """
    folder = Path(model)
    if not folder.is_dir():
        return model, {}
    if not (folder / MODEL_FILES[0]).exists():  # a checkpoint of transformers stays where it is
        return str(folder.resolve()), {}
    if out.exists() and folder.samefile(out):
        return ".", {}
    files = {name: folder / name for name in MODEL_FILES if (folder / name).is_file()}
    return ".", files | {WEIGHTS_FILE: whole_file(folder)}
