"""Every family of image towers against float64 loops written from the formulas."""

import pytest
import torch

from clipneurons.lens.contributions import SpatialContributions
from clipneurons.lens.first_order import FirstOrderLens
from clipneurons.lens.lens import Lens
from clipneurons.lens.token_contributions import PatchAttribution
from clipneurons.models.larger_images import enlarge
from clipneurons.models.trace import run_with_cache
from tests.helpers.families import FAMILIES, naive
from tests.helpers.models import images


@pytest.fixture(scope="module", params=FAMILIES)
def clip(request):
    return FAMILIES[request.param]()


def relative(found, expected):
    return float((found.double() - expected).norm() / expected.norm())


def test_effects_are_those_of_the_loops(clip):
    batch = images(2, clip)
    lens = Lens(clip, tuple(clip.anatomy.readable))
    representation, contributions = lens(batch)
    loops = naive(clip, batch[1])
    assert relative(representation[1], loops.representation) < 1e-5
    for layer, mine in contributions.items():
        assert isinstance(mine, SpatialContributions) == (layer != clip.anatomy.pooling_layer)
        neurons = torch.tensor([0, 5, mine.directions.units - 1])
        found = mine.dense(neurons)[1]
        expected = torch.stack([loops.effect(layer, int(n)) for n in neurons])
        assert relative(found, expected) < 1e-5, layer


def test_first_order_parts_are_the_embedding(clip):
    batch = images(2, clip)
    representation, effects = FirstOrderLens(clip)(batch)
    assert relative(effects.sum(), representation.double()) < 1e-5
    assert effects.mlps.shape[1] == clip.layers + (clip.anatomy.pooling_layer is not None)
    # Each part by itself, at the tokens that are read.
    if clip.anatomy.pooling.kind != "probe":
        loops = naive(clip, batch[1])
        layer = clip.layers - 1
        total = 0.0
        for j, weight in loops.reading.items():
            written = loops.blocks[layer]["written"][j]
            centred = written if loops.norm.none else written - written.mean()
            total = total + weight * loops.norm.gain(centred)
        if not loops.post.none:
            total = total - total.mean()
        assert relative(effects.mlps[1, layer], loops.to_embedding(total)) < 1e-5


def test_neurons_and_remainder_of_a_probe_are_the_embedding(clip):
    if clip.anatomy.pooling.kind != "probe" or clip.anatomy.pooling.post is not None:
        pytest.skip("the neurons of a class token or an average are read by later blocks")
    batch = images(2, clip)
    representation, contributions = Lens(clip, tuple(clip.anatomy.readable))(batch)
    written = sum(mine.sum() for mine in contributions.values())[1]
    expected = 100 * representation[1] / representation[1].norm()
    assert relative(written + naive(clip, batch[1]).remainder(), expected.double()) < 1e-5


def test_the_open_forward_pass_is_the_closed_one(clip):
    batch = images(2, clip)
    found = run_with_cache(clip, batch).embedding
    assert relative(found, clip.encode_image(batch).double()) < 1e-5


def test_patches_add_up_to_the_first_order_parts(clip):
    batch = images(2, clip)
    _, effects = FirstOrderLens(clip)(batch)
    blocks = effects.mlps[:, : clip.layers].sum(1)
    expected = effects.heads.sum((1, 2)) + blocks + effects.embedding
    patches = PatchAttribution(clip)(batch)
    assert patches.shape[1] == clip.prefix + clip.grid[0] * clip.grid[1]
    assert relative(patches.sum(1), expected.double()) < 1e-5


def test_an_enlarged_tower_is_read_exactly(clip):
    if clip.visual.__class__.__name__ == "VisionTransformer":
        pytest.skip("test_clip")
    larger = enlarge(clip, 1.5)
    assert (clip.grid, larger.grid, larger.image_size) == ((4, 4), (6, 6), (48, 48))
    representation, effects = FirstOrderLens(larger)(images(2, larger))
    assert relative(effects.sum(), representation.double()) < 1e-5
