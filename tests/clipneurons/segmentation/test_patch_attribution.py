"""The fit by hand, and the guided upsampling against least squares in every window."""

import pytest
import torch

from clipneurons.lens.token_contributions import token_effects_of
from clipneurons.segmentation.edges import follow_edges, guided_upsample
from clipneurons.segmentation.patch_attribution import fit_maps, patch_attribution
from tests.helpers.models import images, tiny_vit


@pytest.fixture(scope="module")
def clip():
    return tiny_vit(image_size=16, layers=3, width=16, embed_dim=8)


def test_fit_by_hand():
    effects = torch.tensor([[[3.0, 4.0], [0.0, 2.0], [0.0, 0.0]]])
    maps = fit_maps(effects, torch.tensor([[2.0, 0.0], [0.0, -1.0]]), sharpness=2.0, power=1.0)
    expected = [
        [5 * torch.tensor(1.2).exp(), 2.0, 0.0],
        [5 * torch.tensor(-1.6).exp(), 2 * torch.tensor(-2.0).exp(), 0.0],
    ]
    torch.testing.assert_close(maps, torch.tensor([expected]))
    for power in (0.0, 0.5):
        mine = fit_maps(effects, torch.tensor([[2.0, 0.0]]), sharpness=2.0, power=power)
        sizes = [5**power, 2**power, 0.0**power]  # a patch that says nothing fits nothing
        logits = torch.tensor([1.2, 0.0, 0.0])
        torch.testing.assert_close(mine[0, 0], torch.tensor(sizes) * logits.exp())


def test_maps_are_the_fit_of_what_each_patch_contributes(clip):
    batch = images(2, clip)
    texts = torch.nn.functional.normalize(torch.randn(3, clip.embed_dim), dim=1)
    plain = fit_maps(token_effects_of(clip)(batch)[:, 1:], texts).unflatten(-1, clip.grid)
    torch.testing.assert_close(patch_attribution(clip, edges=False)(batch, texts), plain)
    torch.testing.assert_close(
        patch_attribution(clip)(batch, texts), follow_edges(clip, batch, plain)
    )


def test_guided_upsampling_is_least_squares_in_every_window():
    generator = torch.Generator().manual_seed(0)
    guide = torch.rand(1, 3, 6, 8, generator=generator, dtype=torch.float64)
    maps = torch.rand(1, 2, 3, 4, generator=generator, dtype=torch.float64)
    target = torch.nn.functional.interpolate(maps, (6, 8), mode="bilinear")
    points = [(y, x) for y in range(6) for x in range(8)]

    def window(y, x):
        return [(v, u) for v, u in points if abs(v - y) <= 2 and abs(u - x) <= 2]

    fits = {}
    for point in points:
        inside = window(*point)
        colours = torch.stack([guide[0, :, v, u] for v, u in inside])
        for index in range(2):
            values = torch.stack([target[0, index, v, u] for v, u in inside])
            centred = colours - colours.mean(0)
            ridge = centred.T @ centred / len(inside) + 0.01 * torch.eye(3)
            cross = centred.T @ (values - values.mean()) / len(inside)
            slope = torch.linalg.solve(ridge, cross)
            fits[point, index] = slope, values.mean() - slope @ colours.mean(0)
    found = guided_upsample(guide, maps, cells=2, epsilon=0.01)
    for y, x in points:
        for index in range(2):
            around = [fits[point, index] for point in window(y, x)]
            values = [slope @ guide[0, :, y, x] + offset for slope, offset in around]
            torch.testing.assert_close(found[0, index, y, x], sum(values) / len(values))


def test_edges_come_from_the_image_before_normalisation(clip):
    batch = images(1, clip)
    maps = torch.rand(1, 2, *clip.grid)
    mean = torch.tensor(clip.image_mean)[:, None, None]
    std = torch.tensor(clip.image_std)[:, None, None]
    plain = torch.nn.functional.interpolate(maps, clip.image_size, mode="bilinear")
    guided = guided_upsample(batch * std + mean, maps, cells=2).clamp_min(0)
    torch.testing.assert_close(follow_edges(clip, batch, maps), guided * plain.sqrt())
    lowered = maps - maps.amin((2, 3), keepdim=True)
    torch.testing.assert_close(
        follow_edges(clip, batch, lowered - 3), follow_edges(clip, batch, lowered),
        rtol=1e-4, atol=1e-5,
    )  # fmt: skip
