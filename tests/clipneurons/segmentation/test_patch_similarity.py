"""The fit by hand, and the guided upsampling against the guided filter."""

import pytest
import torch

from clipneurons.segmentation.guided_filter import guided_filter, guided_upsample
from clipneurons.segmentation.patch_similarity import fit_maps, follow_edges
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


def test_guided_upsampling_is_the_filter_when_nothing_is_left_out():
    generator = torch.Generator().manual_seed(0)
    guide = torch.rand(2, 3, 12, 16, generator=generator)
    maps = torch.rand(2, 5, 3, 4, generator=generator)
    stretched = torch.nn.functional.interpolate(maps, (12, 16), mode="bilinear")
    torch.testing.assert_close(
        guided_upsample(guide, maps, cells=4, epsilon=0.01),
        guided_filter(guide, stretched, radius=4, epsilon=0.01),
    )
    large = torch.nn.functional.interpolate(guide, (24, 32), mode="nearest")
    coarse = guided_upsample(large, maps, cells=4, epsilon=0.01)
    assert coarse.shape == (2, 5, 24, 32)


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
