"""Random crops and colours of a batch, on any device."""

import torch
from torch import Tensor
from torch.nn import functional as F


def vary(image: Tensor, smallest: float, flip: bool, size: int) -> Tensor:
    """uint8 [n, 3, s, s] -> float [n, 3, size, size] in 0..1.

    Crops of `smallest` to all of the area, mirrored half of the time if `flip`, with other
    brightness, contrast and saturation.
    """
    n, device = len(image), image.device
    area = smallest + (1 - smallest) * torch.rand(n, device=device)
    ratio = torch.exp((torch.rand(n, device=device) - 0.5) * 0.5)
    width, height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    centre = 2 * torch.rand(2, n, device=device) - 1
    x, y = centre * torch.stack([1 - width, 1 - height])
    mirror = torch.where(torch.rand(n, device=device) < (0.5 if flip else 0.0), -1.0, 1.0)
    zero = torch.zeros_like(width)
    matrix = torch.stack([width * mirror, zero, x, zero, height, y], 1).view(n, 2, 3)
    image = image.float() / 255
    if size < image.shape[-1]:
        image = F.avg_pool2d(image, image.shape[-1] // size)
    grid = F.affine_grid(matrix, [n, 3, size, size], align_corners=False)
    image = F.grid_sample(image, grid, padding_mode="reflection", align_corners=False)

    def gain(reach: float) -> Tensor:
        return 1 + reach * (2 * torch.rand(n, 1, 1, 1, device=device) - 1)

    image = image * gain(0.3)
    mean = image.mean((1, 2, 3), keepdim=True)
    image = (image - mean) * gain(0.3) + mean
    gray = image.mean(1, keepdim=True)
    return ((image - gray) * gain(0.4) + gray).clamp(0, 1)
