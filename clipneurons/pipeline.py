"""The whole analysis of a model from Python: `analyse`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType

import torch

from clipneurons.bundle.bundle import Bundle, load_bundle
from clipneurons.models.clip import ClipModel
from clipneurons.progress import Progress, reported

_PRECISION = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}
# A checkout holds the pipeline beside the library.
_CHECKOUT = Path(__file__).resolve().parents[1]


def analyse(
    clip: ClipModel,
    images: str | Path,
    *,
    out: str | Path,
    layers: Sequence[int] | None = None,
    texts: str | None = None,
    limit: int | None = None,
    overwrite: bool = False,
    progress: Progress | bool | None = None,
) -> Bundle:
    """Analyse every unit of a model over a data set: directions, top images, decompositions.

    This is ``python -m export run``, whose work can be stopped and resumed: the next call with the
    same arguments goes on. The pipeline is part of a checkout and not of the wheel.

    Args:
        clip: the model, as `load_clip` opened it.
        images: a folder, or any other source of ``python -m export run --images``.
        out: the bundle's folder.
        layers: MLP layers of a ViT, by default those of `Lens`.
        texts: a pool of texts, or a file with one a line; by default common words.
        limit: use the first so many images.
        overwrite: replace the bundle in ``out``.
        progress: told (share, text), or True for a bar.

    Raises:
        ModuleNotFoundError: an installation without a checkout.
        ValueError: a mistake in the arguments, before any work.

    Example:
        >>> clip = cn.load_clip("ViT-B-32", "openai")
        >>> bundle = cn.analyse(clip, "photographs/", out="my-bundle", limit=5000)
    """
    settings, run = _export("export.common.settings"), _export("export.pipeline.run")
    chosen = settings.Settings(
        model=clip.name,
        pretrained=clip.pretrained,
        device=str(clip.device),
        precision=_PRECISION[clip.dtype],
        images=str(images),
        layers=tuple(layers or ()),
        texts=texts,
        limit=limit,
    )
    options = settings.RunOptions(out=Path(out), overwrite=overwrite, quiet=True)
    with reported(progress) as tell:
        run.run(chosen, options, clip, tell)
        tell(1.0, "Done")
    return load_bundle(out)


def _export(name: str) -> ModuleType:
    if (_CHECKOUT / "export" / "pipeline").is_dir() and str(_CHECKOUT) not in sys.path:
        sys.path.append(str(_CHECKOUT))
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"analyse runs the pipeline of a checkout ({error.name} is missing): git clone the "
            "project, then pip install -e '.[export]' in it",
            name=error.name,
        ) from None
