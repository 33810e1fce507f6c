"""The ResNet's start, in the spirit of `mini_start`: edges in the stem, windows in the pooling.

The stem becomes rectified derivatives in four directions, which the shortcuts carry to the last
stage beside what the random residual branches make of them; each head of the attention
pooling averages one window, and its output projection is a fitted linear read-out.
"""

from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from . import mini_data, mini_model
from .mini_space import Space
from .mini_start import discriminants, fit_linear

SHARPNESS, PLACE_SIZE, PLACES = 3.0, 1.0, 3


@torch.no_grad()
def write_edges(visual) -> None:
    """Stem and shortcuts; batch norms are set by `calibrate`."""
    slope, smooth = torch.tensor([-1.0, 0, 1]), torch.tensor([1.0, 2, 1]) / 4
    dx, dy = torch.outer(smooth, slope), torch.outer(slope, smooth)
    filters = [dx, dy, (dx + dy) / 2**0.5, (dx - dy) / 2**0.5]
    conv = visual.conv1.weight
    conv.zero_()
    for i in range(len(conv)):
        conv[i] = filters[i // 2 % 4] * (1 - 2 * (i % 2)) / 3
    for conv in (visual.conv2.weight, visual.conv3.weight):
        same = min(conv.shape[:2])
        conv[:same] *= 0.0
        conv[range(same), range(same), 1, 1] = 1.0
    for stage in (visual.layer1, visual.layer2, visual.layer3, visual.layer4):
        shortcut = stage[0].downsample[1].weight
        same = min(shortcut.shape[:2])
        shortcut[:same] = 0
        shortcut[range(same), range(same), 0, 0] = 1.0


@torch.no_grad()
def calibrate(visual, images: torch.Tensor) -> None:
    """Batch norms with the statistics of these images, shifted up so that little is cut."""
    for module in visual.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum, module.bias.data[:] = None, 0.7
            module.weight.data[:] = 1.0
            module.reset_running_stats()
    visual.train()
    for part in images.split(64):
        visual(part)
    visual.eval()
    for module in visual.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 0.1


@torch.no_grad()
def write_windows(visual) -> None:
    """Attention pooling: head h averages the first channels in its window."""
    pool = visual.attnpool
    width, heads = pool.q_proj.weight.shape[0], pool.num_heads
    size, grid = width // heads, int((pool.positional_embedding.shape[0] - 1) ** 0.5)
    axis = torch.linspace(-1, 1, grid)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    pool.positional_embedding.zero_()
    code = torch.stack([x, y, x**2 + y**2 - 0.75], -1).flatten(0, 1)
    pool.positional_embedding[1:, -PLACES:] = PLACE_SIZE * code
    # The mean over the image is a key too: far out, so that no window includes it.
    pool.positional_embedding[0, -1] = 10.0
    for layer in (pool.q_proj, pool.k_proj, pool.v_proj):
        layer.weight.zero_(), layer.bias.zero_()
    count = torch.arange(heads)
    radius, angle = 0.9 * ((count + 0.5) / heads).sqrt(), count * 2.39996
    for head in range(heads):
        at = head * size
        cx, cy = radius[head] * angle[head].cos(), radius[head] * angle[head].sin()
        want = torch.tensor([2 * cx, 2 * cy, -1.0]) * SHARPNESS * size**0.5
        pool.q_proj.bias[at : at + 3] = want
        pool.k_proj.weight[at : at + 3, -PLACES:] = torch.eye(PLACES)
        pool.v_proj.weight[range(at, at + size), range(size)] = 1.0


@torch.no_grad()
def window_features(visual, images: torch.Tensor) -> torch.Tensor:
    """What the heads bring to the output projection: [n, width]."""
    pool = visual.attnpool
    weight, bias = pool.c_proj.weight.data, pool.c_proj.bias.data
    out = []
    try:
        pool.c_proj.weight.data = torch.eye(weight.shape[1])
        pool.c_proj.bias.data = torch.zeros(weight.shape[1])
        out = [visual(part) for part in images.split(64)]
    finally:
        pool.c_proj.weight.data, pool.c_proj.bias.data = weight, bias
    return torch.cat(out)


def prepare(run: Path, pack, packs: list, exclude: tuple[str, ...], count: int = 8192) -> None:
    """Write `rn.start.pt`, read out into the space that the ViT's start made."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    sprites = mini_data.Sprites.load(packs, exclude)
    space = Space.load_or_build(run / "space.safetensors", pack)
    anchors = torch.from_numpy(np.stack([space[c] for c in pack.concepts]))
    visual = mini_model.build("rn").visual.eval()
    write_edges(visual)
    labels, features = [], []
    for start in range(0, count, 256):
        made = mini_data.batch(sprites, space, pack.concepts, 256, 1, rng, 1.0, 0.3)
        image = F.interpolate((made.image - 0.5) / 0.5, scale_factor=2, mode="bicubic")
        if not start:
            calibrate(visual, image)
            write_windows(visual)
        labels.append(made.shown[:, 0])
        features.append(window_features(visual, image))
    labels, features = torch.cat(labels), torch.cat(features)
    mean, whiten, centres = discriminants(features, labels, len(pack.concepts))
    weight, offset = fit_linear((features - mean) @ whiten, labels, centres, anchors)
    weight = whiten @ weight
    visual.attnpool.c_proj.weight.data = weight.T.contiguous()
    visual.attnpool.c_proj.bias.data = offset - mean @ weight
    torch.save({"model": visual.state_dict()}, run / "rn.start.pt")
