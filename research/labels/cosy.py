"""CoSy: a unit's effects on images generated for its label, and on others (2405.20331).

    AUC_n = P(s e_n(I₀) < s e_n(I₁)),  ties count half
    MAD_n = s (mean e_n(I₁) − mean e_n(I₀)) / sd e_n(I₀)

    e_n   effect of unit n, without what its layer shares
    I₁    images of the first of the label's texts that can be drawn; s the sign of its weight
    I₀    control images, those of all texts

The composers of held-out pictograms and of photographs stand for the text-to-image model.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import sqrt

import torch
from jaxtyping import Bool, Float, Int
from scipy.stats import rankdata
from torch import Tensor
from tqdm import tqdm

from clipneurons.adversarial.composer import photograph_composer, pictogram_composer
from clipneurons.adversarial.descriptions import Description
from clipneurons.adversarial.image_generator import image_seeds
from clipneurons.bundle.bundle import Bundle
from clipneurons.labels.evidence import SharedComponents
from clipneurons.labels.simulation import Labels
from clipneurons.models.clip import ClipModel
from clipneurons.stats.intervals import Z95
from export.evaluation.labels.figures import rounded
from export.evaluation.labels.recordings import UnitEffects

IMAGES = 10  # of each text
_UNITS = 512  # ranked at once


@dataclass(frozen=True, eq=False)
class GeneratedImages:
    """Effects on the images of each text that can be drawn; `row` is a text's place, or -1."""

    effects: Float[Tensor, "drawn image unit"]
    row: Int[Tensor, " text"]

    @classmethod
    @torch.no_grad()
    def of(cls, bundle: Bundle, clip: ClipModel, images: int = IMAGES) -> GeneratedImages:
        """Draw every text of the bundle, half as pictograms and half as photographs.

        A text that only one of the generators knows gets all its images from that one.
        """
        read = UnitEffects(bundle, clip)
        size = max(clip.image_size)
        composers = pictogram_composer(size, heldout=True), photograph_composer(size, heldout=True)
        row = torch.full((len(bundle.texts),), -1)
        effects: list[Tensor] = []
        for number, text in enumerate(tqdm(bundle.texts, "generated", unit="texts", disable=None)):
            named = [(composer, composer.concept(text)) for composer in composers]
            able = [(composer, concept) for composer, concept in named if concept]
            if not able:
                continue
            row[number] = len(effects)
            pictures = []
            for part, (composer, concept) in enumerate(able):
                seeds = image_seeds(images, number)[part :: len(able)]
                drawn = composer(concept, [Description(text, ())] * len(seeds), seeds)
                pictures += [clip.preprocess(generated.image) for generated in drawn]
            effects.append(read(torch.stack(pictures).to(clip.device))[1].cpu())
        return cls(torch.stack(effects), row)

    def specific(self, units: slice, shared: SharedComponents) -> GeneratedImages:
        """Effects of a layer's units without what they share."""
        effects = self.effects[:, :, units]
        specific = shared.specific(effects.flatten(0, 1))
        return GeneratedImages(specific.view_as(effects), self.row)


@dataclass(frozen=True, eq=False)
class CosyScores:
    """`auc` and `mad` of each unit; zeros where not `measured`: no text of the label is drawn."""

    auc: Float[Tensor, " unit"]
    mad: Float[Tensor, " unit"]
    measured: Bool[Tensor, " unit"]

    @classmethod
    def joined(cls, layers: list[CosyScores]) -> CosyScores:
        """The units of several layers as one."""
        columns = zip(*((part.auc, part.mad, part.measured) for part in layers), strict=True)
        return cls(*map(torch.cat, columns))

    def figures(self) -> dict:
        """Means over the measured units, with 95 % intervals over units."""
        kept: dict = {"measured_share": rounded(self.measured.float().mean())}
        for name, values in (("auc", self.auc), ("mad", self.mad)):
            chosen = values[self.measured]
            half = Z95 * float(chosen.std()) / sqrt(len(chosen)) if len(chosen) > 1 else 0.0
            mean = float(chosen.mean()) if len(chosen) else 0.0
            kept[name] = rounded(mean)
            kept[f"{name}_interval"] = [rounded(mean - half), rounded(mean + half)]
        return kept


@dataclass(frozen=True, eq=False)
class Cosy:
    """AUC and MAD of every drawn text for every unit of a layer."""

    generated: GeneratedImages

    @cached_property
    def auc(self) -> Float[Tensor, "drawn unit"]:
        """Mean share of the control images on which the effect is smaller."""
        drawn, images, _ = self.generated.effects.shape
        parts = []
        for part in self.generated.effects.flatten(0, 1).split(_UNITS, dim=1):
            rank = torch.from_numpy(rankdata(part.numpy(), axis=0))  # from 1; ties share the mean
            below = ((rank - 0.5) / len(part)).float()
            parts.append(below.view(drawn, images, -1).mean(1))
        return torch.cat(parts, 1)

    @cached_property
    def mad(self) -> Float[Tensor, "drawn unit"]:
        """Difference of the means in standard deviations of the control images."""
        control = self.generated.effects.flatten(0, 1)
        deviation = control.std(0)
        deviation = torch.where(deviation > 0, deviation, torch.inf)
        return (self.generated.effects.mean(1) - control.mean(0)) / deviation

    def __call__(self, labels: Labels) -> CosyScores:
        """Scores of one label a unit."""
        rows = self.generated.row[labels.indices]  # [unit, text]
        drawn = (rows >= 0) & (labels.coefficients != 0)
        measured = drawn.any(1)
        first = drawn.int().argmax(1, keepdim=True)
        row = rows.gather(1, first)[:, 0].clamp_min(0)
        negative = labels.coefficients.gather(1, first)[:, 0] < 0
        unit = torch.arange(len(labels))
        auc, mad = self.auc[row, unit], self.mad[row, unit]
        auc, mad = torch.where(negative, 1 - auc, auc), torch.where(negative, -mad, mad)
        return CosyScores(auc * measured, mad * measured, measured)
