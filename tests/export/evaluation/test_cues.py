"""`evaluate cues`: effects of every text that can be drawn are kept, and it says which."""

from dataclasses import replace

import pytest

from clipneurons.adversarial.cue_recorder import IMAGES
from clipneurons.adversarial.cue_request import RECORDED_EFFECTS, default_method
from clipneurons.bundle.bundle import load_bundle, save_bundle
from clipneurons.bundle.config import CARD
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


def test_effects_of_the_texts_that_can_be_drawn_are_kept(folder, capsys):
    assert main(["evaluate", "cues", "--bundle", str(folder)]) == 0
    bundle = load_bundle(folder)
    said = capsys.readouterr().out
    assert f"3 of the texts are drawn, {3 * IMAGES} images" in said
    assert "3 recorded, in 8 images each" in said
    assert bundle.metrics["cues"]["cues"] == 3
    assert default_method(bundle) == RECORDED_EFFECTS
    assert "`cues.safetensors`" in (folder / CARD).read_text()
    rows = dict(zip(TEXTS, bundle.cues.row.tolist(), strict=True))
    drawn = {text for text, row in rows.items() if row >= 0}
    assert drawn == {"a cat", "the violin", "a violin", "a dog"}
    assert rows["the violin"] == rows["a violin"], "texts that are drawn alike share a row"
    for layer in bundle.layers:
        assert (bundle.cues.layers[layer].effects != 0).any()


def test_texts_that_nobody_can_draw_are_refused(folder):
    bundle = load_bundle(folder)
    clip = tiny_clip(folder)
    with pytest.raises(ValueError, match="none of the bundle's texts"):
        cues.measure(replace(bundle, texts=["x"] * 8), clip)
