"""Training a dictionary: killed anywhere it ends with the same bytes, and reads the model back."""

from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from clipneurons.lens.feature_files import load_features
from clipneurons.lens.lens import Lens
from export.__main__ import main
from export.features import command, train
from tests.helpers.tiny import RESNET, VIT, tiny_clip, tiny_model_folder


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    root = tmp_path_factory.mktemp("features")
    tiny_model_folder(root / "vit", VIT)
    generator = np.random.default_rng(0)
    (root / "pictures").mkdir()
    for number in range(24):
        pixels = generator.integers(0, 255, (6, 6, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((32, 32)).save(root / "pictures" / f"{number:02d}.png")
    return root


def line(place, out, *more, model="vit", layer=1):
    return [
        "train-features", "--model", str(place / model), "--images", str(place / "pictures"),
        "--layer", str(layer), "--latents", "32", "--k", "4", "--steps", "30", "--batch", "64",
        "--device", "cpu", "--out", str(out), *more,
    ]  # fmt: skip


def test_a_killed_training_goes_on_to_the_same_bytes(place, tmp_path, monkeypatch, capsys):
    assert main(line(place, tmp_path / "whole")) == 0
    said = capsys.readouterr().out
    assert "30 steps of 64 tokens" in said
    assert "32 latents of resid_post in block 1 explain" in said

    def kill(step):
        if step == 17:
            raise KeyboardInterrupt

    with monkeypatch.context() as killed:
        killed.setattr(train, "EVERY", 0.0)
        killed.setattr(command, "train", partial(train.train, reached=kill))
        assert main(line(place, tmp_path / "killed")) == 130
    assert main(line(place, tmp_path / "killed", "--k", "5")) == 2
    assert "k 4 and 5: add --restart" in capsys.readouterr().err
    assert main(line(place, tmp_path / "killed")) == 0
    assert "goes on  from step 17" in capsys.readouterr().out
    name = "features.safetensors"
    whole = (tmp_path / "whole" / name).read_bytes()
    assert (tmp_path / "killed" / name).read_bytes() == whole
    assert main(line(place, tmp_path / "killed")) == 2
    assert "holds a dictionary already" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["topk", "transcoder"])
def test_it_explains_the_model_better_than_it_began(place, tmp_path, kind):
    clip = tiny_clip(place / "vit")
    pictures = sorted((place / "pictures").iterdir())[:8]
    pixels = torch.stack([clip.preprocess(Image.open(path)) for path in pictures])
    explained = []
    for steps in ("1", "200"):
        out = tmp_path / steps
        assert main(line(place, out, "--kind", kind, "--steps", steps)) == 0
        lens = Lens(clip, features=load_features(out))
        explained.append(lens.method.parts(pixels).explained_variance)
    assert explained[1] > explained[0] + 0.1
    assert lens.method.features[0].transcoder == (kind == "transcoder")


def test_a_layer_that_nothing_reads_is_named(place, tmp_path, capsys):
    assert main(line(place, tmp_path, layer=99)) == 2
    assert "resid_post of block 99: expected blocks 0 to" in capsys.readouterr().err
    tiny_model_folder(tmp_path / "resnet", RESNET)
    assert main(line(tmp_path, tmp_path, "--kind", "transcoder", model="resnet", layer=4)) == 2
    assert "a ResNet without MLPs: expected --kind topk" in capsys.readouterr().err
