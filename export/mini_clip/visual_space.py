"""Where concepts lie by how they look, and the space of both meaning and looks.

Concepts that mean much the same may look alike or not. The looks come from a fixed feature map:
a ViT whose first block is written to turn each patch into edge energies by direction, and whose
later heads average these energies in one Gaussian window each; discriminant analysis of the
windows gives each concept its centre. No image tower starts from these weights.
"""

import math
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from export.mini_clip import data, model
from export.mini_clip.word_space import Space

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
    """Write the edge energies and the windows."""
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
    """Linear discriminant analysis: centres [classes, f] in coordinates in which the spread
    within classes is white, centred."""
    x = features - features.mean(0)
    centres = torch.zeros(classes, x.shape[1]).index_add_(0, labels, x)
    centres /= torch.bincount(labels, minlength=classes).clamp(min=1)[:, None]
    deviation = x.std(0) + 1e-3
    within = (x - centres[labels]) / deviation
    cov = within.T @ within / len(x)
    cov += 1e-2 * cov.trace() / len(cov) * torch.eye(len(cov))
    values, vectors = torch.linalg.eigh(cov)
    whiten = (vectors / values.sqrt()) / deviation[:, None]
    centres = centres @ whiten
    return centres - centres.mean(0)


def onto_looks(semantic, centres):
    """How concepts lie by looks, as unit rows [c, d], and the rotation [d, d] that brings the
    semantic space (unit rows [c, d]) closest to it."""
    u, values, _ = torch.linalg.svd(centres, full_matrices=False)
    dim = semantic.shape[1]
    visual = F.normalize(u[:, :dim] * values[:dim], dim=1)
    visual = F.pad(visual, (0, dim - visual.shape[1]))
    left, _, right = torch.linalg.svd(semantic.T @ visual)
    return left @ right, visual


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


def prepare(run: Path, packs: list, exclude: tuple[str, ...], count: int = 20480) -> None:
    """Write the space that the text tower learns: `space.safetensors`."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    pack = packs[0]
    sprites = data.Sprites.load(packs, exclude)
    words = Space.build(pack)
    visual = model.build("vit").visual.eval()
    write_edges(visual)
    labels, features = [], []
    for start in range(0, count, 256):
        size = min(256, count - start)
        made = data.batch(sprites, words, pack.concepts, size, 1, rng, 1.0, 0.3)
        labels.append(made.shown[:, 0])
        features.append(window_features(visual, (made.image - 0.5) / 0.5))
    centres = discriminants(torch.cat(features), torch.cat(labels), len(pack.concepts))
    semantic = torch.from_numpy(np.stack([words[c] for c in pack.concepts]))
    rotation, looks = onto_looks(semantic, centres)
    place_by_looks(words, pack, rotation, looks).save(run / "space.safetensors")
