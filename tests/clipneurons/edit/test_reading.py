"""Readings of images under edits: estimates are the library's, measures are forward passes."""

from dataclasses import replace
from io import BytesIO

import pytest
import torch
from PIL import Image
from torch.nn.functional import normalize

from clipneurons.edit.edit import Edit, EditError, UnitFactor, WordFactor, apply_edit
from clipneurons.edit.fold import fold, mean_of_units
from clipneurons.edit.reading import EditReader
from clipneurons.images.convert import to_rgb
from clipneurons.lens.lens import Lens
from clipneurons.text.embedding import embed_texts
from tests.helpers.models import tiny_resnet, tiny_vit
from tests.helpers.tiny import tiny_bundle

NAMES = ["cat", "dog", "red car"]


@pytest.fixture(scope="module", params=["vit", "resnet"])
def reader(request):
    clip = tiny_vit(embed_dim=24) if request.param == "vit" else tiny_resnet(embed_dim=24)
    bundle = tiny_bundle(clip=clip)
    return EditReader(Lens(clip, bundle.config.layers), bundle)


def gallery(reader, numbers):
    """Preprocessed gallery images."""
    images = [Image.open(BytesIO(reader.bundle.examples[number])) for number in numbers]
    return torch.stack([reader.lens.clip.preprocess(to_rgb(image)) for image in images])


def pixels_of(reader, count=1):
    return gallery(reader, range(count))


def edit_of(reader, *units, words=()):
    return Edit(reader.bundle.config.weights_sha256, tuple(UnitFactor(*u) for u in units), words)


def some_edit(reader):
    """A unit of each kind, one that others' words name too, and a word."""
    layer = reader.bundle.config.layers[-1]
    words = (WordFactor("car", 0.1, 0.5), WordFactor("red", 0.4, 2.0))
    return edit_of(reader, (layer, 1, 0.0), (layer, 4, 1.7), words=words)


def scale_of(reader):
    return float(reader.lens.clip.model.logit_scale.exp())


def applied_shares(reader, reading, edit):
    """Softmax of the cosines of `apply_edit`'s embeddings."""
    representation, contributions = reader.lens(reading.pixels)
    factors = edit.factors(reader.bundle)
    means = {layer: reader.bundle.layers[layer].means for layer in factors}
    edited = normalize(apply_edit(representation, contributions, factors, means), dim=1)
    texts = embed_texts(reader.lens.clip, list(reading.class_names), "photo")
    return (scale_of(reader) * edited @ texts.T).softmax(1)


def test_estimates_are_those_of_the_edit_on_every_image(reader):
    edit = some_edit(reader)
    reading = reader.read(pixels_of(reader, 3), NAMES, "", edit)
    expected = applied_shares(reader, reading, edit)
    plain = applied_shares(reader, reading, edit_of(reader))
    for image in range(3):
        torch.testing.assert_close(torch.tensor(reading.estimated(image)), expected[image])
        torch.testing.assert_close(torch.tensor(reading.before(image)), plain[image])
    assert (expected - plain).abs().max() > 1e-4


def test_measured_is_the_folded_model_and_the_result(reader):
    edit, clip = some_edit(reader), reader.lens.clip
    reading = reader.read(pixels_of(reader, 2), NAMES, "", edit)
    pixels = gallery(reader, reader.bundle.examples.spread(64))
    means = mean_of_units(clip, [pixels], reader.bundle.config.layers)
    model = fold(clip, edit.factors(reader.bundle), means)
    cosines = normalize(model.encode_image(reading.pixels), dim=1) @ reading.classes.T
    expected = (scale_of(reader) * cosines).softmax(1)
    measured = torch.tensor([reading.measured(image) for image in range(2)])
    torch.testing.assert_close(measured, expected, atol=1e-5, rtol=1e-4)
    assert reading.result() == reading.measured() != reading.estimated()
    unedited = reader.read(reading.pixels, NAMES)
    assert unedited.measured() == pytest.approx(unedited.before(), abs=1e-5)


def test_an_edit_about_other_images_is_taken_about_the_data(reader):
    edit = some_edit(reader)
    readings = [
        reader.read(pixels_of(reader), NAMES, "", chosen)
        for chosen in (edit, replace(edit, means="images"))
    ]
    assert readings[0].estimated() == readings[1].estimated()
    assert readings[1].edit == edit


def test_an_edit_of_many_units_ends_in_one_switch(reader):
    layer = reader.bundle.config.layers[0]
    edit = edit_of(reader, *((layer, unit, 0.0) for unit in range(30)))
    reading = reader.read(pixels_of(reader), NAMES, "", edit)
    (rest,) = [part for part in reading.parts if part.kind == "rest"]
    assert len(rest.rules) == 6
    expected = applied_shares(reader, reading, edit)[0]
    torch.testing.assert_close(torch.tensor(reading.estimated()), expected)


def test_speakers_are_the_units_that_add_most_to_the_margin(reader):
    reading = reader.read(pixels_of(reader), NAMES)
    margin = reading.effects[:, reading.top] - reading.effects[:, reading.wanted]
    expected = [*margin.topk(6).values.tolist(), *margin.topk(6, largest=False).values.tolist()]
    assert sorted(part.adds for part in reading.parts) == pytest.approx(sorted(expected))


def test_maps_are_the_patches_that_carry_the_effect(reader):
    reading, clip = reader.read(pixels_of(reader), NAMES), reader.lens.clip
    toward = reading.classes[reading.top] - reading.classes[reading.wanted]
    _, contributions = reader.lens(reading.pixels)
    assert any(max(map(max, part.map)) == 1 for part in reading.parts)
    for part in reading.parts:
        of_layer, unit = contributions[part.rules[0].layer], torch.tensor([part.rules[0].unit])
        scores = of_layer.token_scores(0, unit)[0]  # [token, head]
        directions = of_layer.directions.dense(unit)[0]
        share = torch.zeros(len(scores))
        for token in range(len(scores)):
            for head in range(len(directions)):
                share[token] += float(scores[token, head]) * float(directions[head] @ toward)
        share = share[clip.prefix :] * (1 if part.adds > 0 else -1)
        share = share.clamp_min(0).reshape(clip.grid)
        expected = share / share.max().clamp_min(1e-12)
        torch.testing.assert_close(torch.tensor(part.map), expected, atol=2e-3, rtol=0)


def test_top_classes_are_the_nearest_texts_without_articles(reader):
    pixels = pixels_of(reader)[0]
    cosines = reader.bundle.text_embeddings @ reader.lens.clip.encode_image(pixels[None])[0]
    nearest = reader.bundle.texts[int(cosines.argmax())]
    names = reader.top_classes(pixels)
    assert names[0] == nearest.removeprefix("a ").removeprefix("an ")
    assert len(names) == len(set(names)) <= 5
    assert reader.read(pixels[None], names).top < len(names)


@pytest.mark.parametrize(
    ("names", "wanted", "message"),
    [
        (["cat"], "", "at least two class names"),
        (NAMES, "zebra", "expected one of cat, dog, red car"),
    ],
)
def test_what_cannot_be_read_is_one_line(reader, names, wanted, message):
    with pytest.raises(ValueError, match=message):
        reader.read(pixels_of(reader), names, wanted)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"units": (UnitFactor(1, 99_999),)}, "has units 0 to"),
        ({"units": (UnitFactor(77, 0),)}, "no layer 77"),
        ({"words": (WordFactor("cat"),) * 33}, "at most 32 are read here"),
        ({"words": (WordFactor("zebra"),)}, "No text of this bundle's pool"),
        ({"weights_sha256": "1" * 64}, "expected an edit of this bundle's model"),
    ],
)
def test_an_edit_that_does_not_fit_is_one_line(reader, values, message):
    layer = reader.bundle.config.layers[0]
    units = [replace(u, layer=layer if u.layer == 1 else u.layer) for u in values.get("units", ())]
    edit = replace(edit_of(reader), **(values | {"units": tuple(units)}))
    with pytest.raises(EditError, match=message) as error:
        reader.read(pixels_of(reader), NAMES, "", edit)
    assert "\n" not in str(error.value)


def test_without_a_softmax_there_are_cosines(reader, monkeypatch):
    monkeypatch.setattr(reader.lens.clip.model, "logit_bias", torch.zeros(()), raising=False)
    reading = reader.read(pixels_of(reader), NAMES)
    embedded = normalize(reader.lens.clip.encode_image(reading.pixels), dim=1)
    assert reading.before() == pytest.approx((embedded @ reading.classes.T)[0].tolist(), abs=1e-5)
