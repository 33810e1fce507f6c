"""`evaluate cues`: what is kept is what the recorder sees, and it says what it will draw."""

from dataclasses import replace

import pytest
import torch

from clipneurons.adversarial.composer import pictogram_composer
from clipneurons.adversarial.cue_recorder import IMAGES, record_cues
from clipneurons.adversarial.cue_request import RECORDED_EFFECTS, default_method
from clipneurons.bundle.bundle import load_bundle, save_bundle
from clipneurons.bundle.config import CARD
from clipneurons.lens.make import make_lens
from export.__main__ import main
from export.evaluation import cues
from tests.helpers.tiny import tiny_bundle, tiny_clip

TEXTS = ["a cat", "a bone", "the violin", "a violin", "x", "a dog", "blue-ish", "a red"]


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "bundle"
    bundle = tiny_bundle(clip=tiny_clip(folder))
    config = replace(bundle.config, model=".")
    return save_bundle(replace(bundle, texts=TEXTS, config=config), folder)


def test_what_the_units_do_in_images_is_kept(folder, capsys):
    assert main(["evaluate", "cues", "--bundle", str(folder)]) == 0
    bundle = load_bundle(folder)
    said = capsys.readouterr().out
    assert f"3 of the texts are drawn, {3 * IMAGES} images" in said
    assert "3 recorded, in 8 images each" in said
    assert bundle.metrics["cues"]["cues"] == 3
    assert default_method(bundle) == RECORDED_EFFECTS
    assert "`cues.safetensors`" in (folder / CARD).read_text()
    clip, composer = tiny_clip(folder), pictogram_composer(32)
    lens = make_lens(clip, bundle.config.layers)
    expected = record_cues(bundle, lens, composer, composer.concept, composer.concepts)
    assert torch.equal(bundle.cues.row, expected.row.int())
    for layer, mine in expected.layers.items():
        torch.testing.assert_close(bundle.cues.layers[layer].written, mine.written)


def test_texts_that_nobody_can_draw_are_refused(folder):
    bundle = load_bundle(folder)
    clip = tiny_clip(folder)
    with pytest.raises(ValueError, match="none of the bundle's texts"):
        cues.measure(replace(bundle, texts=["x"] * 8), clip)
