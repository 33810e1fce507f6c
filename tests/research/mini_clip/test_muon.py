"""Muon's step is momentum, made orthogonal."""

import pytest
import torch

from research.mini_clip.muon import Muon, optimisers, orthogonal


@pytest.mark.parametrize("shape", [(3, 16, 16), (2, 16, 64), (2, 64, 16)])
def test_updates_are_nearly_orthogonal(shape):
    torch.manual_seed(0)
    scale = max(1, shape[1] / shape[2]) ** 0.5
    singular = torch.linalg.svdvals(orthogonal(torch.randn(shape)) / scale)
    assert 0.5 < singular.min() <= singular.max() < 1.3


def test_weights_of_one_shape_step_as_they_would_alone():
    torch.manual_seed(0)
    start = [torch.randn(8, 8), torch.randn(24, 8), torch.randn(8, 8)]
    slopes = [[torch.randn_like(p) for p in start] for _ in range(3)]
    together = [p.clone().requires_grad_(True) for p in start]
    alone = [p.clone().requires_grad_(True) for p in start]
    for weights, opts in ((together, [Muon(together)]), (alone, [Muon([p]) for p in alone])):
        for slope in slopes:
            for p, g in zip(weights, slope, strict=True):
                p.grad = g.clone()
            for opt in opts:
                opt.step()
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-2, atol=1e-3)


def test_only_block_matrices_get_muon():
    model = torch.nn.ModuleDict({"resblocks": torch.nn.Linear(4, 4), "head": torch.nn.Linear(4, 4)})
    muon, adam = optimisers(model, 0.01, 0.001)
    assert [p is model["resblocks"].weight for p in muon.param_groups[0]["params"]] == [True]
    assert len(adam.param_groups[0]["params"]) == 3
