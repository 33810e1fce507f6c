"""How often changed embeddings are sorted as before, and rightly, with intervals."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import torch

from clipneurons.stats.intervals import Z95, wilson


@dataclass
class Tally:
    """Counts of one condition over the images, each against the unchanged embedding."""

    images: int = 0
    labelled: int = 0
    correct: int = 0
    agree: int = 0
    cosine: float = 0.0
    lost: int = 0
    won: int = 0

    def add(self, embeddings, original, classifier, labels) -> None:
        """Add a batch; labels are −1 where unknown."""
        predicted, before = (e @ classifier.T for e in (embeddings, original))
        predicted, before = predicted.argmax(1), before.argmax(1)
        known = labels >= 0
        right, was = (predicted == labels) & known, (before == labels) & known
        self.images += len(labels)
        self.labelled += int(known.sum())
        self.correct += int(right.sum())
        self.agree += int((predicted == before).sum())
        self.lost += int((was & ~right).sum())
        self.won += int((right & ~was).sum())
        self.cosine += float(torch.cosine_similarity(embeddings, original).double().sum())

    def figures(self) -> dict:
        """Accuracy and its change with 95 % intervals, agreement and mean cosine."""
        result = {
            "agreement": self.agree / self.images,
            "agreement_interval": wilson(self.agree, self.images).interval,
            "cosine": self.cosine / self.images,
        }
        if self.labelled:
            change = (self.won - self.lost) / self.labelled
            spread = (self.won + self.lost) / self.labelled - change**2
            half = Z95 * sqrt(max(spread, 0.0) / self.labelled)
            result |= {
                "accuracy": self.correct / self.labelled,
                "accuracy_interval": wilson(self.correct, self.labelled).interval,
                "change": change,
                "change_interval": [change - half, change + half],
            }
        return _rounded(result)


def _rounded(figures: dict) -> dict:
    """Six decimals: more would be noise, and differ between machines."""
    return {
        k: [round(x, 6) for x in v] if isinstance(v, list) else round(v, 6)
        for k, v in figures.items()
    }
