"""What `evaluate labels` will need, said before it begins."""

from __future__ import annotations

import time

import torch

from clipneurons.bundle.bundle import Bundle
from clipneurons.labels.candidates import METHODS, READINGS
from clipneurons.labels.evidence import SIZES
from clipneurons.labels.seen_texts import SCREENED
from export.evaluation.labels.recordings import Judge, TruthJudge


def in_advance(bundle: Bundle, images: int, judge: Judge) -> str:
    """What the test will cost, printed before it begins."""
    units = sum(len(arrays.directions) for arrays in bundle.layers.values())
    texts, embed = len(bundle.texts), bundle.config.embed_dim
    fit, test = 0.4 * images, 0.4 * images
    others = min(units, 4096)
    methods = len(METHODS) + 8
    # Pursuits (four), correlations with texts (two, one a reading), phrases that
    # say the same, CLIP-Dissect, simulation of every size, shuffled labels and bootstrap of every
    # method; for all units together, texts compared with one another and what the model reads.
    flops = 2 * texts * embed * (texts + len(READINGS) * fit) + (
        2
        * units
        * (
            4 * max(SIZES) * texts * embed
            + (2 + len(READINGS)) * fit * texts
            + len(READINGS) * max(SIZES) * SCREENED * embed
            + 100 * texts
            + (methods + len(READINGS)) * sum(SIZES) * 0.2 * images
            + methods * (others * test + 5 * 200 * test)
        )
    )
    memory = 4 * (images * (3 * units + 4 * texts) + 3 * 1024 * (units + texts))
    disk = 4 * images * (units + embed + (texts if judge.name == TruthJudge.name else embed))
    speed = _speed()
    unknown = f", who cannot tell {len(judge.unknown):,} of the texts" if judge.unknown else ""
    return (
        f"labels   {units:,} units, {texts:,} texts, {images:,} images;"
        f" judge: {judge.name}{unknown}"
        f"\nlabels   {flops / 1e12:.1f} TFLOP of matrix products, about"
        f" {max(flops / speed / 60, 1):.0f} minutes at {speed / 1e9:.0f} GFLOP/s, after one pass of"
        f" the images through the model{'' if judge.name == TruthJudge.name else ' and the judge'};"
        f" memory {memory / 1e9:.1f} GB, disk {disk / 1e6:.0f} MB"
    )


def _speed() -> float:
    """Floating-point operations a second of this machine, by one product."""
    side = 768
    values = torch.ones(side, side)
    values @ values
    started = time.perf_counter()
    values @ values
    return 2 * side**3 / (time.perf_counter() - started)
