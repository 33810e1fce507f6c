"""The training's forward passes are open_clip's, and the penalty is its formula."""

from contextlib import suppress

import pytest
import torch
from torch.nn import functional as F

from export.mini_clip import forward, model


@pytest.fixture
def vit(monkeypatch):
    config = {"image_size": 64, "layers": 3, "width": 32, "head_width": 16, "patch_size": 8}
    monkeypatch.setitem(model.VISION, "vit", config)
    torch.manual_seed(0)
    return model.build("vit").visual.eval()


@pytest.fixture
def resnet(monkeypatch):
    config = {"image_size": 128, "layers": [1, 1, 1, 1], "width": 8, "head_width": 16}
    monkeypatch.setitem(model.VISION, "rn", config)
    torch.manual_seed(0)
    return model.build("rn").visual.eval()


def test_all_patches_are_the_plain_forward(vit, resnet):
    images = torch.randn(2, 3, 64, 64)
    with forward.explicit_attention():
        ours, _ = forward.vit(vit, images, 2)
    torch.testing.assert_close(ours, vit(images), rtol=1e-4, atol=1e-4)
    images = torch.randn(2, 3, 128, 128)
    torch.testing.assert_close(forward.resnet(resnet, images), resnet(images), rtol=1e-4, atol=1e-4)


def test_smaller_images_and_fewer_patches_keep_the_shape(vit, resnet):
    assert forward.vit(vit, torch.randn(2, 3, 32, 32), 2)[0].shape == (2, 128)
    assert forward.vit(vit, torch.randn(2, 3, 64, 64), 2, keep=5)[0].shape == (2, 128)
    assert forward.resnet(resnet, torch.randn(2, 3, 64, 64)).shape == (2, 128)


def test_the_penalty_is_the_variance_of_what_is_written_before_listening(vit):
    images = torch.randn(6, 3, 64, 64)
    written, attended = [], []
    for block in vit.transformer.resblocks:
        block.mlp.register_forward_hook(lambda m, i, o: written.append(o[:, 0]))
        block.attn.register_forward_hook(lambda m, i, o: attended.append(o[0][:, 0]))
    caught = []
    vit.ln_post.register_forward_hook(lambda m, i, o: caught.append(i[0]))
    vit(images)
    final = caught[0][:, 0] if caught[0].ndim == 3 else caught[0]
    parts = [*written, *attended[:2]]
    total = sum(part.detach().double().var(0).sum().item() for part in parts)
    wanted = total / (final.detach().double().var(0).sum().item() + 1e-4)
    written.clear(), attended.clear(), caught.clear()
    _, penalty = forward.vit(vit, images, 2)
    assert penalty.item() == pytest.approx(wanted, rel=1e-3)


def test_attention_is_put_back_after_an_error():
    kept = F.scaled_dot_product_attention
    with suppress(RuntimeError), forward.explicit_attention():
        assert F.scaled_dot_product_attention is not kept
        raise RuntimeError
    assert F.scaled_dot_product_attention is kept


def test_the_copy_takes_weights_and_gives_gradients():
    layer = torch.nn.Linear(4, 4)
    copy = forward.BFloat16Copy(layer)
    with torch.no_grad():
        layer.weight.mul_(2)
    copy.refresh()
    torch.testing.assert_close(copy.work.weight.float(), layer.weight, rtol=1e-2, atol=1e-2)
    copy.work(torch.ones(3, 4, dtype=torch.bfloat16)).sum().backward()
    copy.gradients()
    torch.testing.assert_close(layer.weight.grad, torch.full((4, 4), 3.0))
    assert copy.work.weight.grad is None
