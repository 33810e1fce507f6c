"""How a classifier reads images, and what each unit adds to each class: exact, in one pass."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from clipneurons.bundle.bundle import Bundle
from clipneurons.lens.base import SCALE
from clipneurons.lens.contributions import Contributions
from clipneurons.lens.lens import Lens


@dataclass(frozen=True, eq=False)
class ClassEffects:
    """A bundle on its model, with the classes to tell apart, unit rows of `classes`.

    Called with preprocessed images it gives their embeddings (norm 100), ⟨φ_n − b_n, t_c⟩ of the
    units of all layers of the bundle, in order, and the contributions by layer.
    """

    bundle: Bundle
    lens: Lens
    classes: Float[Tensor, "class embed"]

    @torch.no_grad()
    def __call__(
        self, images: Float[Tensor, "image 3 height width"]
    ) -> tuple[
        Float[Tensor, "image embed"],
        Float[Tensor, "image unit class"],
        dict[int, Contributions],
    ]:
        """One pass over a batch; effects are on the CPU."""
        representation, contributions = self.lens(images)
        written = torch.cat(
            [
                torch.einsum("bnk,nkc->bnc", contributions[layer].scores, along)
                for layer, along in self._along.items()
            ],
            1,
        )
        embeddings = SCALE * normalize(representation, dim=1)
        return embeddings.cpu(), (written - self._centre).cpu(), contributions

    @cached_property
    def _along(self) -> dict[int, Float[Tensor, "unit head class"]]:
        return {la: self.lens.directions[la].project(self.classes) for la in self.bundle.layers}

    @cached_property
    def _centre(self) -> Float[Tensor, "unit class"]:
        means = [arrays.means for arrays in self.bundle.layers.values()]
        return torch.cat(means).to(self.classes) @ self.classes.T


def places(bundle: Bundle, units: list[int]) -> list[tuple[int, int]]:
    """(layer, unit) of numbers among the units of all layers of a bundle."""
    counts = {layer: len(arrays.directions) for layer, arrays in bundle.layers.items()}
    layers_and_units = []
    for unit in units:
        for layer, count in counts.items():
            if unit < count:
                layers_and_units.append((layer, unit))
                break
            unit -= count
    return layers_and_units
