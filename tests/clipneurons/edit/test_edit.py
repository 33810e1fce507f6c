import json

import pytest
import torch

from clipneurons.dictionary.dictionary import Dictionary, Phrase
from clipneurons.edit.edit import Edit, EditError, UnitFactor, WordFactor, apply_edit
from clipneurons.lens.contributions import MeanEffect
from clipneurons.lens.lens import Lens
from clipneurons.models.hooks import record_activations
from tests.helpers.models import images, tiny_resnet, tiny_vit
from tests.helpers.naive import NaiveViT
from tests.helpers.naive_resnet import NaivePooling
from tests.helpers.tiny import tiny_bundle

SHA = "0" * 64


def edited_by_loops(clip, effects, representation, factors, means):
    """100 y/‖y‖ + Σ (f − 1)(φ − b), one unit at a time in float64."""
    total = 100 * representation.double() / representation.double().norm()
    for layer, factor in factors.items():
        for unit in range(len(factor)):
            change = effects(layer, unit) - means[layer][unit].double()
            total = total + (factor[unit].double() - 1) * change
    return total


@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_an_edit_adds_each_units_scaled_deviation_from_its_mean(kind):
    clip = tiny_vit(width=16, layers=3) if kind == "vit" else tiny_resnet(width=2, heads=2)
    lens = Lens(clip, (0, 1) if kind == "vit" else ())
    batch = images(2, clip)
    representation, contributions = lens(batch)
    generator = torch.Generator().manual_seed(1)
    factors, means = {}, {}
    for layer, mine in contributions.items():
        factors[layer] = torch.ones(mine.directions.units)
        factors[layer][::3] = torch.randn(len(factors[layer][::3]), generator=generator)
        mean = MeanEffect(torch.randn(mine.scores.shape[1:], generator=generator))
        means[layer] = mean.dense(mine.directions)
    got = apply_edit(representation, contributions, factors, means)
    with record_activations(clip.visual, ["attnpool:input"] if kind == "resnet" else []) as tensors:
        clip.encode_image(batch)
    for index in range(len(batch)):
        if kind == "vit":
            naive = NaiveViT(clip, batch[index])
            effects = naive.second_order_effect
        else:
            naive = NaivePooling(clip, tensors["attnpool:input"][index])
            effects = lambda _, unit, n=naive: n.contribution(unit // 2, unit % 2)  # noqa: E731
        expected = edited_by_loops(clip, effects, naive.representation, factors, means)
        assert (got[index].double() - expected).norm() / expected.norm() < 1e-5


@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_an_edit_equals_adding_the_dense_effects_again(kind):
    clip = tiny_vit() if kind == "vit" else tiny_resnet(width=4)
    lens = Lens(clip, (0, 2) if kind == "vit" else ())
    representation, contributions = lens(images(4, clip))
    factors = {layer: torch.ones(m.directions.units) for layer, m in contributions.items()}
    means = {}
    expected = 100 * torch.nn.functional.normalize(representation, dim=1)
    for layer, mine in contributions.items():
        dense = mine.dense(torch.arange(mine.directions.units))
        means[layer] = dense.mean(0)
        factors[layer][5], factors[layer][7] = 0.0, 2.5
        expected = expected - (dense[:, 5] - means[layer][5])
        expected = expected + 1.5 * (dense[:, 7] - means[layer][7])
    got = apply_edit(representation, contributions, factors, means)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-4)


def test_json_gives_the_same_edit():
    edit = Edit(SHA, (UnitFactor(1, 3), UnitFactor(2, 0, -1.5)), (WordFactor("red car", 0.25, 2),))
    assert Edit.from_json(edit.to_json()) == edit
    assert json.loads(edit.to_json())["schema_version"] == 1
    assert Edit.from_json(json.dumps({"schema_version": 1, "weights_sha256": SHA})) == Edit(SHA)


def test_words_choose_the_units_that_say_them_more_than_asked():
    bundle = tiny_bundle()
    dictionary = Dictionary(bundle)
    said = dictionary.coefficient_scores([Phrase("car")])
    expected = {dictionary.place(row) for row in (said > 0.3).nonzero().flatten().tolist()}
    assert 0 < len(expected) < len(said)
    factors = Edit(SHA, words=(WordFactor("car", 0.3, 0.5),)).factors(bundle)
    found = {
        (layer, unit)
        for layer, factor in factors.items()
        for unit in (factor == 0.5).nonzero().flatten().tolist()
    }
    assert found == expected
    assert all(bool(((f == 1) | (f == 0.5)).all()) for f in factors.values())


def test_a_units_own_factor_goes_before_that_of_its_words():
    bundle = tiny_bundle()
    said = Dictionary(bundle).coefficient_scores([Phrase("car")])
    layer, unit = Dictionary(bundle).place(int(said.argmax()))
    edit = Edit(
        SHA, (UnitFactor(layer, unit, 1.0),), (WordFactor("car", float(said.max()) - 1e-6),)
    )
    assert edit.factors(bundle) == {}


def test_layers_without_changes_are_left_out():
    bundle = tiny_bundle()
    assert Edit(SHA).factors(bundle) == {}
    assert list(Edit.ablating(bundle, [(2, 5)]).factors(bundle)) == [2]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (Edit("1" * 64), "edit is of a model with weights 111111111111, the bundle's are 0000"),
        (Edit(SHA, (UnitFactor(7, 0),)), "This bundle has no layer 7; it has 1, 2"),
        (Edit(SHA, (UnitFactor(1, 16),)), "Layer 1 has units 0 to 15, not 16"),
        (Edit(SHA, words=(WordFactor("zebra"),)), "No text of this bundle's pool contains"),
    ],
)
def test_what_the_bundle_does_not_have_is_refused(edit, message):
    with pytest.raises(EditError, match=message):
        edit.factors(tiny_bundle())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Edit(SHA, (UnitFactor(1, 0, float("nan")),)), "factor of nan: expected a finite"),
        (lambda: Edit(SHA, words=(WordFactor("a", 0, float("inf")),)), "factor of inf"),
        (lambda: Edit(SHA, (UnitFactor(1, 0, 1e308),)), "from -1000 to 1000"),
        (lambda: Edit(SHA, (UnitFactor(1, 0, 10**400),)), "from -1000 to 1000"),
        (lambda: Edit(SHA, words=(WordFactor("a", 10**400),)), "a finite number that they"),
        (lambda: Edit(SHA, words=(WordFactor("a", float("nan")),)), "a finite number that they"),
        (lambda: Edit(SHA, words=(WordFactor(" "),)), "expected words"),
        (lambda: Edit(SHA, (UnitFactor(1, 0), UnitFactor(1, 0, 2))), "unit 0 has 2 factors"),
    ],
)
def test_factors_that_mean_nothing_are_refused(make, message):
    with pytest.raises(EditError, match=message):
        make()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "the edit is not JSON"),
        ("[]", "the edit should hold an object"),
        ('{"schema_version": 1, "factor": 1' + "0" * 400 + "}", "is out of bounds"),
        ('{"schema_version": 9}', "schema version 1, not 9"),
        ('{"schema_version": 1}', "weights_sha256"),
        ('{"schema_version": 1, "weights_sha256": 3}', "expected a str"),
        ('{"schema_version": 1, "weights_sha256": "a", "units": {}}', "expected a list"),
        ('{"schema_version": 1, "weights_sha256": "a", "colour": 1}', "some of weights_sha256"),
        (
            '{"schema_version": 1, "weights_sha256": "a", "units": [{"layer": "1", "unit": 2}]}',
            "layer of .*: expected a int",
        ),
        (
            '{"schema_version": 1, "weights_sha256": "a", "units": [{"layer": 1}]}',
            "unit",
        ),
    ],
)
def test_files_that_are_no_edit_are_one_line(text, message):
    with pytest.raises(EditError, match=message) as error:
        Edit.from_json(text)
    assert "\n" not in str(error.value)
