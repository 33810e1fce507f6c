"""Concepts of images against plain loops over effects."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from clipneurons.concepts.concepts import (
    BY_PLACE,
    DENSE,
    SPARSE_NORM,
    SPARSE_PROJECTION,
    ConceptReader,
    compare,
    read_by_place,
    top_concepts,
)
from clipneurons.lens.first_order import FirstOrderLens
from clipneurons.lens.make import make_lens
from clipneurons.lens.token_contributions import unit_token_effects
from clipneurons.statistics.textspan import TextSpanReader, text_span
from tests.helpers.models import images, tiny_resnet, tiny_vit
from tests.helpers.tiny import tiny_bundle


def made(clip, layers):
    """A reader over a random bundle whose means and thresholds fit the model's effects."""
    bundle = tiny_bundle(
        layers=layers, neurons=clip.neurons, heads=clip.heads, embed=clip.embed_dim,
        kind=clip.kind,
    )  # fmt: skip
    lens = make_lens(clip, layers)
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


@pytest.mark.parametrize("way", [SPARSE_NORM, SPARSE_PROJECTION])
def test_weights_are_the_papers_sum(setting, way):
    reader, bundle, _, effects = setting
    got = reader.weights(effects, way)
    expected = torch.zeros_like(got, dtype=torch.float64)
    for layer, mine in effects.items():
        arrays = bundle.layers[layer]
        for image, unit in mine.activated.nonzero().tolist():
            size = (mine.projections if way == SPARSE_PROJECTION else mine.norms)[image, unit]
            for text, gamma in zip(
                arrays.indices[unit].tolist(), arrays.coefficients[unit], strict=True
            ):
                expected[image, text] += float(gamma) * float(size)
    assert expected.abs().max() > 0
    torch.testing.assert_close(got.double(), expected, rtol=1e-4, atol=1e-4)


def test_the_whole_is_what_all_units_write(setting):
    reader, bundle, _, effects = setting
    got = reader.weights(effects, DENSE)
    texts = bundle.text_embeddings.double()
    texts = texts / texts.norm(dim=1, keepdim=True)
    expected = torch.zeros_like(got, dtype=torch.float64)
    maps = torch.zeros(len(texts), dtype=torch.float64)
    for layer, mine in effects.items():
        means = bundle.layers[layer].means.double()
        dense = mine.contributions.dense(torch.arange(len(means))).double()
        for unit, mean in enumerate(means):
            expected += (dense[:, unit] - mean) @ texts.T
        maps += dense[2].sum(0) @ texts.T
    torch.testing.assert_close(got.double(), expected, rtol=1e-4, atol=1e-3)
    # A map has all but the class token's own share, with the means in it.
    text = int(got[2].argmax())
    class_token = sum(
        float(unit_token_effects(mine.contributions)[2, 0].double() @ texts[text])
        for mine in effects.values()
    )
    total = float(reader.patches(effects, text, image=2, way=DENSE).double().sum())
    assert total + class_token == pytest.approx(float(maps[text]), rel=1e-3, abs=1e-3)


def test_by_place_is_the_models_softmax_at_each_place_by_how_much_is_written(setting):
    reader, bundle, _, effects = setting
    texts = bundle.text_embeddings.double().numpy()
    texts = texts / np.linalg.norm(texts, axis=1, keepdims=True)
    got, prefix = reader.weights(effects, BY_PLACE), reader.lens.clip.prefix
    image = 2
    written = sum(
        unit_token_effects(mine.contributions)[image, prefix:].double().numpy()
        for mine in effects.values()
    )
    whole = sum(np.linalg.norm(v) for v in written)
    by_place = []
    for v in written:
        size = np.linalg.norm(v)
        powers = [math.exp(reader.sharpness * float(t @ v) / size) for t in texts]
        by_place.append([100 * size / whole * power / sum(powers) for power in powers])
    expected = np.array(by_place)
    assert got[image].numpy() == pytest.approx(expected.sum(0), rel=1e-3)
    assert got.sum(1).tolist() == pytest.approx([100.0] * len(got), rel=1e-4)
    text = int(got[image].argmax())
    found = reader.patches(effects, text, image=image, way=BY_PLACE)
    assert found.flatten().numpy() == pytest.approx(expected[:, text], rel=1e-3)


def test_where_nothing_is_written_nothing_is_said():
    assert not read_by_place(torch.zeros(4, 6), torch.eye(6), 100.0).any()


def test_another_way_is_refused(setting):
    reader, _, _, effects = setting
    ways = "sparse-norm, sparse-projection, dense, by-place"
    with pytest.raises(ValueError, match=f"{ways}, not 'loud'"):
        reader.weights(effects, "loud")


def test_activated_units_lead_with_the_largest_norm(setting):
    reader, _, _, effects = setting
    found = reader.activated(effects, image=1, top=1000)
    assert [one.norm for one in found] == sorted((one.norm for one in found), reverse=True)
    assert len(found) == sum(int(mine.activated[1].sum()) for mine in effects.values())
    assert all(one.excess > 1 for one in found)


def test_patches_and_class_token_sum_to_the_units_along_their_directions(setting):
    """With the means added back, the map's total is Σ γ ⟨φ, r⟩ less the class token's part."""
    reader, bundle, _, effects = setting
    text = int(reader.weights(effects)[2].abs().argmax())
    got = reader.patches(effects, text, image=2)
    assert tuple(got.shape) == tuple(reader.lens.clip.grid)
    expected = 0.0
    for layer, mine in effects.items():
        arrays, made_of = bundle.layers[layer], mine.contributions
        for unit in mine.activated[2].nonzero().flatten().tolist():
            gamma = sum(
                float(g)
                for i, g in zip(
                    arrays.indices[unit].tolist(), arrays.coefficients[unit], strict=True
                )
                if i == text
            )
            whole = made_of.dense(torch.tensor([unit]))[2, 0] @ arrays.directions[unit]
            if bundle.config.kind == "resnet":
                heads = bundle.config.units_per_neuron
                token = made_of.activations[2, 0, unit // heads]
                scores = (token * made_of.weights[2, unit % heads, 0])[None]
            else:
                scores = made_of.activations[2, 0, unit] * made_of.weights[2, :, 0]
            dense = made_of.directions.dense(torch.tensor([unit]))[0]
            first = scores @ dense @ arrays.directions[unit]
            expected += gamma * float(whole - first)
    assert float(got.sum()) == pytest.approx(expected, rel=1e-3, abs=1e-3)


def test_a_units_map_is_each_patchs_share_of_its_projection(setting):
    reader, bundle, _, effects = setting
    heads, prefix = bundle.config.units_per_neuron, reader.lens.clip.prefix
    for layer, mine in effects.items():
        made_of = mine.contributions
        dense = made_of.directions.dense(torch.tensor([3]))[0].double()
        along = dense @ bundle.layers[layer].directions[3].double()
        got = reader.unit_patches(effects, layer, 3, image=2)
        assert tuple(got.shape) == tuple(reader.lens.clip.grid)
        for patch, value in enumerate(got.flatten().tolist()):
            activation = float(made_of.activations[2, prefix + patch, 3 // heads])
            weights = made_of.weights[2, :, prefix + patch].double()
            weights = weights[3 % heads][None] if heads > 1 else weights
            expected = sum(
                activation * float(w) * float(a) for w, a in zip(weights, along, strict=False)
            )
            assert value == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_a_text_that_nothing_says_has_an_empty_map(setting):
    reader, bundle, _, effects = setting
    said = {
        i
        for layer, mine in effects.items()
        for unit in mine.activated[0].nonzero().flatten().tolist()
        for i in bundle.layers[layer].indices[unit].tolist()
    }
    unsaid = len(bundle.texts) + 5 if len(said) == len(bundle.texts) else min(
        set(range(len(bundle.texts))) - said
    )  # fmt: skip
    assert not reader.patches(effects, unsaid).any()


def test_unsigned_maps_are_made_of_magnitudes():
    reader, bundle = made(tiny_vit(), (1, 2))
    positive = {
        layer: replace(arrays, coefficients=arrays.coefficients.abs())
        for layer, arrays in bundle.layers.items()
    }
    reader.bundle = replace(bundle, layers=positive)
    _, effects = reader(images(1, reader.lens.clip, seed=4))
    text = int(reader.weights(effects)[0].argmax())
    assert (reader.patches(effects, text, way=SPARSE_NORM) >= 0).all()
    assert (reader.patches(effects, text, way=SPARSE_PROJECTION) < 0).any()


def test_a_bundle_with_the_shared_bias_is_refused():
    reader, bundle = made(tiny_vit(), (1,))
    biased = replace(bundle, config=replace(bundle.config, shared_bias=True))
    with pytest.raises(ValueError, match="without the shared bias"):
        ConceptReader(reader.lens, biased)


def test_nearest_texts_are_cosines(setting):
    reader, bundle, batch, _ = setting
    representation = reader.lens.clip.encode_image(batch)
    got = reader.nearest_texts(representation)
    for i, one in enumerate(representation):
        for j, text in enumerate(bundle.text_embeddings):
            expected = float(one @ text / one.norm() / text.norm())
            assert got[i, j].item() == pytest.approx(expected, abs=1e-5)


def test_top_concepts_are_positive_and_descending():
    weights = torch.tensor([0.5, -1.0, 2.0, 0.0])
    assert top_concepts(weights, ["a", "b", "c", "d"], 4) == [("c", 2.0), ("a", 0.5)]


def test_comparison_finds_what_is_shared_and_what_is_not():
    weights = torch.tensor([[4.0, 2.0, 0.0, 1.0], [8.0, -1.0, 6.0, 2.0]])
    found = compare(weights, ["cat", "boat", "tree", "sky"])
    assert [name for name, _ in found.common] == ["cat", "sky"]
    assert [name for name, _ in found.only[0]] == ["boat"]
    assert [name for name, _ in found.only[1]] == ["tree"]
    with pytest.raises(ValueError, match="at least two images"):
        compare(weights[:1], ["cat", "boat", "tree", "sky"])


def naive_text_span(outputs, texts, count):
    """Algorithm 1 with explicit projections in the whole space."""
    outputs = outputs - outputs.mean(0)
    basis = torch.linalg.svd(outputs, full_matrices=False).Vh
    rank = int(torch.linalg.matrix_rank(outputs))
    basis = basis[:rank]
    texts = texts @ basis.T @ basis
    chosen = []
    for _ in range(count):
        products = outputs @ texts.T
        best = int(products.square().sum(0).argmax())
        chosen.append(best)
        axis = texts[best] / texts[best].norm()
        outputs = outputs - torch.outer(outputs @ axis, axis)
        texts = texts - torch.outer(texts @ axis, axis)
    return chosen


def test_text_span_agrees_with_explicit_projections():
    generator = torch.Generator().manual_seed(5)
    outputs = torch.randn(40, 6, generator=generator, dtype=torch.float64)
    outputs = outputs @ torch.randn(6, 12, generator=generator, dtype=torch.float64)
    texts = normalize(torch.randn(30, 12, generator=generator, dtype=torch.float64), dim=1)
    assert text_span(outputs, texts, 5) == naive_text_span(outputs, texts, 5)


def test_text_span_stops_when_everything_is_explained():
    outputs = torch.randn(10, 1, dtype=torch.float64) @ torch.ones(1, 4, dtype=torch.float64)
    assert len(text_span(outputs, torch.eye(4, dtype=torch.float64), 3)) == 1


def test_text_span_reader_weighs_each_heads_own_texts():
    clip = tiny_vit()
    texts = normalize(torch.randn(9, 12, generator=torch.Generator().manual_seed(6)), dim=1)
    lens = FirstOrderLens(clip)
    reader = TextSpanReader.fit(lens, [images(8, clip)], texts, layers=2, count=3)
    batch = images(2, clip, seed=3)
    heads = lens(batch)[1].heads
    expected = torch.zeros(2, 9)
    means = lens(images(8, clip))[1].heads.mean(0)
    for layer, by_head in reader.chosen.items():
        for head, chosen in enumerate(by_head):
            for image in range(2):
                for text in chosen:
                    effect = heads[image, layer, head] - means[layer, head]
                    expected[image, text] += effect @ texts[text]
    assert set(reader.chosen) == {2, 3}
    torch.testing.assert_close(reader(batch), expected, rtol=1e-4, atol=1e-5)
