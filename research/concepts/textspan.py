"""TextSpan's reading of an image: what its attention heads say (2310.05916, sections 4 and 5)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from clipneurons.lens.first_order import FirstOrderLens


def text_span(
    outputs: Float[Tensor, "image embed"], texts: Float[Tensor, "text embed"], count: int
) -> list[int]:
    """Texts that span a head's outputs: greedily the one that explains most of what is left.

    Algorithm 1 of 2310.05916: texts are projected on the span of the outputs, the text with the
    largest variance of its inner products with the outputs is taken, and projected out of both.
    """
    outputs = outputs - outputs.mean(0)
    _, values, basis = torch.linalg.svd(outputs, full_matrices=False)
    basis = basis[values > values[0].clamp_min(1e-12) * 1e-5]
    texts = texts @ basis.T  # coordinates in the span of the outputs
    outputs = outputs @ basis.T
    chosen: list[int] = []
    for _ in range(min(count, len(texts), outputs.shape[1])):
        explained = (outputs @ texts.T).square().sum(0)
        best = int(explained.argmax())
        axis = texts[best]
        if axis.norm() < 1e-6 or explained[best] <= 0:
            break
        chosen.append(best)
        axis = axis / axis.norm()
        outputs = outputs - (outputs @ axis)[:, None] * axis
        texts = texts - (texts @ axis)[:, None] * axis
    return chosen


@dataclass(frozen=True, eq=False)
class TextSpanReader:
    """The texts of every head of the last layers, found once, to read images with.

    ``chosen[layer][head]`` are indices into the pool; ``mean[layer, head]`` the mean effects.
    """

    lens: FirstOrderLens
    layers: tuple[int, ...]
    texts: Float[Tensor, "text embed"]
    chosen: dict[int, list[list[int]]]
    mean: Float[Tensor, "layer head embed"]

    @classmethod
    def fit(
        cls,
        lens: FirstOrderLens,
        batches,
        texts: Float[Tensor, "text embed"],
        layers: int = 4,
        count: int = 60,
        progress: Callable[[int, int], object] = lambda done, heads: None,
    ) -> TextSpanReader:
        """Find the texts of all heads of the last ``layers`` from batches of images.

        ``progress`` is told how many heads are done, of how many.
        """
        last = range(lens.clip.layers)[-layers:]
        effects = torch.cat([lens(batch)[1].heads[:, list(last)].cpu() for batch in batches])
        units = normalize(texts, dim=1)
        chosen: dict[int, list[list[int]]] = {layer: [] for layer in last}
        for i, layer in enumerate(last):
            for head in range(lens.clip.heads):
                progress(i * lens.clip.heads + head, len(last) * lens.clip.heads)
                chosen[layer].append(text_span(effects[:, i, head], units, count))
        return cls(lens, tuple(last), units, chosen, effects.mean(0))

    @torch.no_grad()
    def __call__(
        self, images: Float[Tensor, "image 3 height width"]
    ) -> Float[Tensor, "image text"]:
        """Weight of each text: Σ over heads that own it of ⟨centred effect, text⟩."""
        return self.weights(self.lens(images)[1].heads)

    def weights(
        self, heads: Float[Tensor, "image layer head embed"]
    ) -> Float[Tensor, "image text"]:
        """The same from first-order effects that were read already."""
        total = torch.zeros(len(heads), len(self.texts))
        for i, layer in enumerate(self.layers):
            centred = heads[:, layer].cpu() - self.mean[i]  # [image, head, embed]
            for head, texts in enumerate(self.chosen[layer]):
                total[:, texts] += centred[:, head] @ self.texts[texts].T
        return total
