"""Which pairs the page offers first is what the attack itself measures."""

from dataclasses import replace

import pytest

from clipneurons.adversarial.cues import CLASS_TEMPLATES
from clipneurons.adversarial.pictogram_generator import pictogram_composer
from clipneurons.models.clip import ClipModel
from export.pipeline import misleading_pairs as pairs
from tests.helpers.models import tiny_vit
from tests.helpers.tiny import tiny_bundle

NAMES = ["a cat", "dog", "a horse", "an automobile", "ship", "truck", "a bone", "a violin"]


@pytest.fixture(scope="module")
def made():
    clip = tiny_vit()
    bundle = tiny_bundle(clip=clip)
    return replace(bundle, texts=[*NAMES, *bundle.texts[len(NAMES) :]]), clip


def test_pairs_that_the_texts_name_come_in_the_order_of_their_gain(made, monkeypatch):
    bundle, clip = made
    known = [("cat", "dog"), ("horse", "automobile"), ("ship", "truck")]
    gains = dict(zip(known, (0.1, -0.2, 0.4), strict=True))
    monkeypatch.setattr(pairs, "gain", lambda *asked: gains[asked[-1]])
    assert pairs.misleading_pairs(bundle, clip) == sorted(known, key=gains.get, reverse=True)


def test_a_gain_is_over_the_best_control(made):
    bundle, clip = made
    painter = pictogram_composer(max(clip.image_size))
    rates = pairs.rates(bundle, clip, painter, ("cat", "dog"))
    assert all(0 <= rate <= 1 for rate in rates.values())
    ours = rates.pop(pairs.strongest(bundle))
    assert set(rates) == set(pairs.CONTROLS)
    gain = pairs.gain(bundle, clip, painter, ("cat", "dog"))
    assert gain == min(ours - rate for rate in rates.values())


def test_the_texts_of_a_pair_are_embedded_once(made, monkeypatch):
    bundle, clip = made
    asked, encode = [], ClipModel.encode_text
    monkeypatch.setattr(
        ClipModel, "encode_text", lambda clip, texts: asked.extend(texts) or encode(clip, texts)
    )
    pairs.rates(bundle, clip, pictogram_composer(max(clip.image_size)), ("cat", "dog"))
    prompts = [template.format(name) for template in CLASS_TEMPLATES for name in ("cat", "dog")]
    assert [asked.count(prompt) for prompt in prompts] == [1] * len(prompts)


def test_without_a_choice_there_is_none(made, monkeypatch):
    bundle, clip = made
    monkeypatch.setattr(pairs, "gain", lambda *asked: pytest.fail("measured for nothing"))
    assert pairs.misleading_pairs(replace(bundle, texts=["red"] * 8), clip) == []
    monkeypatch.setattr(pairs, "pictogram_composer", _missing)
    assert pairs.misleading_pairs(bundle, clip) == []


def _missing(size):
    raise FileNotFoundError
