"""`python -m export evaluate labels --against CSV`: anybody's labels in the bundle's own test.

The images, the judge and the score are those of the bundle's labels. A description is one text,
scored by the judge on every image; its simulation score is the correlation with the unit's effect.
"""

from __future__ import annotations

import argparse
import csv
import io
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from clipneurons.bundle.bundle import Bundle
from clipneurons.bundle.folders import write_atomic
from clipneurons.labels.assess import mean_interval
from clipneurons.labels.evidence import SharedComponents
from clipneurons.labels.simulation import Labels, bootstrap, pearson, simulate
from clipneurons.models.clip import ClipModel
from clipneurons.text.embedding import embed_texts
from export.common.errors import UserError
from export.evaluation.labels.measure import layer_slices, of_units, record_images
from export.exchange.label_table import Described, read_table


@dataclass(frozen=True, eq=False)
class Scores:
    """Simulation scores of units, and on images drawn with replacement."""

    score: Float[Tensor, " unit"]
    draws: Float[Tensor, "draw unit"]

    @classmethod
    def of(cls, labels: Labels, effects: Tensor, scores: Tensor) -> Scores:
        """Of labels on effects [image, unit], with a judge's scores [image, text]."""
        predictions = simulate(labels, scores)
        return cls(pearson(effects, predictions), bootstrap(effects, predictions))

    @classmethod
    def joined(cls, parts: list[Scores]) -> Scores:
        """Those of several layers."""
        draws = torch.cat([part.draws for part in parts], 1)
        return cls(torch.cat([part.score for part in parts]), draws)


@dataclass(frozen=True, eq=False)
class Compared:
    """Scores of the described units, theirs and ours, and what the judge does not know."""

    rows: list[Described]
    theirs: Scores
    ours: Scores
    unknown: set[str]

    def in_words(self) -> str:
        """Both means, and their difference on the same draws of images and units."""
        lines = []
        for name, scores in (("theirs", self.theirs), ("ours", self.ours)):
            low, high = mean_interval(scores.draws)
            mean = float(scores.score.mean())
            lines.append(f"labels   {mean:.3f} ({low:.3f} to {high:.3f}) {name}")
        low, high = mean_interval(self.ours.draws - self.theirs.draws)
        gain = float((self.ours.score - self.theirs.score).mean())
        lines.append(
            f"labels   ours ahead by {gain:+.3f} ({low:+.3f} to {high:+.3f}) on"
            f" {len(self.rows):,} units"
        )
        silent = sum(row.description in self.unknown for row in self.rows)
        if silent:
            lines.append(f"labels   of {silent:,} descriptions the judge knows nothing: score 0")
        return "\n".join(lines)

    def write(self, path: Path) -> None:
        """A row a unit: both scores with their intervals."""
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(["layer", "unit", "description", "simulation_score", "low", "high",
                         "our_simulation_score", "our_low", "our_high"])  # fmt: skip
        limits = torch.tensor([0.025, 0.975])
        columns = [
            column
            for side in (self.theirs, self.ours)
            for column in (side.score, *side.draws.quantile(limits, dim=0))
        ]
        values = torch.stack(columns, 1).tolist()
        for row, scores in zip(self.rows, values, strict=True):
            numbers = [round(score, 4) for score in scores]
            writer.writerow([row.layer, row.unit, row.description, *numbers])
        write_atomic(path, buffer.getvalue().encode())


def compare_labels(
    bundle: Bundle, clip: ClipModel, folder: Path, args: argparse.Namespace
) -> Compared:
    """Score the labels in the file `args.against` beside the bundle's.

    Raises:
        UserError: a bundle without tested labels, a table that does not fit it.
    """
    if not bundle.labels:
        raise UserError("the bundle has no labels: run python -m export evaluate labels first")
    rows = read_table(args.against, bundle)
    judged = _with_texts(bundle, clip, [row.description for row in rows])
    images = record_images(judged, clip, folder, args)
    number = {text: i for i, text in enumerate(judged.texts)}
    parts, ordered = [], []
    for layer, units in layer_slices(bundle).items():
        described = sorted((row for row in rows if row.layer == layer), key=lambda row: row.unit)
        if not described:
            continue
        ordered += described
        chosen = torch.tensor([row.unit for row in described])
        count = len(bundle.metrics["labels"]["layers"][str(layer)]["shared"])
        shared = SharedComponents.of(of_units(images.write, units).effects, count)
        effects = shared.specific(of_units(images.test, units).effects)[:, chosen]
        texts = torch.tensor([[number[row.description]] for row in described])
        columns = bundle.labels[layer]
        ours = Labels(columns.indices.long(), columns.coefficients).of(chosen)
        theirs = Labels(texts, torch.ones(texts.shape))
        scores = images.test.scores
        parts.append([Scores.of(labels, effects, scores) for labels in (theirs, ours)])
    images.kept.remove()
    theirs, ours = (Scores.joined(list(side)) for side in zip(*parts, strict=True))
    return Compared(ordered, theirs, ours, set(images.judge.unknown))


def _with_texts(bundle: Bundle, clip: ClipModel, texts: list[str]) -> Bundle:
    """The bundle with further texts, of which a judge will say whether an image shows them."""
    new = sorted(set(texts) - set(bundle.texts))
    if not new:
        return bundle
    embeddings: Tensor = normalize(embed_texts(clip, new).cpu(), dim=1)
    return replace(
        bundle, texts=[*bundle.texts, *new],
        text_embeddings=torch.cat([bundle.text_embeddings, embeddings]),
    )  # fmt: skip
