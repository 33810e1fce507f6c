"""The comparison of devices finds what differs, and only that; there may be no GPU to run it on."""

import pytest
import torch

from research.benchmarks import gpu
from tests.helpers.models import tiny_resnet, tiny_vit


@pytest.mark.parametrize("make", [tiny_vit, tiny_resnet], ids=["vit", "resnet"])
def test_every_reading_is_compared(make):
    clip = make()
    images = gpu.seeded(4, 3, *clip.image_size)
    same = gpu.differences(clip, clip, images)
    assert set(same.values()) == {0.0}
    kinds = {name.split(" of ")[0] for name in same}
    assert {"embeddings", "effects", "means", "top_norms", "percentile", "pursuit", "map"} <= kinds
    assert ("patch attribution" in kinds) == (clip.kind == "vit")
    other = gpu.differences(clip, make(seed=1), images)
    off = [name for name, value in other.items() if value <= gpu.LIMITS["bf16"]]
    # These do not depend on the weights: a pair's effects have one direction.
    assert set(off) <= {"pursuit", "explained_variance of layer 4"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_without_a_gpu_it_says_so(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["gpu"])
    gpu.main()
    assert capsys.readouterr().out.count("\n") == 1
