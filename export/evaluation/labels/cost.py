"""What `evaluate labels` will need, said before it begins."""

from __future__ import annotations

import time

import torch

from clipneurons.bundle.bundle import Bundle
from export.evaluation.labels.recordings import Judge, TruthJudge


def in_advance(bundle: Bundle, images: int, judge: Judge) -> str:
    """What the test will cost, printed before it begins."""
    units = sum(len(arrays.directions) for arrays in bundle.layers.values())
    texts, embed = len(bundle.texts), bundle.config.embed_dim
    # Correlations of texts with texts and with units by judge and model, for each number of shared
    # components and once more; the model's readings; other units' labels and the bootstrap.
    flops = 2 * images * (5 * (texts * texts + 2 * units * texts + units * units))
    flops += 2 * images * texts * embed + 2 * images * units * (4096 + 1000)
    memory = 4 * (images * (4 * units + 5 * texts) + 3 * texts * texts)
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
