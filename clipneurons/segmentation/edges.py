"""Maps on the patch grid, brought to the image's pixels along its edges.

The fast guided filter (He, Sun, arXiv 1505.00996). In each window ω around a point, the map p is
fitted by an affine function of the colour I:

    a_ω = (Σ_ω + ε 1)⁻¹ (mean_ω(I p) − mean_ω(I) mean_ω(p))        b_ω = mean_ω(p) − a_ω · mean_ω(I)
    q(x) = mean over windows around x of a_ω · I(x) + b_ω

    I [3], Σ_ω [3, 3]   colour in 0..1, its covariance in the window; ε is a ridge
    a_ω [3], b_ω        slope and offset, fitted on a few points a patch, applied to every pixel

Ours multiplies the guided map by the square root of the plain one (`follow_edges`).
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from clipneurons.models.clip import ClipModel
from clipneurons.segmentation.masks import upsample

# Points a patch and side at which the edges are fitted; chosen on scenes of the validation style.
_CELLS = 2


def follow_edges(
    clip: ClipModel,
    images: Float[Tensor, "image 3 height width"],
    maps: Float[Tensor, "image class row column"],
) -> Float[Tensor, "image class height width"]:
    """Maps of preprocessed images at full size, along the images' edges.

    The guided map gives the edges. The root of the plain map keeps what has the same colour, but
    lies far from any evidence, from lighting up. Maps that fall below zero are raised to it.
    """
    mean, std = (
        torch.tensor(value, device=maps.device)[:, None, None]
        for value in (clip.image_mean, clip.image_std)
    )
    maps = maps - maps.amin((-2, -1), keepdim=True).clamp_max(0)
    guided = guided_upsample(images.to(maps) * std + mean, maps, cells=_CELLS)
    return guided.clamp_min(0) * upsample(maps, images.shape[-2:]).sqrt()


def guided_upsample(
    guide: Float[Tensor, "image 3 height width"],
    maps: Float[Tensor, "image class row column"],
    cells: int = 4,
    epsilon: float = 1e-3,
) -> Float[Tensor, "image class height width"]:
    """The equation above, fitted on ``cells`` points a patch and side.

    Windows reach one patch to each side. ``guide`` is in 0..1.
    """
    rows, columns = maps.shape[-2:]
    small = F.interpolate(guide, (rows * cells, columns * cells), mode="area")
    coarse = F.interpolate(maps, small.shape[-2:], mode="bilinear")
    slope, offset = _affine(small, coarse, cells, epsilon)
    size = guide.shape[-2:]
    slope = F.interpolate(slope.flatten(1, 2), size, mode="bilinear").unflatten(1, (3, -1))
    offset = F.interpolate(offset, size, mode="bilinear")
    return (slope * guide[:, :, None]).sum(1) + offset


def box_mean(
    values: Float[Tensor, "image channel height width"], radius: int
) -> Float[Tensor, "image channel height width"]:
    """Mean over a square window of ``2 · radius + 1`` pixels, cut off at the border."""
    return F.avg_pool2d(values, 2 * radius + 1, stride=1, padding=radius, count_include_pad=False)


def _affine(
    guide: Float[Tensor, "image 3 height width"],
    maps: Float[Tensor, "image class height width"],
    radius: int,
    epsilon: float,
) -> tuple[Float[Tensor, "image 3 class height width"], Float[Tensor, "image class height width"]]:
    """Slope by colour and offset of each map at each pixel, averaged over its windows."""
    radius = min(radius, (min(guide.shape[-2:]) - 1) // 2)
    mean, target = box_mean(guide, radius), box_mean(maps, radius)
    pairs = (guide[:, :, None] * guide[:, None]).flatten(1, 2)
    covariance = box_mean(pairs, radius).unflatten(1, (3, 3)) - mean[:, :, None] * mean[:, None]
    covariance = covariance + epsilon * torch.eye(3, device=guide.device)[..., None, None]
    products = (guide[:, :, None] * maps[:, None]).flatten(1, 2)
    cross = box_mean(products, radius).unflatten(1, (3, -1)) - mean[:, :, None] * target[:, None]
    slope = torch.einsum("bijhw,bjchw->bichw", _inverse(covariance), cross)
    offset = target - (slope * mean[:, :, None]).sum(1)
    return box_mean(slope.flatten(1, 2), radius).unflatten(1, (3, -1)), box_mean(offset, radius)


def _inverse(
    matrices: Float[Tensor, "image 3 3 height width"],
) -> Float[Tensor, "image 3 3 height width"]:
    """Inverse of symmetric matrices by cross products: many times faster than a solver."""
    first, second, third = matrices.unbind(1)
    rows = [
        torch.linalg.cross(a, b, dim=1)
        for a, b in ((second, third), (third, first), (first, second))
    ]
    determinant = (first * rows[0]).sum(1, keepdim=True)
    return torch.stack(rows, 1) / determinant[:, None]
