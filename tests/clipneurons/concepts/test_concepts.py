"""Concepts of images against plain loops over effects."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from clipneurons.concepts.concepts import (
    ConceptReader,
    patch_weights,
    top_concepts,
)
from clipneurons.concepts.image_concepts import compare_images, contrast, read_image
from clipneurons.lens.lens import Lens
from clipneurons.lens.token_contributions import unit_token_effects
from tests.helpers.models import images, tiny_resnet, tiny_vit
from tests.helpers.tiny import tiny_bundle


def read(*arguments, **options):
    """A reading as data."""
    return read_image(*arguments, **options).to_dict()


def made(clip, layers):
    """A reader over a random bundle whose means and thresholds fit the model's effects."""
    bundle = tiny_bundle(
        layers=layers, neurons=clip.neurons, heads=clip.heads, embed=clip.embed_dim,
        kind=clip.kind,
    )  # fmt: skip
    lens = Lens(clip, layers)
    pool = images(12, clip, seed=9)
    arrays = dict(bundle.layers)
    for layer, mine in lens(pool)[1].items():
        dense = mine.dense(torch.arange(mine.directions.units))  # [image, unit, embed]
        means = dense.mean(0)
        norms = (dense - means).norm(dim=-1)
        arrays[layer] = replace(
            arrays[layer], means=means, percentile=norms.quantile(0.6, dim=0).contiguous()
        )
    bundle = replace(bundle, layers=arrays)
    return ConceptReader(lens, bundle), bundle


TOWERS = [(tiny_vit, (1, 2)), (tiny_resnet, (4,))]


@pytest.fixture(scope="module", params=TOWERS, ids=["vit", "resnet"])
def setting(request):
    make, layers = request.param
    clip = make()
    reader, bundle = made(clip, layers)
    batch = images(3, clip, seed=1)
    return reader, bundle, batch, reader(batch)[1]


def test_norms_and_projections_are_those_of_the_dense_effects(setting):
    _, bundle, _, effects = setting
    for layer, mine in effects.items():
        arrays = bundle.layers[layer]
        units = torch.arange(len(arrays.directions))
        dense = mine.contributions.dense(units).double() - arrays.means.double()
        size = dense.norm(dim=-1)
        torch.testing.assert_close(mine.norms.double(), size, rtol=1e-4, atol=1e-4)
        expected = (dense * arrays.directions.double()).sum(-1)
        torch.testing.assert_close(mine.projections.double(), expected, rtol=1e-4, atol=1e-4)
        clear = (size - arrays.percentile).abs() > 1e-4
        assert torch.equal(mine.activated[clear], (size > arrays.percentile)[clear])


def test_weights_are_the_models_softmax_at_each_patch_by_how_much_is_written_there(setting):
    reader, bundle, _, effects = setting
    texts = bundle.text_embeddings.double().numpy()
    texts = texts / np.linalg.norm(texts, axis=1, keepdims=True)
    written = reader.written(effects)
    got, prefix = reader.weights(written), reader.lens.clip.prefix
    image = 2
    by_patch = sum(
        unit_token_effects(mine.contributions)[image, prefix:].double().numpy()
        for mine in effects.values()
    )
    whole = sum(np.linalg.norm(v) for v in by_patch)
    rows = []
    for v in by_patch:
        size = np.linalg.norm(v)
        powers = [math.exp(reader.logit_scale * float(t @ v) / size) for t in texts]
        rows.append([100 * size / whole * power / sum(powers) for power in powers])
    expected = np.array(rows)
    assert got[image].numpy() == pytest.approx(expected.sum(0), rel=1e-3)
    assert got.sum(1).tolist() == pytest.approx([100.0] * len(got), rel=1e-4)
    text = int(got[image].argmax())
    found = reader.patch_weights(written[image])[:, text]
    assert found.numpy() == pytest.approx(expected[:, text], rel=1e-3)


def test_where_nothing_is_written_nothing_is_said():
    assert not patch_weights(torch.zeros(4, 6), torch.eye(6), 100.0).any()


def test_activated_units_lead_with_the_largest_norm(setting):
    reader, _, _, effects = setting
    found = reader.activated(effects, image=1, top=1000)
    assert [one.norm for one in found] == sorted((one.norm for one in found), reverse=True)
    assert len(found) == sum(int(mine.activated[1].sum()) for mine in effects.values())
    assert all(one.excess > 1 for one in found)


def test_a_units_map_is_each_patchs_share_of_its_projection(setting):
    reader, bundle, _, effects = setting
    heads, prefix = bundle.config.units_per_neuron, reader.lens.clip.prefix
    for layer, mine in effects.items():
        made_of = mine.contributions
        dense = made_of.directions.dense(torch.tensor([3]))[0].double()
        along = dense @ bundle.layers[layer].directions[3].double()
        got = reader.unit_map(effects, layer, 3, image=2)
        assert tuple(got.shape) == tuple(reader.lens.clip.grid)
        for patch, value in enumerate(got.flatten().tolist()):
            activation = float(made_of.activations[2, prefix + patch, 3 // heads])
            weights = made_of.weights[2, :, prefix + patch].double()
            weights = weights[3 % heads][None] if heads > 1 else weights
            expected = sum(
                activation * float(w) * float(a) for w, a in zip(weights, along, strict=False)
            )
            assert value == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_a_bundle_with_the_shared_bias_is_refused():
    reader, bundle = made(tiny_vit(), (1,))
    biased = replace(bundle, config=replace(bundle.config, shared_bias=True))
    with pytest.raises(ValueError, match="without the shared bias"):
        ConceptReader(reader.lens, biased)


def test_zero_shot_scores_are_cosines(setting):
    reader, bundle, batch, _ = setting
    representation = reader.lens.clip.encode_image(batch)
    got = reader.zero_shot(representation)
    for i, one in enumerate(representation):
        for j, text in enumerate(bundle.text_embeddings):
            expected = float(one @ text / one.norm() / text.norm())
            assert got[i, j].item() == pytest.approx(expected, abs=1e-5)


def test_top_concepts_are_positive_and_descending():
    weights = torch.tensor([0.5, -1.0, 2.0, 0.0])
    assert top_concepts(weights, ["a", "b", "c", "d"], 4) == [("c", 2.0), ("a", 0.5)]


def test_comparison_finds_what_is_shared_and_what_is_not():
    weights = torch.tensor([[4.0, 2.0, 0.0, 1.0], [8.0, -1.0, 6.0, 2.0]])
    found = contrast(weights, ["cat", "boat", "tree", "sky"])
    assert [concept["text"] for concept in found["common"]] == ["cat", "sky"]
    assert [[concept["text"] for concept in own] for own in found["only"]] == [["boat"], ["tree"]]


def test_one_image_is_not_compared(setting):
    reader, _, batch, _ = setting
    with pytest.raises(ValueError, match="at least two images"):
        compare_images(reader, batch[:1])
    assert len(compare_images(reader, batch)["only"]) == len(batch)


def test_a_result_holds_weights_maps_and_units_of_one_reading(setting):
    reader, bundle, batch, _ = setting
    found = read(reader, batch[1], top=4)
    _, effects = reader(batch[1:2])
    weights = reader.weights(reader.written(effects))[0]
    expected = top_concepts(weights, bundle.texts, 4)
    assert [concept["text"] for concept in found["concepts"]] == [text for text, _ in expected]
    by_patch = reader.patch_weights(reader.written(effects)[0])
    for concept, (text, weight) in zip(found["concepts"], expected, strict=True):
        assert concept["weight"] == pytest.approx(weight, rel=1e-4)
        map_ = by_patch[:, bundle.texts.index(text)].reshape(reader.lens.clip.grid)
        assert np.array(concept["map"]) == pytest.approx((map_ / map_.max()).numpy(), abs=1e-3)
    units = reader.activated(effects, top=12)
    assert [(row["layer"], row["unit"]) for row in found["neurons"]] == [
        (unit.layer, unit.unit) for unit in units
    ]
    assert found["activated"] == len(reader.activated(effects, top=10_000))


class CountedReader(ConceptReader):
    """A reader that counts passes of the model and products with the texts."""

    passes = products = 0

    def __call__(self, images):
        self.passes += 1
        return super().__call__(images)

    def patch_weights(self, written):
        self.products += 1
        return super().patch_weights(written)


def test_an_image_is_passed_through_the_model_and_weighed_once(setting):
    reader, bundle, batch, _ = setting
    counted = CountedReader(reader.lens, bundle)
    assert len(read(counted, batch[0])["concepts"]) > 1
    assert (counted.passes, counted.products) == (1, 1)


class WithoutText(ConceptReader):
    """A reader in which no patch is about one of the texts."""

    def patch_weights(self, written):
        weights = super().patch_weights(written)
        weights[:, self.without] = 0
        return weights


def test_whether_the_heading_has_the_zero_shot_text(setting):
    reader, bundle, batch, _ = setting
    embedding = reader.lens.clip.encode_image(batch[:1])
    nearest = int(reader.zero_shot(embedding).argmax())
    assert read(reader, batch[0])["zero_shot"][0]["texts"][0] == bundle.texts[nearest]
    alone = replace(
        bundle,
        texts=[bundle.texts[nearest]] * 8,
        text_embeddings=bundle.text_embeddings[nearest].expand(8, -1),
    )
    assert read(ConceptReader(reader.lens, alone), batch[0])["zero_shot_agrees"]
    other = WithoutText(reader.lens, bundle)
    other.without = nearest
    found = read(other, batch[0], top=1)
    assert found["heading"] != [bundle.texts[nearest]]
    assert not found["zero_shot_agrees"]


@pytest.mark.parametrize("level", [-1.9, 0.0, 2.2])
def test_nothing_is_recognised_in_one_flat_colour(setting, level):
    reader, _, batch, _ = setting
    found = read(reader, torch.full_like(batch[0], level))
    assert not found["recognised"]
    assert found["concepts"] == found["heading"] == []
    assert read(reader, batch[0])["recognised"]
