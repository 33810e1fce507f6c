"""`python -m research papers`: the papers' figures and tables for given bundles, as one page.

Each experiment's figures are kept in `results.json` as soon as they are there, with a digest of
what they depend on; the same command goes on from there, and the page is made from that file.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from clipneurons.bundle.config import DECOMPOSITION, MODEL_CARD, NEURONS
from clipneurons.bundle.folders import CHECKSUMS, file_sha256, write_atomic
from clipneurons.shipped import TOWERS
from export.common.errors import UserError
from export.common.flags import positive
from export.common.settings import RunOptions, Settings
from research.papers.types import QUICK, Experiment, Options

RESULTS, PAGE = "results.json", "index.html"
BUNDLED = tuple(f"artifacts/{tower}" for tower in TOWERS)
# By module, in the order of the page.
MODULES = (
    "mean_ablation", "indirect", "selectivity", "sparse_texts", "first_order", "neurons",
    "labels", "concepts", "pair_rank", "pair_sparsity", "subconcepts", "adversarial",
    "segmentation", "semantic", "dataset_shift", "mending",
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `papers`."""
    add = parser.add_argument
    add("--bundle", nargs="+", help="folders of bundles (default: the bundled ones, or the one of"
        " --model, which is made if it is not there)")  # fmt: skip
    add("--model", help="an open_clip model instead of bundled ones, such as ViT-B-32")
    add("--pretrained", help="its weights, such as openai")
    add("--images", help="labelled images, as in `run` (default: composed scenes)")
    add("--split", help="of a data set that has splits; of a folder, its subfolder")
    add("--masks", help="segmentation data, as in `segmentation objects` (default: scenes)")
    add("--semantic", help="a ResNet's semantic segmentation: a folder of names.txt, images/ and"
        " masks/ (default: scenes)")  # fmt: skip
    add("--out", type=Path, default=Path("report"), help="folder of the page (default: report)")
    add("--only", nargs="+", metavar="NAME", help="these experiments: " + ", ".join(MODULES))
    add("--quick", action="store_true", help="few images: whether all works, not to be quoted")
    add("--again", action="store_true", help="measure again what is known already")
    add("--device", help="default: cuda where there is one, else cpu")
    add("--batch", type=positive, default=64, help="images a batch (default: %(default)s)")
    add("--workers", type=positive, default=2, help="decoding threads (default: %(default)s)")
    sizes = parser.add_argument_group("sizes")
    for flag, name, words in (
        ("--count", "images", "images that accuracy is measured on"),
        ("--statistics", "statistics", "images behind statistics of layers the bundle lacks"),
        ("--indirect-images", "indirect_images", "images of indirect effects"),
        ("--indirect-neurons", "indirect_neurons", "neurons of indirect effects"),
        ("--masked-images", "masked_images", "images with masks"),
        ("--pictures", "pictures", "adversarial pictures a pair, method and seed"),
        ("--seeds", "seeds", "repetitions of the adversarial table"),
    ):
        default = getattr(Options(), name)
        sizes.add_argument(
            flag, dest=name if name != "images" else "count", type=positive,
            help=f"{words} (default: {default})",
        )  # fmt: skip
    sizes.add_argument("--pools", nargs="+", default=(), help="text pools (default: the bundle's"
        " own and common words)")  # fmt: skip
    sizes.add_argument("--describer", help="adversarial: `templates` or a chat model")
    sizes.add_argument("--painter", help="adversarial: `composer` or a text-to-image model")


def run(args: argparse.Namespace) -> int:
    """Measure what is missing, write the page; 1 when an experiment failed."""
    options, chosen = options_of(args), experiments(args.only)
    folders = _folders(args)
    results = _read(args.out / RESULTS)
    results["command"] = f"python -m research {shlex.join(sys.argv[1:])}"
    results["machine"] = _machine()
    failed = 0
    for folder in folders:
        failed += _measure(args, Path(folder), options, chosen, results)
    from research.papers.page import render

    page = render(results, {e.name: e for e in experiments(None)})
    write_atomic(args.out / PAGE, page.encode())
    total = sum(
        entry["seconds"]
        for bundle in results["bundles"].values()
        for entry in bundle["experiments"].values()
    )
    print(f"{args.out / PAGE}: {total:.0f} s of measurements in all")
    return 1 if failed else 0


def options_of(args: argparse.Namespace) -> Options:
    """Sizes from the flags, over those of `--quick` or the defaults."""
    values = {
        "images": args.count,
        "pools": tuple(args.pools) or None,
        **{
            name: getattr(args, name)
            for name in (
                "statistics", "indirect_images", "indirect_neurons", "masks", "semantic",
                "masked_images", "pictures", "seeds", "describer", "painter",
            )
        },
    }  # fmt: skip
    given = {name: value for name, value in values.items() if value is not None}
    return replace(QUICK if args.quick else Options(), **given)


def experiments(names: Sequence[str] | None) -> list[Experiment]:
    """The experiments of these names, or all."""
    import importlib

    wanted = [name.replace("-", "_") for name in names or MODULES]
    unknown = [name for name in wanted if name not in MODULES]
    if unknown:
        raise UserError(f"--only {unknown[0]}: expected some of {', '.join(MODULES)}")
    return [
        importlib.import_module(f"research.papers.experiments.{name}").EXPERIMENT
        for name in MODULES
        if name in wanted
    ]


def _folders(args: argparse.Namespace) -> list[str]:
    """Bundles to work on; that of `--model` is exported first where it is not there."""
    if not args.model:
        found = args.bundle or [folder for folder in BUNDLED if (Path(folder) / CHECKSUMS).exists()]
        if not found:
            raise UserError(f"no bundle in {' or '.join(BUNDLED)}: give --bundle FOLDER")
        names = [Path(folder).resolve().name for folder in found]
        twice = [name for i, name in enumerate(names) if name in names[:i]]
        if twice:
            raise UserError(f"the report names bundles by their folders: two are {twice[0]!r}")
        return found
    from export.pipeline.inputs import default_out
    from export.pipeline.run import run as export_bundle

    folder = Path(args.bundle[0] if args.bundle else default_out(args.model))
    if not (folder / CHECKSUMS).exists():
        if not args.images:
            raise UserError("--model needs --images: which images should its neurons be read on?")
        settings = Settings(
            model=args.model, pretrained=args.pretrained, device=args.device, images=args.images,
            split=args.split, limit=5000, evaluate=False,
        )  # fmt: skip
        export_bundle(settings, RunOptions(folder))
    return [str(folder)]


def _measure(
    args, folder: Path, options: Options, chosen: Sequence[Experiment], results: dict
) -> int:
    """All experiments on one bundle; how many failed."""
    from clipneurons.bundle.bundle import load_bundle
    from export.pipeline.update_bundle import local_folder, open_model
    from research.papers.context import EvaluationContext

    bundle = load_bundle(local_folder(str(folder)))
    config = bundle.config
    entry = results["bundles"].setdefault(folder.resolve().name, {"experiments": {}})
    model = folder.resolve().name if config.carries_model else config.model
    entry |= {
        "kind": config.kind,
        "model": f"{model} {config.pretrained or ''}".strip(),
        "weights": config.weights_sha256[:16],
        "layers": list(config.layers),
        "pool": f"{config.pool.name}, {config.pool.count:,} texts",
        "data": f"{config.data.name}, {config.data.count:,} images",
        "trained_for": trained_for(folder),
    }
    done, failed, context = entry["experiments"], 0, None
    basis = [file_sha256(folder / name) for name in (NEURONS, DECOMPOSITION)]
    basis += [config.weights_sha256, args.images, args.split]
    for experiment in chosen:
        if config.kind not in experiment.kinds:
            continue
        settings = {name: asdict(options)[name] for name in experiment.options}
        read = [bundle.metrics.get(name) for name in experiment.reads]
        digest = hashlib.sha256(json.dumps([basis, settings, *read]).encode()).hexdigest()[:16]
        if not args.again and done.get(experiment.name, {}).get("digest") == digest:
            continue
        if context is None:
            context = EvaluationContext(
                bundle, folder, open_model(bundle, folder, args.device), options, args.images,
                args.split, args.batch, args.workers, args.out / ".work",
            )  # fmt: skip
        started = time.perf_counter()
        try:
            result = experiment.measure(context)
        except UserError:
            raise
        except (ValueError, KeyError, RuntimeError, OSError, ImportError) as error:
            words = f"{type(error).__name__}: {error}"
            print(f"{folder.name}: {experiment.name} failed: {words}", file=sys.stderr)
            failed += 1
            continue
        seconds = round(time.perf_counter() - started, 1)
        done[experiment.name] = {
            "digest": digest,
            "settings": settings,
            "seconds": seconds,
            "result": result,
        }
        _write(args.out / RESULTS, results)
        print(f"{folder.name}: {experiment.name}, {seconds:.0f} s", flush=True)
    _write(args.out / RESULTS, results)
    return failed


def trained_for(folder: Path) -> list[str]:
    """What the model's own card says that its training asked for."""
    from huggingface_hub import metadata_load

    card = folder / MODEL_CARD
    return ((metadata_load(card) or {}) if card.is_file() else {}).get("trained_for", [])


def _read(path: Path) -> dict:
    if not path.is_file():
        return {"bundles": {}}
    try:
        found = json.loads(path.read_text())
        return {"bundles": found["bundles"]}
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path} is not a report of this command: choose another --out") from None


def _write(path: Path, results: Mapping) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(results, indent=1, ensure_ascii=False, allow_nan=False)
    write_atomic(path, (text + "\n").encode())


def _machine() -> str:
    import torch

    where = f"{os.cpu_count()} {platform.machine()} cores"
    if torch.cuda.is_available():
        where = torch.cuda.get_device_name()
    return f"{where}, Python {platform.python_version()}, torch {torch.__version__}"
