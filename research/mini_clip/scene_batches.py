"""Training scenes in batches, on torch: drawings restyled, placed and blended at random.

`clipneurons.synthetic.scenes` composes one exact scene at a time; this makes a
batch in a few tensor operations and varies *style*, because the gap between drawing styles is
what limits the small model: outlines, hue, flat fills, edges only, posterised, tinted.
"""

import math
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch.nn import functional as F

from clipneurons.synthetic.captions import BACKGROUNDS, COLOURS
from clipneurons.synthetic.pictograms import Pictograms
from research.mini_clip.word_space import WEIGHT

SIZE = 64


@dataclass
class Sprites:
    """All training drawings: uint8 [drawings, 4, 64, 64], who they show, which are one ink."""

    pixels: torch.Tensor
    concept: torch.Tensor
    monochrome: torch.Tensor
    by_concept: list[list[list[list[int]]]]  # concept -> pack -> style -> drawings

    @classmethod
    def load(cls, packs: list[Pictograms], exclude: tuple[str, ...] = ()) -> "Sprites":
        pixels, concept, names = [], [], packs[0].concepts
        by_concept: list[list[list[list[int]]]] = [[[] for _ in packs] for _ in names]
        for which, pack in enumerate(packs):
            for (name, style), ids in pack.entries.items():
                if style in exclude:
                    continue
                owner = names.index(name)
                by_concept[owner][which].append(list(range(len(pixels), len(pixels) + len(ids))))
                pixels += [pack.image(i).transpose(2, 0, 1) for i in ids]
                concept += [owner] * len(ids)
            pack._decoded.clear()
        pixels = torch.from_numpy(np.stack(pixels))
        rgb, visible = pixels[:, :3].int(), pixels[:, 3:] > 128
        bright = (rgb.amax(1, keepdim=True) * visible).amax((1, 2, 3))
        return cls(pixels, torch.tensor(concept), bright < 60, by_concept)

    def sample(self, count: int, rng: np.random.Generator, first: float) -> torch.Tensor:
        """Drawings [count]: concept, then style, then drawing, each uniformly, with the first
        pack's share of them given."""
        ids = []
        for concept in rng.integers(len(self.by_concept), size=count):
            packs = self.by_concept[concept]
            styles = packs[0] if rng.random() < first or not packs[-1] else packs[-1]
            drawings = styles[rng.integers(len(styles))]
            ids.append(drawings[rng.integers(len(drawings))])
        return torch.tensor(ids)


def dilate(x: torch.Tensor, size: int) -> torch.Tensor:
    """Maximum over a size x size window by growing shifts: ten times faster than max_pool2d."""
    reach = size // 2
    for axis in (2, 3):
        done = 0
        while done < reach:
            step = min(done + 1, reach - done)
            low, high = x.narrow(axis, 0, SIZE - step), x.narrow(axis, step, SIZE - step)
            both = x.clone()
            both.narrow(axis, 0, SIZE - step).copy_(torch.maximum(low, high))
            upper = both.narrow(axis, step, SIZE - step)
            torch.maximum(upper, low, out=upper)
            x, done = both, done + step
    return x


def chance(count: int, probability: float) -> torch.Tensor:
    return (torch.rand(count, 1, 1, 1) < probability).float()


def restyle(rgb, alpha, monochrome):
    """Random drawing style. rgb [n, 3, s, s], alpha [n, 1, s, s] in 0..1, monochrome [n]."""
    n = len(rgb)
    mono = monochrome.view(n, 1, 1, 1).float()
    # One-ink icons: any ink (half the time black), and often a flat fill behind the lines.
    ink = torch.rand(n, 3, 1, 1) * chance(n, 0.5)
    rgb = rgb * (1 - mono) + ink * mono
    closed = 1 - dilate(1 - dilate(alpha, 9), 9)
    closed = torch.maximum(closed, alpha)
    fill = mono * chance(n, 0.5)
    paint = 0.4 + 0.6 * torch.rand(n, 3, 1, 1)
    rgb = torch.where(fill > 0, rgb * alpha + paint * (1 - alpha), rgb)
    alpha = torch.where(fill > 0, closed, alpha)
    # Hue, saturation, brightness: a rotation about the gray axis, mostly small.
    angle = torch.randn(n) * 0.25 + (torch.rand(n) < 0.3) * torch.rand(n) * 2 * math.pi
    saturation = torch.where(torch.rand(n) < 0.12, torch.zeros(n), 0.6 + 0.8 * torch.rand(n))
    cos, sin = (angle.cos() * saturation)[:, None, None], (angle.sin() * saturation)[:, None, None]
    gray = torch.full((3, 3), 1 / 3)
    turn = torch.tensor([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
    matrix = gray + cos * (torch.eye(3) - gray) + sin * turn
    gain = (0.8 + 0.4 * torch.rand(n, 1, 1, 1)) * (0.9 + 0.2 * torch.rand(n, 3, 1, 1))
    shift = 0.2 * (torch.rand(n, 1, 1, 1) - 0.5)
    rgb = torch.einsum("nij,njhw->nihw", matrix, rgb) * gain + shift
    levels = 3 + torch.randint(0, 3, (n, 1, 1, 1))
    rgb = torch.where(chance(n, 0.12) > 0, (rgb * levels).round() / levels, rgb).clamp(0, 1)
    # Lines: inner edges and outer outline in a dark ink; sometimes nothing else.
    light = (rgb.mean(1, keepdim=True) * alpha + (1 - alpha)).contiguous()
    edges = dilate(light, 3) + dilate(-light, 3)
    threshold = 0.12 + 0.2 * torch.rand(n, 1, 1, 1)
    inner = ((edges - threshold) * 6).clamp(0, 1)
    only = chance(n, 0.1) * (1 - mono)
    drawn = torch.maximum(chance(n, 0.35), only) * (1 - mono)
    outer = (dilate(alpha, 3) - (1 - dilate(1 - alpha, 3))).clamp(0, 1)
    thick = torch.where(chance(n, 0.5) > 0, dilate(outer, 3), outer)
    lines = torch.maximum(inner * drawn, thick * torch.maximum(chance(n, 0.35), only))
    rgb = torch.where(only > 0, torch.ones_like(rgb), rgb)
    dark = 0.15 * torch.rand(n, 1, 1, 1)
    rgb = rgb * (1 - lines) + dark * lines
    alpha = torch.maximum(alpha, lines)
    rgb = torch.where(chance(n, 0.04) > 0, 1 - rgb, rgb)
    return rgb, alpha


def place(rgba, scale, centre, mirror, wild: float = 1.0):
    """Warp premultiplied [n, 4, s, s] to side `scale` [n] (of the frame) around `centre` [n, 2]
    (in -1..1), mirrored where `mirror` [n] is -1, with a little rotation, shear and stretch."""
    n = len(rgba)
    angle = torch.randn(n) * 0.12 * wild
    stretch = torch.exp(torch.randn(n) * 0.08 * wild)
    shear = torch.randn(n) * 0.08 * wild
    cos, sin = angle.cos(), angle.sin()
    a, b = cos * mirror / (scale * stretch), (sin + shear) / scale
    c, d = -sin * mirror / scale, cos * stretch / scale
    matrix = torch.stack([torch.stack([a, b], -1), torch.stack([c, d], -1)], 1)
    offset = -(matrix @ centre[..., None])
    grid = F.affine_grid(torch.cat([matrix, offset], 2), list(rgba.shape), align_corners=False)
    return F.grid_sample(rgba, grid, mode="bilinear", align_corners=False)


def backgrounds(n: int, plain: float):
    """Random grounds [n, 3, s, s] with indices of their pattern and colour."""
    names, base = list(COLOURS), torch.tensor(list(COLOURS.values())) / 255
    first, second = torch.randint(len(names), (2, n))
    white = torch.rand(n) < max(0.3, plain - 0.3)
    first = torch.where(white, names.index("white"), first)
    kind = torch.where(torch.rand(n) < plain, 0, torch.randint(len(BACKGROUNDS), (n,)))
    one = (base[first] + 0.06 * torch.randn(n, 3)).clamp(0, 1)[:, :, None, None]
    two = (0.6 * one + 0.4 * base[second][:, :, None, None]).clamp(0, 1)
    axis = torch.linspace(-1, 1, SIZE)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    angle = (torch.rand(n) * 2 * math.pi).view(n, 1, 1)
    u, v = x * angle.cos() + y * angle.sin(), y * angle.cos() - x * angle.sin()
    frequency = (3 + 7 * torch.rand(n)).view(n, 1, 1)
    wave = (u * frequency).sin() > 0
    check = wave ^ ((v * frequency).sin() > 0)
    noise = torch.rand(n, SIZE, SIZE)
    fields = torch.stack([torch.zeros_like(u), (u + 1.4) / 2.8, wave.float(), check.float(), noise])
    t = fields[kind, torch.arange(n)].clamp(0, 1)[:, None]
    return one * (1 - t) + two * t, kind, first


@dataclass
class Facts:
    """What scenes show and which of it a caption says; -1 is nothing.

    shown, colour [n, 3]: class indices, and colour words said of them; ground [n, 2]: pattern and
    colour said of the background; relation [n]: how the first object lies to the second.
    """

    shown: torch.Tensor
    colour: torch.Tensor
    ground: torch.Tensor
    relation: torch.Tensor

    def __getitem__(self, rows) -> "Facts":
        return self.each(lambda column: column[rows])

    def to(self, device: str) -> "Facts":
        return self.each(lambda column: column.to(device))

    def each(self, change) -> "Facts":
        """The same change of every column."""
        return Facts(*(change(getattr(self, f.name)) for f in fields(self)))


@torch.no_grad()
def compose_batch(
    sprites: Sprites, n: int, objects: int, rng, easy: float, vary: float = 1.0, emoji: float = 0.7
) -> tuple[torch.Tensor, Facts]:
    """`n` scenes of `objects` objects: uint8 [n, 3, 64, 64] and what they show.

    `easy` in 0..1: 1 is large, centred and on plain ground. `vary`: the share of drawings
    whose style is changed; `emoji`: the share of drawings from the first pack.
    """
    image, pattern, ground = backgrounds(n, 0.4 + 0.55 * easy)
    shown, colour = torch.full((2, n, 3), -1)
    vertical = torch.rand(n) < 0.4
    swap = 1 - 2 * (torch.rand(n) < 0.5).float()
    for j in range(objects):
        ids = sprites.sample(n, rng, emoji)
        raw = sprites.pixels[ids].float() / 255
        rgb, alpha = raw[:, :3], raw[:, 3:]
        new = torch.rand(n) < vary
        if new.any():
            rgb[new], alpha[new] = restyle(rgb[new], alpha[new], sprites.monochrome[ids][new])
        if objects == 1:
            low, high = 0.4 + 0.32 * easy, 1 - 0.22 * easy
            scale = low + (high - low) * torch.rand(n)
            room = ((1 - scale) * (1 - 0.8 * easy)).clamp(min=0.04)[:, None]
            centre = (2 * torch.rand(n, 2) - 1) * room
        else:
            scale = 0.32 + 0.2 * torch.rand(n)
            along = (torch.tensor([-0.5, 0.5, 0.0])[j] + 0.1 * torch.randn(n)) * swap
            across = 0.35 * torch.randn(n).clamp(-1, 1) + (0.3 if j == 2 else 0)
            centre = torch.stack(
                [torch.where(vertical, across, along), torch.where(vertical, along, across)], 1
            )
        mirrored = torch.rand(n) < 0.5 * (1 - easy)
        rgba = place(torch.cat([rgb * alpha, alpha], 1), scale, centre, 1 - 2 * mirrored.float())
        image = rgba[:, :3] + image * (1 - rgba[:, 3:])
        shown[:, j] = sprites.concept[ids]
        mean = (rgb * alpha).sum((2, 3)) / alpha.sum((2, 3)).clamp(min=1)
        colour[:, j] = torch.where(torch.rand(n) < 0.35, colour_indices(mean), -1)
    ground = torch.where(torch.rand(n, 1) < 0.4, torch.stack([pattern, ground], 1), -1)
    # RELATIONS are left of, right of, above, below.
    relation = 2 * vertical.long() + (swap < 0).long()
    related = torch.rand(n) < (0.5 if objects > 1 else 0.0)
    relation = torch.where(related, relation, -1)
    return (image.clamp(0, 1) * 255).round().byte(), Facts(shown, colour, ground, relation)


def colour_indices(rgb: torch.Tensor) -> torch.Tensor:
    """Which of `COLOURS` is the name of each colour [n, 3] in 0..1: `captions.colour_word`, for
    many at once."""
    names = {name: i for i, name in enumerate(COLOURS)}
    high, low = rgb.amax(1), rgb.amin(1)
    light, chroma = (high + low) / 2, high - low
    red, green, blue = ((high[:, None] - rgb) / chroma.clamp(min=1e-6)[:, None]).unbind(1)
    sector = torch.where(rgb[:, 1] == high, 2 + red - blue, 4 + green - red)
    sector = torch.where(rgb[:, 0] == high, blue - green, sector)
    degrees = sector / 6 % 1 * 360
    found = torch.full_like(degrees, names["pink"], dtype=torch.long)
    for limit, name in ((295, "purple"), (255, "blue"), (165, "green"), (70, "yellow")):
        found[degrees < limit] = names[name]
    warm, bright = degrees < 45, light >= 0.42
    found[warm & bright], found[warm & ~bright] = names["orange"], names["brown"]
    reddish = (degrees < 18) | (degrees >= 335)
    found[reddish], found[reddish & (light > 0.7)] = names["red"], names["pink"]
    dull = chroma < 0.15
    found[dull] = names["gray"]
    found[dull & (light > 0.85)], found[dull & (light < 0.22)] = names["white"], names["black"]
    return found


def points_of(facts: Facts, classes, colours, patterns, rotations) -> torch.Tensor:
    """The captions' points [n, DIM], unit rows.

    classes, colours, patterns [., DIM]: the words' vectors; rotations [4, DIM, DIM].
    """

    def look_up(table, index):
        return torch.where(index[..., None] >= 0, table[index.clamp(min=0)], 0.0)

    count = (facts.shown >= 0).sum(1, keepdim=True)
    things = look_up(classes, facts.shown)
    point = (things + WEIGHT["colour"] * look_up(colours, facts.colour)).sum(1) / count
    pattern, ground = facts.ground.unbind(1)
    point += WEIGHT["background"] * look_up(colours, ground)
    point += WEIGHT["pattern"] * look_up(patterns, torch.where(pattern > 0, pattern, -1))
    turn = facts.relation.clamp(min=0)
    bound = torch.einsum("nij,nj->ni", rotations[turn], things[:, 0])
    bound += torch.einsum("nij,nj->ni", rotations[turn ^ 1], things[:, 1])
    point += torch.where(facts.relation[:, None] >= 0, WEIGHT["relation"] * bound, 0.0)
    return F.normalize(point, dim=1)
