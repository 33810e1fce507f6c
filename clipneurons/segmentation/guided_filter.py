"""Maps on a coarse grid made to follow the image's edges: the guided filter."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def box_mean(
    values: Float[Tensor, "image channel height width"], radius: int
) -> Float[Tensor, "image channel height width"]:
    """Mean over a square window of ``2 · radius + 1`` pixels, cut off at the border."""
    return F.avg_pool2d(values, 2 * radius + 1, stride=1, padding=radius, count_include_pad=False)


def guided_filter(
    guide: Float[Tensor, "image 3 height width"],
    maps: Float[Tensor, "image class height width"],
    radius: int = 4,
    epsilon: float = 1e-3,
) -> Float[Tensor, "image class height width"]:
    """Maps smoothed within regions of one colour (He, Sun, Tang 2010, section 3.5).

    In each window the map is fitted by an affine function of the colour, with ridge
    ``epsilon``; a pixel's value is the mean of the windows it lies in. ``guide`` is in 0..1.

    Raises:
        ValueError: a radius below 1 or a ridge that is not positive.
    """
    if radius < 1 or epsilon <= 0:
        raise ValueError(f"expected radius >= 1 and epsilon > 0, not {radius} and {epsilon}")
    if min(guide.shape[-2:]) < 3:
        return maps
    slope, offset = _affine(guide, maps, radius, epsilon)
    return (slope * guide[:, :, None]).sum(1) + offset


def guided_upsample(
    guide: Float[Tensor, "image 3 height width"],
    maps: Float[Tensor, "image class row column"],
    cells: int = 4,
    epsilon: float = 1e-3,
) -> Float[Tensor, "image class height width"]:
    """Maps on a patch grid brought to the image's size, following its edges.

    The fast guided filter (He, Sun 2015): the affine functions of colour are fitted on ``cells``
    points a patch and side, over windows that reach one patch to each side, and then applied to
    every pixel.
    """
    rows, columns = maps.shape[-2:]
    small = F.interpolate(guide, (rows * cells, columns * cells), mode="area")
    coarse = F.interpolate(maps, small.shape[-2:], mode="bilinear")
    slope, offset = _affine(small, coarse, cells, epsilon)
    size = guide.shape[-2:]
    slope = F.interpolate(slope.flatten(1, 2), size, mode="bilinear").unflatten(1, (3, -1))
    offset = F.interpolate(offset, size, mode="bilinear")
    return (slope * guide[:, :, None]).sum(1) + offset


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
