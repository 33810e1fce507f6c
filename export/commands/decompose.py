"""`python -m export decompose`: the same directions in other texts, or in more of them."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from export.common.errors import UserError
from export.common.flags import add_text_arguments
from export.common.settings import DEFAULT_MODEL


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `decompose`."""
    add = parser.add_argument
    add("--bundle", default=DEFAULT_MODEL, help="the bundle's folder (default: %(default)s)")
    add("--out", type=Path, help="write here instead of into --bundle")
    add("--device", help="default: cuda where there is one, else cpu")
    add_text_arguments(parser, of_bundle=True)


def run(args: argparse.Namespace) -> int:
    """Decompose, and write; figures that depend on the texts are dropped."""
    from export.common.lock import changing
    from export.common.models import check_device
    from export.pipeline.update_bundle import local_folder

    check_device(args.device)
    folder = local_folder(args.bundle)
    with changing(folder):
        return _decompose(folder, args)


def _decompose(folder: Path, args: argparse.Namespace) -> int:
    from clipneurons.bundle.bundle import load_bundle
    from clipneurons.bundle.config import Pool
    from clipneurons.text.reading import as_read
    from export.common.pursuit import pursue, rounded, unit_rows
    from export.pipeline.decomposition import embed_pool
    from export.pipeline.inputs import check_centring, open_texts
    from export.pipeline.plan import text_notes
    from export.pipeline.unit_map import with_map
    from export.pipeline.update_bundle import open_model, rewrite

    bundle = load_bundle(folder)
    config = bundle.config
    embeddings, texts = bundle.text_embeddings, bundle.texts
    half, device = config.storage == "float16", args.device or "cpu"
    pool = config.pool
    centred = config.centred_pool if args.centred_pool is None else args.centred_pool
    opened = open_texts(args.texts) if args.texts else None
    check_centring(centred, len(opened or texts))
    if opened:
        clip = open_model(bundle, folder, args.device)
        read = as_read(clip, opened)
        for note in text_notes(read, clip.context_length):
            print(note)
        opened = read.pool
        check_centring(centred, len(opened))
        with TemporaryDirectory() as work:
            embeddings = rounded(embed_pool(clip, opened, Path(work)), half)
        texts, device = list(opened.texts), clip.device
        pool = Pool(opened.name, opened.source, opened.licence, len(opened), opened.sha256)
    components = min(args.components or config.components, len(texts))
    unit = unit_rows(embeddings, centred).to(device)
    layers = {}
    for layer, arrays in bundle.layers.items():
        pursuit = pursue(arrays.directions, unit, (components,), f"layer {layer}")
        indices, coefficients = pursuit.strongest_first(components)
        layers[layer] = replace(arrays, indices=indices, coefficients=coefficients)
    bundle = replace(
        with_map(replace(bundle, text_embeddings=embeddings)),
        config=replace(config, pool=pool, components=components, centred_pool=centred),
        layers=layers,
        texts=texts,
        text_embeddings=embeddings,
        metrics={k: v for k, v in bundle.metrics.items() if k == "command"},
        labels={},
        cues=None,
        opening={},
    )
    out = args.out or folder
    if args.out:
        _copy_model(folder, args.out)
    rewrite(bundle, out)
    print(f"{pool.count:,} texts of {pool.name}, {components} a unit, in {out}")
    return 0


def _copy_model(folder: Path, out: Path) -> None:
    """The weights and `skipped.csv`, so that the new folder is complete."""
    import shutil

    from clipneurons.bundle.config import OPTIONAL_FILES

    if out.exists():
        raise UserError(f"--out {out} exists already")
    out.mkdir(parents=True)
    for name in OPTIONAL_FILES:
        if (folder / name).is_file():
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / name, out / name)
