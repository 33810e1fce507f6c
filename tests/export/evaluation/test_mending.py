import pytest
import torch
from PIL import Image

from clipneurons.bundle.bundle import load_bundle
from clipneurons.explore.edit import apply_edit
from clipneurons.explore.mending import FindOptions
from clipneurons.lens.make import make_lens
from clipneurons.models.clip import load_clip
from export.data.grouped import GroupedImages
from export.evaluation.mending import (
    PROBE,
    Mender,
    Observed,
    controls,
    elsewhere,
    group_numbers,
    measured,
)
from tests.helpers.tiny import tiny_bundle_folder


def observed(count=160, units=30, embed=6, seed=0):
    """Two classes x two cues; unit 2 carries the cue, unit 5 the class; the probe can tell."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    cues = torch.where(torch.arange(count) % 8 < 2, 1 - labels, labels)
    toward = torch.stack([1 - labels, labels], 1).float() * 2 - 1
    cued = torch.stack([1 - cues, cues], 1).float() * 2 - 1
    effects = 0.05 * torch.randn(count, units, 2, generator=generator)
    effects[:, 2] += 0.9 * cued
    effects[:, 5] += 0.7 * toward
    embeddings = 0.3 * torch.randn(count, embed, generator=generator)
    embeddings[:, 0] += toward[:, 0]
    return Observed(embeddings, effects.sum(1), effects, None, labels, cues)


def grouped(count):
    def load(index):
        return Image.new("RGB", (40, 40), (index * 20 % 255, 90, 10))

    return GroupedImages(
        "noise", ("cat", "dog"), ("grass", "snow"), (0,) * count, (0,) * count, load
    )


def test_groups_are_cues_where_known_else_what_is_misread():
    seen = observed()
    assert group_numbers(seen, True).tolist() == (2 * seen.labels + seen.cues).tolist()
    wrong = seen.logits.argmax(1) != seen.labels
    assert group_numbers(seen, False).tolist() == (2 * seen.labels + wrong).tolist()
    assert 0 < int(wrong.sum()) < len(wrong)


def test_figures_are_those_of_the_groups():
    seen = observed()
    figures = measured([seen.logits, -seen.logits], seen, grouped(1))
    for label, class_name in enumerate(("cat", "dog")):
        for cue, cue_name in enumerate(("grass", "snow")):
            mine = (seen.labels == label) & (seen.cues == cue)
            group = figures["groups"][f"{class_name}, {cue_name}"]
            assert group["images"] == int(mine.sum())
            assert group["accuracy"] == pytest.approx(0.5)  # of logits and their opposite
    right = seen.logits.argmax(1) == seen.labels
    worst = [
        min(float((r[(seen.labels == a) & (seen.cues == b)]).float().mean()) for a in (0, 1)
            for b in (0, 1))
        for r in (right, ~right)
    ]  # fmt: skip
    assert figures["worst"] == pytest.approx(sum(worst) / 2)


@pytest.fixture(scope="module", params=["vit", "resnet"])
def mender(request, tmp_path_factory):
    folder = tiny_bundle_folder(tmp_path_factory.mktemp("b") / "bundle", kind=request.param)
    clip = load_clip(folder, device="cpu")
    bundle = load_bundle(folder)
    classes = torch.nn.functional.normalize(torch.randn(2, clip.embed_dim), dim=1)
    return Mender(bundle, make_lens(clip, bundle.config.layers), classes, 4)


def test_subtracting_effects_is_what_the_edit_does(mender):
    images = grouped(6)
    seen = mender.observe(images, range(6))
    units = [1, seen.effects.shape[1] - 2]
    edit = mender.edit(units)
    assert [(one.layer, one.unit) for one in edit.units] == mender.places(units)
    (_, pixels), *_ = mender.batches(images, range(4))
    embedded = mender.edited(edit)(pixels)
    expected = (seen.logits - seen.effects[:, units].sum(1))[:4]
    torch.testing.assert_close(embedded @ mender.classes.T, expected, rtol=1e-4, atol=1e-3)
    factors = edit.factors(mender.bundle)
    means = {layer: mender.bundle.layers[layer].means for layer in factors}
    again = apply_edit(*mender.lens(pixels), factors, means)
    torch.testing.assert_close(embedded, again)


def test_the_probe_is_told_by_the_embeddings_and_random_units_by_chance(mender, monkeypatch):
    seen, held = observed(), observed(seed=1)
    neurons = 30 // mender.bundle.config.units_per_neuron
    monkeypatch.setattr(Mender, "attributions", lambda *_: seen.effects[:, :neurons, 0])
    found = controls(
        mender, grouped(1), [], seen, held, 2, True, FindOptions(most=4), draws=3, seed=0
    )
    assert len(found["random neurons"]) == 3
    probe = measured(found[PROBE], held, grouped(1))
    assert probe["worst"] > 0.9
    assert "attention heads (TextSpan)" not in found


def test_what_others_lose_is_counted_by_class():
    classes = torch.eye(3)
    pixels, labels = torch.eye(3)[[0, 1, 1, 2]], torch.tensor([0, 1, 1, -1])
    encoders = {"unchanged": lambda x: x, "edited": lambda x: x.roll(1, dims=1)}
    found = elsewhere(encoders, iter([(pixels, labels)]), classes, ["a", "b", "c"])
    assert found["unchanged"]["accuracy"] == 1
    assert found["unchanged"]["lost"] == {}
    assert found["edited"]["accuracy"] == 0
    assert found["edited"]["lost"] == {"b": 2, "a": 1}
    assert found["edited"]["images"] == 3
