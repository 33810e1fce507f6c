"""TextSpan's reading of an image, against explicit projections and loops."""

import torch
from torch.nn.functional import normalize

from clipneurons.lens.first_order import FirstOrderLens
from research.concepts.textspan import TextSpanReader, text_span
from tests.helpers.models import images, tiny_vit


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
