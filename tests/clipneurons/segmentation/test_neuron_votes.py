"""Segmentation from neurons: the paper's method literally, and shares that add up exactly."""

import pytest
import torch

from clipneurons.lens.lens import Lens
from clipneurons.lens.token_contributions import additive_maps, at_patches
from clipneurons.segmentation.masks import min_max
from clipneurons.segmentation.neuron_votes import choose_neurons, vote_maps
from tests.helpers.models import images, official_clip, official_numbers, tiny_resnet, tiny_vit
from tests.helpers.naive import NaiveViT

LAYERS = (1, 2)


def unit_rows(count, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(count, width, generator=generator), dim=-1)


@pytest.fixture(scope="module")
def clip():
    return tiny_vit(image_size=24, width=16, embed_dim=8)


def literal_paper(clip, image, directions, text, count):
    """Section 5.3, one neuron and one patch at a time."""
    naive = NaiveViT(clip, image)
    ranked = sorted(
        ((abs(float(r @ text)), layer, n) for layer, rows in directions.items()
         for n, r in enumerate(rows)), reverse=True,
    )[:count]  # fmt: skip
    rows, columns = clip.grid
    heat = torch.zeros(rows, columns)
    for row in range(rows):
        for column in range(columns):
            token = 1 + row * columns + column
            values = [float(naive.blocks[layer]["activations"][token][n]) for _, layer, n in ranked]
            heat[row, column] = sum(values) / count
    heat = (heat - heat.min()) / (heat.max() - heat.min())
    return heat, heat > 0.5


@pytest.mark.parametrize("count", [1, 7, 20])
def test_the_papers_method_literally(clip, count):
    directions = {layer: unit_rows(clip.neurons, 8, layer) for layer in LAYERS}
    batch, texts = images(2, clip), unit_rows(3, 8, 9)
    lens = Lens(clip, LAYERS)
    heat = min_max(vote_maps(lens, directions, batch, texts, count))
    for image in range(2):
        for index, text in enumerate(texts):
            expected, mask = literal_paper(clip, batch[image], directions, text, count)
            torch.testing.assert_close(heat[image, index], expected, rtol=1e-4, atol=1e-5)
            assert torch.equal(heat[image, index] > 0.5, mask)


def test_the_papers_method_on_the_authors_numbers():
    clip = official_clip()
    numbers, _ = official_numbers()
    directions = {layer: numbers[f"layer{layer}.directions"] for layer in LAYERS}
    text, batch = numbers["texts"][:1], numbers["images"][:1]
    lens = Lens(clip, LAYERS)
    _, contributions = lens(batch)
    heat = min_max(vote_maps(lens, directions, batch, text, 12))
    expected, mask = literal_paper(clip, batch[0], directions, text[0], 12)
    torch.testing.assert_close(heat[0, 0], expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(heat[0, 0] > 0.5, mask)
    # The shares add up to what the authors' code finds in all neurons together.
    phi = sum(numbers[f"layer{layer}.phi"][:1] for layer in LAYERS)
    shares = additive_maps(contributions, text).sum(-1)
    _, biased = Lens(clip, LAYERS, shared_bias=True)(batch)
    bias = sum(mine.bias for mine in biased.values())
    expected = (phi.sum(1) - clip.neurons * bias) @ text.T
    torch.testing.assert_close(shares, expected, rtol=1e-3, atol=1e-3)


def test_votes_are_sorted_and_named():
    directions = {3: unit_rows(5, 8, 3), 6: unit_rows(7, 8, 6)}
    texts = unit_rows(2, 8, 9)
    votes = choose_neurons(directions, texts, 100)
    assert votes.units.shape == (2, 12), "no more than there are"
    assert (votes.alignments.abs().diff() <= 0).all()
    for layer, unit, alignment in zip(
        votes.layers[1].tolist(), votes.units[1].tolist(), votes.alignments[1], strict=True
    ):
        torch.testing.assert_close(directions[layer][unit] @ texts[1], alignment)
    with pytest.raises(ValueError, match=r"a count of at least 1, not 0$"):
        choose_neurons(directions, texts, 0)
    with pytest.raises(ValueError, match="at least one layer"):
        choose_neurons({}, texts)


def test_additive_shares_against_loops(clip):
    image, text = images(1, clip), unit_rows(1, 8, 5)
    _, contributions = Lens(clip, LAYERS)(image)
    shares = additive_maps(contributions, text)[0, 0]
    naive = NaiveViT(clip, image[0])
    expected = []
    for token in range(len(shares)):
        only = NaiveViT(clip, image[0])
        for layer in LAYERS:
            only.blocks[layer]["activations"] = [
                a if i == token else torch.zeros_like(a)
                for i, a in enumerate(naive.blocks[layer]["activations"])
            ]
        total = sum(
            only.second_order_effect(layer, neuron) @ text[0].double()
            for layer in LAYERS
            for neuron in range(0, clip.neurons)
        )
        expected.append(total)
    torch.testing.assert_close(shares.double(), torch.stack(expected), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("make", [tiny_vit, tiny_resnet])
def test_additive_shares_add_up(make):
    clip = make()
    lens = Lens(clip, () if clip.kind == "resnet" else LAYERS)
    _, contributions = lens(images(3, clip))
    texts = unit_rows(20, clip.embed_dim)
    shares = additive_maps(contributions, texts)
    said = sum(mine.sum() for mine in contributions.values()) @ texts.T
    torch.testing.assert_close(shares.sum(-1), said, rtol=1e-3, atol=1e-4)
    one = additive_maps(contributions, texts[-1:])
    torch.testing.assert_close(one[:, 0], shares[:, -1])


def test_a_shared_bias_belongs_to_no_patch(clip):
    _, contributions = Lens(clip, (1,), shared_bias=True)(images(1, clip))
    with pytest.raises(ValueError, match="shared bias"):
        additive_maps(contributions, unit_rows(1, 8))


@pytest.mark.parametrize("make", [tiny_vit, tiny_resnet])
def test_what_is_said_at_patches_adds_up(make):
    clip = make()
    layer = 4 if clip.kind == "resnet" else 1
    _, contributions = Lens(clip, (layer,))(images(2, clip))
    mine = contributions[layer]
    patches = range(mine.activations.shape[1] - 1)
    parts = torch.stack([at_patches(mine, [patch]).scores for patch in patches])
    class_token = mine.activations[:, 0, :, None] * mine.weights[:, None, :, 0]
    total = parts.sum(0) + class_token.reshape(mine.scores.shape)
    torch.testing.assert_close(total, mine.scores, rtol=1e-4, atol=1e-5)
    some = at_patches(mine, [0, 2])
    torch.testing.assert_close(some.scores, parts[0] + parts[2])
    texts = unit_rows(2, clip.embed_dim)
    torch.testing.assert_close(
        some.sum() @ texts.T,
        additive_maps([mine], texts)[..., [1, 3]].sum(-1), rtol=1e-4, atol=1e-4,
    )  # fmt: skip
    for bad in (-1, len(patches)):
        with pytest.raises(ValueError, match="outside the image"):
            at_patches(mine, [bad])
