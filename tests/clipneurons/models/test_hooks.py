from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from clipneurons.models.hooks import record_activations
from tests.helpers.models import images, tiny_vit


def hooks(model):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def test_only_the_named_tensors_are_recorded():
    clip = tiny_vit()
    names = ["transformer.resblocks.1.mlp.gelu", "ln_post:input"]
    with record_activations(clip.visual, names) as tensors:
        clip.encode_image(images(2, clip))
    assert sorted(tensors) == sorted(names)
    assert tensors[names[0]].shape == (2, 17, clip.neurons)
    assert tensors[names[1]].shape == (2, 17, 24)


def test_input_and_output_of_one_module_are_told_apart():
    clip = tiny_vit()
    norm = clip.visual.transformer.resblocks[0].ln_1
    name = "transformer.resblocks.0.ln_1"
    with record_activations(clip.visual, [name, f"{name}:input"]) as tensors:
        clip.encode_image(images(2, clip))
    assert torch.equal(norm(tensors[f"{name}:input"]), tensors[name])


def test_hooks_are_removed_after_success_and_after_an_error():
    clip = tiny_vit()
    before = hooks(clip.visual)
    with record_activations(clip.visual, ["ln_post"]):
        assert hooks(clip.visual) == before + 1
    assert hooks(clip.visual) == before
    with pytest.raises(RuntimeError, match="stop"), record_activations(clip.visual, ["ln_post"]):
        raise RuntimeError("stop")
    assert hooks(clip.visual) == before


@pytest.mark.parametrize("name", ["transformer.resblocks.9.mlp", "ln_post:output"])
def test_unknown_names_are_refused_and_leave_no_hook(name):
    clip = tiny_vit()
    before = hooks(clip.visual)
    with (
        pytest.raises(KeyError, match="cannot record"),
        record_activations(clip.visual, ["ln_post", name]),
    ):
        pass
    assert hooks(clip.visual) == before


def test_a_pass_in_another_thread_is_not_recorded():
    """A page reads pictures for one visitor while the examples of the next are made."""
    clip = tiny_vit()
    with record_activations(clip.visual, ["ln_post", "ln_post:input"]) as tensors:
        clip.encode_image(images(2, clip))
        mine = dict(tensors)
        with ThreadPoolExecutor(1) as other:
            other.submit(clip.encode_image, images(3, clip)).result()
        assert all(tensors[name] is mine[name] for name in mine)
        clip.encode_image(images(3, clip))
    assert tensors["ln_post"].shape[0] == 3, "one's own second pass is"
