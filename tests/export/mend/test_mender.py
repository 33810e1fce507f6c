from dataclasses import replace

import pytest
import torch
from PIL import Image

from clipneurons.bundle.bundle import load_bundle
from clipneurons.edit.class_effects import places
from clipneurons.edit.edit import DATA, IMAGES, apply_edit
from clipneurons.edit.find_options import FindOptions
from clipneurons.lens.lens import Lens
from clipneurons.models.clip import load_clip
from export.common.errors import UserError
from export.data.grouped import GroupedImages
from export.mend import for_real
from export.mend.controls import PROBE, controls
from export.mend.for_real import choose_for_real, folded, read_by, unit_means
from export.mend.mender import (
    Choice,
    Mender,
    Observed,
    check_enough,
    choose,
    elsewhere,
    find,
    group_numbers,
    measured,
    unit_margins,
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
    return Observed(embeddings, effects.sum(1), effects, None, labels, cues, list(range(count)), {})


def grouped(count):
    def load(index):
        return Image.new("RGB", (40, 40), (index * 20 % 255, 90, 10))

    return GroupedImages(
        "noise", ("cat", "dog"), ("grass", "snow"), (0,) * count, (0,) * count, load
    )


def test_too_few_images_say_how_many_it_would_take():
    """12 images a class in the half that is searched, of which one cat is misread."""
    seen = observed(24)
    labels = torch.arange(24) % 2
    logits = torch.nn.functional.one_hot(labels, 2).float()
    logits[0] = logits[0].flip(0)
    logits[1:15:2] = logits[1:15:2].flip(1)
    seen = replace(seen, labels=labels, cues=torch.zeros(24, dtype=torch.long), logits=logits)
    images = replace(grouped(48), cue_names=(), labels=(0, 1) * 24)
    expected = "cat: 1 of 12 images to find neurons on is classified wrongly; expected at least 5. "
    with pytest.raises(UserError, match=expected + "At this rate it takes about 120 images"):
        check_enough(images, seen, known=False, folds=5)
    check_enough(images, seen, known=False, folds=1)
    images = replace(images, cue_names=("grass", "snow"))
    seen = replace(seen, cues=(torch.arange(24) > 20).long())
    with pytest.raises(UserError, match=r"cat, snow: 1 images.* so 10 images of this group"):
        check_enough(images, seen, known=True, folds=5)


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
    return Mender(bundle, Lens(clip, bundle.config.layers), classes, 4)


def test_subtracting_effects_is_what_the_edit_does(mender):
    images = grouped(6)
    seen = mender.observe(images, range(6))
    units = [1, seen.effects.shape[1] - 2]
    edit = mender.edit(units)
    assert [(one.layer, one.unit) for one in edit.units] == places(mender.bundle, units)
    (_, pixels), *_ = mender.batches(images, range(4))
    embedded = mender.edited(edit, seen)(pixels)
    expected = (seen.logits - seen.effects[:, units].sum(1))[:4]
    torch.testing.assert_close(embedded @ mender.classes.T, expected, rtol=1e-4, atol=1e-3)
    factors = edit.factors(mender.bundle)
    means = {layer: mender.bundle.layers[layer].means for layer in factors}
    again = apply_edit(*mender.lens(pixels), factors, means)
    torch.testing.assert_close(embedded, again)


def test_effects_about_the_images_means_are_what_such_an_edit_does(mender):
    """Whatever the means, subtracting effects from logits and editing embeddings are one thing."""
    images = grouped(9)
    seen = mender.observe(images, range(5))
    held = mender.observe(images, range(5, 9))
    units = [0, 3, held.effects.shape[1] - 1]
    edit = mender.edit(units, IMAGES)
    about = held.about(IMAGES, seen)
    for unit in units:
        for label in range(2):
            mean = sum(float(seen.effects[image, unit, label]) for image in range(5)) / 5
            for image in range(4):
                expected = float(held.effects[image, unit, label]) - mean
                assert float(about.effects[image, unit, label]) == pytest.approx(expected, abs=1e-4)
    (_, pixels), *_ = mender.batches(images, range(5, 9))
    logits = mender.edited(edit, seen)(pixels) @ mender.classes.T
    expected = held.logits - about.effects[:, units].sum(1)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-3)


def test_a_folded_resnet_with_the_same_means_reads_as_the_edited_effects_do(mender):
    """Of a ResNet the picture of effects is the model, up to how images differ in norm."""
    if mender.clip.kind == "vit":
        pytest.skip("later layers respond")
    images = grouped(8)
    seen = mender.observe(images, range(8))
    means = unit_means(mender, images, range(8))
    (_, pixels), *_ = mender.batches(images, range(4))
    units = [1, 6, 9]
    classes = mender.classes.T

    def cosines(embeddings):
        return torch.nn.functional.normalize(embeddings, dim=1) @ classes

    before = cosines(mender.clip.encode_image(pixels))
    edit = mender.edit(units, IMAGES)
    effects = cosines(mender.edited(edit, seen)(pixels))
    real = cosines(folded(mender, edit, means).encode_image(pixels))
    other = cosines(folded(mender, mender.edit(units, DATA), means).encode_image(pixels))
    moved = (effects - before).abs().max()
    assert (effects - real).abs().max() < 0.1 * moved
    assert (effects - other).abs().max() > (effects - real).abs().max()


def test_the_means_are_those_with_the_smaller_loss_on_left_out_images():
    """About the data's mean, 2 for the cue's unit, ablation also shifts the classes apart."""
    seen = observed()
    options = FindOptions(most=4)
    shifted = replace(seen, effects=seen.effects + torch.tensor([0.0, 1.5]))
    choice = choose(shifted, True, options)
    losses = {}
    for means in (DATA, IMAGES):
        values = unit_margins(shifted.about(means, shifted).effects, shifted)
        losses[means] = find(shifted, values, True, options).loss
    assert losses[IMAGES] < losses[DATA]
    assert choice.means == IMAGES
    assert choice.found.loss == losses[IMAGES]
    assert choice.found.units[0] == 2


def test_for_real_is_chosen_by_what_the_model_says_of_left_out_images(mender, monkeypatch):
    images = grouped(24)
    labels = torch.arange(24) % 2
    cues = torch.arange(24) // 2 % 2
    seen = replace(mender.observe(images, range(24)), labels=labels, cues=cues)
    options = FindOptions(most=4, folds=2)
    choice = Choice(find(seen, unit_margins(seen.effects, seen), True, options), DATA)
    means = unit_means(mender, images, range(24))
    good = (2 * torch.nn.functional.one_hot(labels, 2) - 1).float()
    best = []

    def fold_and_note(clip, factors, means_):
        """Right without four units about the images' mean, wrong otherwise."""
        taken = sum(int((factor == 0).sum()) for factor in factors.values())
        best.append(taken == 4 and means_ is means[IMAGES])
        return clip

    seen_pixels = torch.cat([pixels for _, pixels in mender.batches(images, range(24))])

    def read(right):
        def logits(mender, clip, pixels):
            rows = [int((seen_pixels == one).flatten(1).all(1).nonzero()[0]) for one in pixels]
            return good[rows] * (1 if right and best[-1] else -1)

        return logits

    monkeypatch.setattr(for_real, "fold", fold_and_note)
    monkeypatch.setattr(for_real, "_logits", read(right=True))
    found = choose_for_real(mender, images, seen, choice, means, True, options)
    assert found.edit == mender.edit(choice.found.order[:4], IMAGES)
    assert found.tried[0] == (DATA, 0)
    assert found.judged.worst[found.tried.index((IMAGES, 4))] == 1
    monkeypatch.setattr(for_real, "_logits", read(right=False))
    harm = choose_for_real(mender, images, seen, choice, means, True, options)
    assert harm.edit.units == (), "what hurts the model is not done to it"


def test_logits_of_a_model_are_cosines_of_what_it_encodes(mender):
    images = grouped(6)
    torch.testing.assert_close(
        read_by(mender, mender.clip, images, range(6)), mender.observe(images, range(6)).logits
    )


def test_the_probe_is_told_by_the_embeddings_and_random_units_by_chance(mender, monkeypatch):
    seen, held = observed(), observed(seed=1)
    neurons = 30 // mender.bundle.config.units_per_neuron
    monkeypatch.setattr(Mender, "attributions", lambda *_: seen.effects[:, :neurons, 0])
    options = FindOptions(most=2)
    choice = choose(seen, True, options)
    found = controls(mender, grouped(1), [], seen, held, choice, True, options, draws=3, seed=0)
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
