"""No tensor of the size [image, unit, embed] or [image, token, neuron, ...] is ever made."""

import pickle

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from clipneurons.lens.contributions import MeanEffect, ScoredContributions
from clipneurons.lens.lens import Lens
from clipneurons.statistics.effect_statistics import EffectStatistics, collect_statistics
from tests.helpers.models import images, tiny_resnet, tiny_vit


class Watermark(TorchDispatchMode):
    """The largest number of bytes of any tensor that an operation returns with new storage."""

    def __init__(self):
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                self.bytes = max(self.bytes, leaf.untyped_storage().nbytes())
        return out


def watermark(clip, layers, count, batch):
    data = images(count, clip)
    lens = Lens(clip, layers)
    ids = torch.arange(count)
    with Watermark() as mark:
        collect_statistics(
            lens,
            lambda: ((part, data[part].clone()) for part in ids.split(batch)),
            count,
            top_k=8,
            memory_budget=0,
        )
    return mark.bytes


def test_vit_never_holds_dense_effects():
    clip = tiny_vit(width=64, head_width=16, embed_dim=96, layers=3, seed=1)
    batch, units = 32, 256
    pairs = 4 * 2
    dense = 4 * batch * units * 96
    largest = watermark(clip, (0, 1), 64, batch)
    # What there must be: activations of a batch, scores, Gram matrices, the top rows.
    needed = 4 * max(batch * 17 * units, units * pairs * pairs, 128 * pairs * 96 * 2)
    assert largest <= needed <= dense / 2


def test_resnet_never_holds_directions_times_images():
    clip = tiny_resnet(width=4, embed_dim=64, heads=4)
    batch, units = 16, 128 * 4
    dense = 4 * batch * units * 64
    assert watermark(clip, (4,), 64, batch) < dense / 2


def test_memory_does_not_grow_with_the_number_of_images():
    clip = tiny_vit()
    assert watermark(clip, (0, 1), 200, 10) == watermark(clip, (0, 1), 50, 10)


def test_what_is_kept_between_batches_does_not_grow():
    clip, count, batch = tiny_resnet(width=2), 160, 4
    lens = Lens(clip)
    units = lens.directions[4].units
    mean = MeanEffect(torch.zeros(units, 1))
    statistics = EffectStatistics(mean, lens.directions[4], count, top_k=10)
    sizes = []
    for ids in torch.arange(count).split(batch):
        scores = torch.randn(batch, units, 1)
        statistics.update(ScoredContributions(scores, lens.directions[4]), ids)
        kept = statistics.top, statistics.quantile, statistics.histogram, statistics.moments
        sizes.append(len(pickle.dumps(kept)))
    assert max(sizes[20:]) <= 1.1 * max(sizes[:20])
