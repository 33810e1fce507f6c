import json

import open_clip
import pytest
import torch
from safetensors.torch import load, load_file, save_file

from clipneurons.models.clip import load_clip
from clipneurons.models.open_clip_folder import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    complete,
    read_weights,
    text_owner,
    whole_file,
    write_weights,
)
from tests.clipneurons.models.test_clip import VISION, save
from tests.helpers.models import tiny_vit


@pytest.fixture
def folders(tmp_path):
    """Two models of one text tower; the second folder leaves it to the first."""
    first, second = tmp_path / "first", tmp_path / "second"
    clip = save(first)
    save(second, {**VISION, "layers": 3}, tiny_vit(layers=3))
    weights = load_file(second / WEIGHTS_FILE)
    text = {k: v for k, v in clip.model.state_dict().items() if k.startswith("t")}
    write_weights(second, weights | text, shares_text_of="first")
    return first, second


def test_a_shared_text_tower_is_read_from_its_neighbour(folders):
    first, second = folders
    one, two = load_clip(first), load_clip(second)
    assert two.layers == 3
    assert two.name == str(second)
    texts = ["a cat", "a dog"]
    assert torch.equal(one.encode_text(texts), two.encode_text(texts))
    assert text_owner(first) is None
    assert text_owner(second) == first
    assert not any(name.startswith("t") for name in load_file(second / WEIGHTS_FILE))
    for name, value in two.model.state_dict().items():
        assert torch.equal(read_weights(second)[name], value), name


def test_what_leaves_the_folder_is_whole(folders, tmp_path):
    first, second = folders
    assert whole_file(first) == first / WEIGHTS_FILE
    (tmp_path / "whole").mkdir()
    complete(second, tmp_path / "whole")
    written = load_file(tmp_path / "whole" / WEIGHTS_FILE)
    sent = load(whole_file(second))
    assert written.keys() == sent.keys() == read_weights(second).keys()
    name = f"local-dir:{tmp_path / 'whole'}"
    model = open_clip.create_model(name, require_pretrained=True)
    assert all(torch.equal(model.state_dict()[n], value) for n, value in sent.items())


def test_a_missing_neighbour_is_named(folders):
    first, second = folders
    (first / WEIGHTS_FILE).unlink()
    with pytest.raises(ValueError, match="shares the text tower of first, which does not lie"):
        load_clip(second)


@pytest.mark.parametrize("name", ["../first", "..", ".", "", "second", "/etc", "first/"])
def test_nothing_but_a_neighbour_is_opened(folders, name):
    _, second = folders
    save_file(load_file(second / WEIGHTS_FILE), second / WEIGHTS_FILE, {"text_tower": name})
    with pytest.raises(ValueError, match="is no name of a folder beside it"):
        load_clip(second)


def test_the_configuration_stays(folders, tmp_path):
    _, second = folders
    (tmp_path / "whole").mkdir()
    complete(second, tmp_path / "whole")
    config = json.loads((tmp_path / "whole" / CONFIG_FILE).read_text())
    assert config == json.loads((second / CONFIG_FILE).read_text())
