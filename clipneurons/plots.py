"""Plots of results with matplotlib (``pip install 'clipneurons[plot]'``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from clipneurons.extras import extra
from clipneurons.images.heatmap import overlay
from clipneurons.lens.contributions import Contributions

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_heatmap(
    image: Image.Image,
    heat: Float[Tensor, "row column"] | Sequence[Sequence[float]],
    title: str = "",
    ax: Axes | None = None,
) -> Axes:
    """An image with a map in 0 to 1 over it.

    Args:
        image: the image that the map is of.
        heat: such as ``concepts.concepts[0].map`` or ``masks.result.heat[0]``.
        title: above the image.
        ax: the axes to draw on, by default new ones.

    Example:
        >>> concepts = reader.concepts("cat.jpg")
        >>> cn.plot_heatmap(concepts.image, concepts.concepts[0].map, concepts.concepts[0].text)
    """
    ax = _axes(ax)
    ax.imshow(overlay(image.convert("RGB"), torch.as_tensor(heat, dtype=torch.float32)))
    ax.set_title(title)
    ax.set_axis_off()
    return ax


def plot_effects(
    effects: Mapping[int, Contributions], image: int = 0, bins: int = 50, ax: Axes | None = None
) -> Axes:
    """How large the effects of each layer's units on an image are: a histogram of their norms.

    Args:
        effects: by layer, as `Lens` gives them.
        image: number of the image in the batch.
        bins: of the histogram; norms and counts are on logarithmic axes.
        ax: the axes to draw on, by default new ones.

    Example:
        >>> result = lens("cat.jpg")
        >>> cn.plot_effects(result.effects)
    """
    ax = _axes(ax)
    norms = {layer: of_layer.norms()[image].cpu() for layer, of_layer in effects.items()}
    positive = torch.cat([values[values > 0] for values in norms.values()])
    if not len(positive):
        raise ValueError("every effect is zero: nothing to plot")
    low, high = positive.min().log10(), positive.max().log10() + 1e-6
    edges = torch.logspace(float(low), float(high), bins + 1).tolist()
    for layer, values in norms.items():
        ax.hist(values.tolist(), bins=edges, histtype="step", label=f"layer {layer}")
    ax.set(xscale="log", yscale="log", xlabel="norm of the effect", ylabel="units")
    ax.legend()
    return ax


def plot_ablation(
    counts: Sequence[int],
    accuracies: Mapping[str, Sequence[float]],
    unedited: float | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Accuracy against the number of ablated units, a line each way of choosing them.

    Args:
        counts: numbers of ablated units.
        accuracies: by the name of the line, an accuracy in 0 to 1 for each count.
        unedited: the model's own accuracy, drawn as a dashed line.
        ax: the axes to draw on, by default new ones.

    Raises:
        ValueError: a line with another number of values than there are counts.

    Example:
        >>> lines = {"largest effects": [0.61, 0.42], "random": [0.63, 0.62]}
        >>> cn.plot_ablation([10, 100], lines, unedited=0.64)
    """
    ax = _axes(ax)
    for name, values in accuracies.items():
        if len(values) != len(counts):
            raise ValueError(f"{name}: {len(values)} accuracies for {len(counts)} counts")
        ax.plot(counts, values, marker="o", label=name)
    if unedited is not None:
        ax.axhline(unedited, linestyle="--", color="grey", label="unedited")
    ax.set(xlabel="ablated units", ylabel="accuracy")
    ax.legend()
    return ax


def _axes(ax: Axes | None) -> Axes:
    if ax is not None:
        return ax
    with extra("plot"):
        import matplotlib.pyplot as plt

    return plt.subplots()[1]
