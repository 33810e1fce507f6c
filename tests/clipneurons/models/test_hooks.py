import pytest
import torch

from clipneurons.models.hooks import record
from tests.helpers.models import images, tiny_vit


def hooks(model):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def test_only_the_named_tensors_are_recorded():
    tower = tiny_vit()
    names = ["transformer.resblocks.1.mlp.gelu", "ln_post:input"]
    with record(tower.visual, names) as tensors:
        tower.encode_image(images(2, tower))
    assert sorted(tensors) == sorted(names)
    assert tensors[names[0]].shape == (2, 17, tower.neurons)
    assert tensors[names[1]].shape == (2, 17, 24)


def test_input_and_output_of_one_module_are_told_apart():
    tower = tiny_vit()
    norm = tower.visual.transformer.resblocks[0].ln_1
    name = "transformer.resblocks.0.ln_1"
    with record(tower.visual, [name, f"{name}:input"]) as tensors:
        tower.encode_image(images(2, tower))
    assert torch.equal(norm(tensors[f"{name}:input"]), tensors[name])


def test_hooks_are_removed_after_success_and_after_an_error():
    tower = tiny_vit()
    before = hooks(tower.visual)
    with record(tower.visual, ["ln_post"]):
        assert hooks(tower.visual) == before + 1
    assert hooks(tower.visual) == before
    with pytest.raises(RuntimeError, match="stop"), record(tower.visual, ["ln_post"]):
        raise RuntimeError("stop")
    assert hooks(tower.visual) == before


@pytest.mark.parametrize("name", ["transformer.resblocks.9.mlp", "ln_post:output"])
def test_unknown_names_are_refused_and_leave_no_hook(name):
    tower = tiny_vit()
    before = hooks(tower.visual)
    with pytest.raises(KeyError, match="cannot record"), record(tower.visual, ["ln_post", name]):
        pass
    assert hooks(tower.visual) == before
