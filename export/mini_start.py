"""A start for the ViT that already sees edges and where they are.

From random weights a small ViT spends most of an hour on one CPU core finding out what
histograms of oriented gradients know. So they are written into it: the first block's MLP
turns each patch into edge energies by direction, every head of the later blocks averages
these energies in one Gaussian window for the class token, and a linear read-out of the
windows is fitted in closed form and then by gradient on cached features. It is a plain
open_clip ViT; training goes on from there.
"""

import math
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from . import mini_data, mini_model
from .mini_space import Space

PLACE, FLAG, DETAIL = slice(0, 3), 3, slice(4, 67)
COLOUR, FINE, COARSE, LEFT = slice(67, 70), slice(70, 78), slice(78, 86), slice(86, 94)
READ = slice(67, 94)
SHARPNESS, PLACE_SIZE = 7.0, 3.0


def cosines(size: int = 8) -> torch.Tensor:
    """Orthonormal cosine basis of a patch without its mean: [63, size, size]."""
    k, x = torch.arange(size)[:, None], torch.arange(size)[None] + 0.5
    rows = torch.cos(math.pi / size * k * x) * math.sqrt(2 / size)
    rows[0] /= math.sqrt(2)
    return torch.einsum("iy,jx->ijyx", rows, rows).flatten(0, 1)[1:]


def edge_filters(size: int, sigma: float, places: torch.Tensor) -> torch.Tensor:
    """Derivatives of Gaussians: [8 directions, places^2, size, size], zero mean, unit norm."""
    axis = torch.arange(size) - (size - 1) / 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    cy, cx = torch.meshgrid(places, places, indexing="ij")
    dx, dy = x - cx.reshape(-1, 1, 1), y - cy.reshape(-1, 1, 1)
    angle = (torch.arange(8) * math.pi / 8).view(8, 1, 1, 1)
    bell = torch.exp(-(dx**2 + dy**2) / (2 * sigma**2))
    filters = (dx * angle.cos() + dy * angle.sin()) * bell
    filters = filters - filters.mean((2, 3), keepdim=True)
    return filters / filters.flatten(2).norm(dim=2)[..., None, None]


@torch.no_grad()
def write_edges(visual) -> None:
    """Write the edge energies and the windows; the read-out is still zero."""
    width, grid = visual.class_embedding.shape[0], visual.grid_size[0]
    blocks = visual.transformer.resblocks
    heads = blocks[0].attn.num_heads
    size = width // heads
    conv, place = visual.conv1.weight, visual.positional_embedding
    conv.zero_(), place.zero_(), visual.class_embedding.zero_()
    basis = cosines()
    conv[DETAIL] = basis[:, None] / 3
    for channel in range(3):
        conv[COLOUR.start + channel, channel] = 1 / 64
    axis = torch.linspace(-1, 1, grid)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    place[1:, PLACE] = PLACE_SIZE * torch.stack([x, y, x**2 + y**2 - 0.75], -1).flatten(0, 1)
    visual.class_embedding[FLAG] = 6.0
    # Energies: |edge| as the sum of two rectified units, averaged over places in the patch.
    first = blocks[0]
    first.attn.out_proj.weight.zero_(), first.attn.out_proj.bias.zero_()
    up, down = first.mlp.c_fc, first.mlp.c_proj
    up.weight.mul_(0.1), up.bias.zero_(), down.weight.zero_(), down.bias.zero_()
    row = 0
    # Small against the place code, so that the windows stay where they are.
    for span, sigma, gain, places in (
        (FINE, 0.8, 0.3, torch.tensor([-3.0, -1, 1, 3])),
        (COARSE, 1.7, 0.1, torch.tensor([-2.0, 0, 2])),
    ):
        filters = edge_filters(8, sigma, places)
        count = filters.shape[1]
        weights = filters.flatten(2) @ basis.flatten(1).T  # [8, places, 63]
        for direction in range(8):
            for spot in range(count):
                left = spot % len(places) < len(places) / 2
                for sign in (1, -1):
                    up.weight[row].zero_()
                    up.weight[row, DETAIL] = sign * 3.0 * weights[direction, spot]
                    down.weight[span.start + direction, row] = gain / count
                    if span is FINE and left:
                        down.weight[LEFT.start + direction, row] = 2 * gain / count
                    row += 1
    count = torch.arange((len(blocks) - 1) * heads)
    radius, angle = 0.95 * ((count + 0.5) / len(count)).sqrt(), count * 2.39996
    centres = torch.stack([radius * angle.cos(), radius * angle.sin()], 1).view(-1, heads, 2)
    for block, places in zip(blocks[1:], centres, strict=True):
        query, key, value = block.attn.in_proj_weight.chunk(3)
        block.attn.out_proj.weight.zero_(), block.attn.out_proj.bias.zero_()
        block.mlp.c_proj.weight.zero_(), block.mlp.c_proj.bias.zero_()
        query.zero_(), key.zero_(), value.zero_(), block.attn.in_proj_bias.zero_()
        for head, (cx, cy) in enumerate(places):
            at = head * size
            want = torch.tensor([2 * cx, 2 * cy, -1.0]) * SHARPNESS * size**0.5
            query[at : at + 3, FLAG] = want / (PLACE_SIZE / 0.45) / width**0.5
            key[at : at + 3, PLACE] = torch.eye(3)
            for row, column in enumerate(range(READ.start, READ.stop)):
                value[at + row, column] = 1.0


@torch.no_grad()
def window_features(visual, images: torch.Tensor) -> torch.Tensor:
    """What the heads of blocks 1.. bring to the class token: [n, heads x head width]."""
    caught = []

    def catch(attention, inputs, output):
        x = inputs[0]
        q, k, v = F.linear(x, attention.in_proj_weight, attention.in_proj_bias).chunk(3, -1)
        n, tokens, _ = x.shape
        parts = (
            part.view(n, tokens, attention.num_heads, -1).transpose(1, 2) for part in (q, k, v)
        )
        q, k, v = parts
        caught.append(F.scaled_dot_product_attention(q[:, :, :1], k, v).flatten(1))

    hooks = [b.attn.register_forward_hook(catch) for b in visual.transformer.resblocks[1:]]
    try:
        visual(images)
    finally:
        for hook in hooks:
            hook.remove()
    return torch.cat(caught, 1)


def discriminants(features, labels, classes: int):
    """Linear discriminant analysis: (mean [f], whitening [f, f], centres [classes, f] in
    whitened coordinates, centred)."""
    mean = features.mean(0)
    x = features - mean
    centres = torch.zeros(classes, x.shape[1]).index_add_(0, labels, x)
    centres /= torch.bincount(labels, minlength=classes).clamp(min=1)[:, None]
    deviation = x.std(0) + 1e-3
    within = (x - centres[labels]) / deviation
    cov = within.T @ within / len(x)
    cov += 1e-2 * cov.trace() / len(cov) * torch.eye(len(cov))
    values, vectors = torch.linalg.eigh(cov)
    whiten = (vectors / values.sqrt()) / deviation[:, None]
    centres = centres @ whiten
    return mean, whiten, centres - centres.mean(0)


def shared_anchors(semantic, centres, looks: float = 1.0):
    """Where concepts lie in the shared space: by meaning and by looks alike.

    semantic [c, d] unit; centres [c, f] whitened. Returns anchors [c, d], the rotation [d, d]
    of the semantic space onto the visual one, and the visual part [c, d].
    """
    u, values, _ = torch.linalg.svd(centres, full_matrices=False)
    dim = semantic.shape[1]
    visual = F.normalize(u[:, :dim] * values[:dim], dim=1)
    left, _, right = torch.linalg.svd(semantic.T @ visual)
    rotation = left @ right
    return F.normalize(semantic @ rotation + looks * visual, dim=1), rotation, visual


def fit_linear(x, labels, centres, anchors, scale: float = 25.0, steps: int = 250):
    """A linear map [f, d] and offset [d] that bring whitened features to their class's
    anchor: discriminants for a start, then a little cross-entropy."""
    weight = torch.linalg.lstsq(anchors, centres).solution.T
    weight = (30 * weight / weight.norm()).clone().requires_grad_()
    offset = torch.zeros(anchors.shape[1], requires_grad=True)
    optimiser = torch.optim.AdamW([weight, offset], lr=1e-3)
    for _ in range(steps):
        rows = torch.randint(len(x), (1024,))
        out = F.normalize(x[rows] @ weight + offset, dim=1)
        loss = F.cross_entropy(scale * out @ anchors.T, labels[rows], label_smoothing=0.05)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return weight.detach(), offset.detach()


@torch.no_grad()
def write_readout(visual, weight: torch.Tensor, offset: torch.Tensor, features, images) -> None:
    """Put a linear map [f, d] of the window features into the heads' outputs and the
    projection; `features` and `images` show their usual size."""
    blocks = visual.transformer.resblocks[1:]
    width = visual.class_embedding.shape[0]
    free = [i for i in range(width) if i != FLAG and not READ.start <= i < READ.stop]
    left, values, right = torch.linalg.svd(weight, full_matrices=False)  # [f,r] [r] [r,d]
    rank = min(len(free), len(values))
    into = left[:, :rank] * values[:rank]
    # Small against the class token's flag, so that LayerNorm leaves the map linear.
    into *= 0.3 / (features @ into).std()
    for index, block in enumerate(blocks):
        part = into[index * width : (index + 1) * width]
        block.attn.out_proj.weight[free[:rank]] = part.T
    visual.proj.zero_()
    visual.proj[free[:rank]] = right[:rank]
    # The flag is a constant after LayerNorm: its row of the projection holds the offset.
    wanted = features @ weight
    out = torch.cat([visual(part) for part in images.split(128)])
    gain = (wanted - wanted.mean(0)).norm() / (out - out.mean(0)).norm()
    visual.proj[free[:rank]] *= gain
    # sqrt(width) is a lone channel's value after LayerNorm, up to the little else there is.
    visual.proj[FLAG] = (wanted.mean(0) + offset - gain * out.mean(0)) / width**0.5


def place_by_looks(space: Space, pack, rotation, visual) -> Space:
    """The space with every concept and its own synonyms moved towards how the concept looks."""
    vectors = space.vectors @ rotation.numpy()
    owner = {concept: i for i, concept in enumerate(pack.concepts)}
    synonyms = [word for concept in pack.concepts for word in pack.synonyms[concept]]
    for i, concept in enumerate(pack.concepts):
        for word in pack.synonyms[concept]:
            if synonyms.count(word) == 1:
                owner.setdefault(word, i)
    for word, i in owner.items():
        vectors[space.index[word]] += visual[i].numpy()
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return Space(space.words, vectors.astype(np.float32), space.rotations)


def prepare(run: Path, pack, packs: list, exclude: tuple[str, ...], count: int = 20480) -> None:
    """Write `vit.start.pt`, the shared space, and if a text tower is there its rotated copy."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    sprites = mini_data.Sprites.load(packs, exclude)
    words = Space.load_or_build(run / "words.safetensors", pack)
    visual = mini_model.build("vit").visual.eval()
    write_edges(visual)
    images, labels, features = [], [], []
    for start in range(0, count, 256):
        size = min(256, count - start)
        made = mini_data.batch(sprites, words, pack.concepts, size, 1, rng, 1.0, 0.3)
        image = (made.image - 0.5) / 0.5
        if start < 2048:
            images.append(image)
        labels.append(made.shown[:, 0])
        features.append(window_features(visual, image))
    images, labels, features = torch.cat(images), torch.cat(labels), torch.cat(features)
    mean, whiten, centres = discriminants(features, labels, len(pack.concepts))
    semantic = torch.from_numpy(np.stack([words[c] for c in pack.concepts]))
    anchors, rotation, looks = shared_anchors(semantic, centres)
    weight, offset = fit_linear((features - mean) @ whiten, labels, centres, anchors)
    weight = whiten @ weight
    offset = offset - mean @ weight
    write_readout(visual, weight, offset, features[: len(images)], images)
    place_by_looks(words, pack, rotation, looks).save(run / "space.safetensors")
    torch.save({"model": visual.state_dict()}, run / "vit.start.pt")
