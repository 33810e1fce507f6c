"""Tensors of one device throughout: a CUDA device that only shapes exist on, as no GPU is here."""

from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from clipneurons.concepts.concepts import ConceptReader
from clipneurons.lens.contributions import MeanEffect
from clipneurons.lens.first_order import FirstOrderLens
from clipneurons.lens.lens import Lens
from clipneurons.shift.profile import Profiler
from clipneurons.statistics.effect_statistics import EffectStatistics
from clipneurons.statistics.streaming.running_mean import RunningMean
from research.concepts.textspan import TextSpanReader
from research.segmentation.methods import methods
from tests.helpers import models
from tests.helpers.models import images
from tests.helpers.tiny import tiny_bundle

aten = torch.ops.aten
tiny_vit, tiny_resnet = partial(models.tiny_vit, layers=2), partial(models.tiny_resnet, width=2)
clips = pytest.mark.parametrize("make", [tiny_vit, tiny_resnet], ids=["vit", "resnet"])
# Autograd asks the driver, which is not there.
NEED_GRADIENTS = ("GradCAM", "Chefer 2021", "LeGrad")


class Values(TorchDispatchMode):
    """What tensors without values answer: conditions hold, and one element is chosen."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        def first(mask):
            return torch.zeros(1, dtype=torch.long, device=mask.device)

        if func is aten._local_scalar_dense.default:
            return True  # 1 as a number
        if func is aten.nonzero.default:
            return first(args[0])[:, None].expand(-1, args[0].ndim)
        if func is aten._unique2.default:
            return args[0][:1], args[0], args[0]
        if func in (aten.index.Tensor, aten.index_put.default, aten.index_put_.default):
            chosen = []
            for index in args[1]:
                mask = index is not None and index.dtype == torch.bool
                chosen += [first(index)] * index.ndim if mask else [index]
            args = (args[0], chosen, *args[2:])
        return func(*args, **(kwargs or {}))


@contextmanager
def pretended(make):
    """A model on a CUDA device."""
    with FakeTensorMode(allow_non_fake_inputs=True), Values():
        with torch.device("cuda"):
            clip = make()
        yield replace(clip, device=torch.device("cuda"))


def test_the_second_pass_with_a_shared_bias_goes_on():
    with pretended(tiny_vit) as clip:
        lens = Lens(clip, (0,), shared_bias=True)
        mine = lens(images(3, clip))[1][0]
        mean = RunningMean()
        mean.update(mine)
        parts = [EffectStatistics(mean.mean(), mine.directions, 6, top_k=4) for _ in "ab"]
        parts[0].update(mine, torch.arange(3))
        # As `State.load` does: everything to the model's device.
        parts[1].load_state_dict({k: v.to("cuda") for k, v in parts[0].state_dict().items()})
        parts[1].count = 3  # tensors without values do not tell
        parts[1].update(mine, torch.arange(3, 6))
        assert parts[1].finish().directions.device.type == "cuda"


@clips
def test_every_way_to_segment(make):
    with pretended(make) as clip:
        layers = (0,) if clip.kind == "vit" else (4,)
        directions = {
            layer: torch.zeros(mine.units, mine.embed, device="cpu")
            for layer, mine in Lens(clip, layers).directions.items()
        }
        texts = torch.zeros(2, clip.embed_dim, device="cuda")
        for name, method in methods(clip, directions).items():
            if name not in NEED_GRADIENTS:
                assert method.maps(images(2, clip), texts).device.type == "cuda", name


@clips
def test_concepts_and_profiles(make):
    original = make()
    layers = (0,) if original.kind == "vit" else (4,)
    bundle = tiny_bundle(layers=layers, clip=original)
    with pretended(make) as clip:
        lens = Lens(clip, bundle.config.layers)
        reader = ConceptReader(lens, bundle)
        _, effects = reader(images(2, clip))
        assert reader.weights(reader.written(effects)).device.type == "cpu"
        assert reader.unit_map(effects, layers[0], 0).device.type == "cpu"
        assert Profiler(lens, bundle)(images(2, clip)).units.device.type == "cpu"


def test_text_span():
    with pretended(tiny_vit) as clip:
        lens, texts = FirstOrderLens(clip), torch.zeros(5, clip.embed_dim, device="cpu")
        reader = TextSpanReader.fit(lens, [images(3, clip)], texts, layers=2, count=2)
        assert reader(images(2, clip)).device.type == "cpu"


@clips
def test_means_are_found_again(make):
    with pretended(make) as clip:
        for mine in Lens(clip, (0,) if clip.kind == "vit" else ()).directions.values():
            means = torch.zeros(mine.units, mine.embed, device="cuda")
            assert MeanEffect.from_dense(means, mine).scores.device.type == "cuda"
