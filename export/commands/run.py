"""`python -m export run`: from images to a published artifact, the whole analysis of a model."""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path

from export.common.flags import add_text_arguments, natural, positive
from export.common.settings import RunOptions, Settings, Shard


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `run`; every default is that of `Settings`."""
    d = {f.name: f.default for f in fields(Settings)}
    add = parser.add_argument
    model = parser.add_argument_group("model")
    model.add_argument("--model", default=d["model"], help="open_clip name, hf-hub:owner/name, or a"
        " folder with open_clip_config.json (default: %(default)s)")  # fmt: skip
    model.add_argument("--pretrained", help="open_clip tag or weights file of a named model")
    model.add_argument("--activation", choices=("gelu", "quick_gelu"), help="of a weights file,"
        " which does not say it: quick_gelu for OpenAI, MetaCLIP and DFN")  # fmt: skip
    model.add_argument("--preprocess", metavar="clip|siglip|FILE.json", help="of a weights file"
        " (default: that of the name's published weights)")  # fmt: skip
    model.add_argument("--image-size", type=positive, metavar="PIXELS", help="of a weights file:"
        " its positions are meant to be resampled for images of this size")  # fmt: skip
    model.add_argument("--precision", default=d["precision"], choices=("fp32", "bf16", "fp16"),
        help="of the model's weights (default: %(default)s)")  # fmt: skip
    model.add_argument("--device", help="default: cuda where there is one, else cpu")
    data = parser.add_argument_group("images")
    data.add_argument("--images", default=d["images"], help="folder (an image's class is the folder"
        " it lies in), tar files (glob or name-{000..012}.tar; the numbers in .cls are classes if"
        " classnames.txt beside them has their names, one a line), hf:owner/name[@revision],"
        " cifar10:FOLDER, scenes:COUNT, photographs (those that ship), or both with a + between"
        " (default: %(default)s)")  # fmt: skip
    data.add_argument("--split", help="of a data set that has splits; of a folder, its subfolder")
    data.add_argument("--limit", type=positive, help="use the first LIMIT images (default: all)")
    data.add_argument("--image-key", metavar="EXTENSION", help="of tar files: which image of a"
        " sample, such as rgb.png (default: its first)")  # fmt: skip
    data.add_argument("--seed", type=int, default=d["seed"],
        help="of the composed scenes (default: %(default)s)")  # fmt: skip
    data.add_argument("--batch", type=positive, default=d["batch"],
        help="images a batch (default: %(default)s)")  # fmt: skip
    data.add_argument("--workers", type=positive, default=2,
        help="threads that decode images (default: %(default)s)")  # fmt: skip
    method = parser.add_argument_group("method")
    method.add_argument("--layers", type=int, nargs="+", default=d["layers"], help="MLP layers of"
        " a ViT from 0 (default: the three before the last, or all of them if the model has at most"
        " six blocks; a ResNet has layer 4)")  # fmt: skip
    method.add_argument("--features", metavar="SPEC", help="read the latents of a dictionary in"
        " place of neurons: a folder or file of `train-features`, SAELens, ViT-Prisma or saev, or"
        " user/name[@revision][:folder] on the Hub; --layers says its block where its files do"
        " not")  # fmt: skip
    method.add_argument("--top-k", type=positive, default=d["top_k"],
        help="largest effects behind a direction, images (default: %(default)s)")  # fmt: skip
    method.add_argument("--percentile", type=float, default=d["percentile"],
        help="of the norms, from which a unit is active, %% (default: %(default)s)")  # fmt: skip
    method.add_argument("--shared-bias", action="store_true",
        help="count biases and layer-norm means to each neuron, as the published code")  # fmt: skip
    texts = parser.add_argument_group("texts")
    add_text_arguments(texts)
    out = parser.add_argument_group("output")
    out.add_argument("--out", type=Path, help="the bundle's folder (default: the model's folder"
        " where it is one, else artifacts/MODEL)")  # fmt: skip
    out.add_argument("--overwrite", action="store_true", help="replace the bundle in --out")
    out.add_argument("--restart", action="store_true",
        help="discard an unfinished run with other arguments")  # fmt: skip
    out.add_argument("--storage", default=d["storage"], choices=("float32", "float16"),
        help="of directions, means and norms on disk (default: %(default)s)")  # fmt: skip
    out.add_argument("--gallery", type=natural, default=d["gallery"],
        help="top images a unit that are kept as thumbnails (default: %(default)s)")  # fmt: skip
    out.add_argument("--gallery-mb", type=float, default=d["gallery_mb"],
        help="at most this much for thumbnails, MB (default: %(default)s)")  # fmt: skip
    out.add_argument("--heldout", help="images for the fidelity figures, as --images (default:"
        " held-out scenes for scenes, else the images themselves)")  # fmt: skip
    out.add_argument("--no-evaluate", dest="evaluate", action="store_false",
        help="leave the fidelity figures out")  # fmt: skip
    out.add_argument("--dry-run", action="store_true", help="print the plan and stop")
    many = parser.add_argument_group("beyond one process")
    many.add_argument("--shard", type=Shard.parse, help="do part i/n of the images, i from 0;"
        " `export merge` puts the parts together")  # fmt: skip
    cache = many.add_mutually_exclusive_group()
    cache.add_argument("--cache", dest="cache", action="store_true", default=None,
        help="keep scores on disk between the passes (default: if half the free disk holds them)",
    )  # fmt: skip
    cache.add_argument("--no-cache", dest="cache", action="store_false",
        help="read the images twice instead")  # fmt: skip
    add("--quiet", action="store_true", help="print only errors")


def run(args: argparse.Namespace) -> int:
    """Run to the end, or to the end of this shard; 0 when the bundle or the shard is done."""
    from export.pipeline import run as pipeline

    settings = Settings(**_chosen(args, Settings) | {"layers": tuple(args.layers)})
    pipeline.run(settings, RunOptions(**_chosen(args, RunOptions)))
    return 0


def _chosen(args: argparse.Namespace, options: type) -> dict:
    return {field.name: getattr(args, field.name) for field in fields(options)}
