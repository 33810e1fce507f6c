"""Texts that the model sees: readings and the choice of texts by float64 loops."""

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from clipneurons.labels import evidence as evidence_module
from clipneurons.labels import seen_texts as module
from clipneurons.labels.candidates import READINGS
from clipneurons.labels.evidence import Evidence
from clipneurons.labels.seen_texts import Reading, seen_texts

TEXTS, UNITS = 30, 7


@pytest.fixture
def evidence():
    """Texts in pairs of which the second is nearly the first; the last five are alone."""
    generator = torch.Generator().manual_seed(0)
    texts = torch.randn(TEXTS, 12, generator=generator)
    texts[13:25] = texts[:12] + 0.1 * texts[13:25]
    images = normalize(torch.randn(200, 12, generator=generator) + 0.5, dim=1)
    texts = normalize(texts + 0.5, dim=1)
    effects = torch.randn(200, UNITS, generator=generator)
    effects += 2 * images @ torch.randn(12, UNITS, generator=generator)
    directions = normalize(torch.randn(UNITS, 12, generator=generator), dim=1)
    return Evidence(directions, texts, images, effects)


def _read(evidence, reading):
    images, texts = (x.double().numpy() for x in (evidence.embeddings, evidence.texts))
    centred = texts - texts.mean(0)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    alike = centred @ centred.T > 0.85
    if reading.centred:
        texts, images = centred, images - images.mean(0)
        images /= np.linalg.norm(images, axis=1, keepdims=True)
    found = np.zeros((len(images), len(texts)))
    for row, image in enumerate(images):
        odds = [np.exp(reading.scale * image @ text) for text in texts]
        given = [one / sum(odds) for one in odds]
        for text in range(len(texts)):
            among = np.flatnonzero(alike[text]) if reading.pooled else [text]
            found[row, text] = sum(given[other] for other in among)
    return found, alike


@pytest.mark.parametrize("reading", READINGS)
def test_a_reading_by_loops(evidence, reading):
    expected, alike = _read(evidence, reading)
    assert alike.sum() > TEXTS + 20
    assert reading(evidence).numpy() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("reading", READINGS)
def test_texts_are_taken_one_by_one_without_what_was_said(evidence, reading):
    given, alike = _read(evidence, reading)
    effects, spread = evidence.effects.double().numpy(), np.sqrt(given.std(0, ddof=1))
    found = seen_texts(evidence, reading)[16]
    for unit in range(UNITS):
        left = [np.corrcoef(effects[:, unit], given[:, text])[0, 1] for text in range(TEXTS)]
        free = list(range(TEXTS))
        for place in range(16):
            text = int(found.indices[unit, place])
            worth = [abs(left[other]) * spread[other] for other in free]
            # Pooled, two words for one thing are worth the same, and either may come first.
            assert abs(left[text]) * spread[text] == pytest.approx(max(worth), abs=1e-6)
            weight = left[text] * spread[text]
            assert float(found.coefficients[unit, place]) == pytest.approx(weight, abs=1e-5)
            free.remove(text)
            left = [c - left[text] if alike[text, t] else c for t, c in enumerate(left)]


def test_what_two_words_for_one_thing_say_is_said_once(evidence):
    generator = torch.Generator().manual_seed(1)
    texts = normalize(torch.randn(TEXTS, 12, generator=generator), dim=1)
    texts[1] = texts[0]
    given = (40 * evidence.embeddings @ texts.T).softmax(1)
    one = Evidence(evidence.directions[:1], texts, evidence.embeddings, given[:, :1] * 5)
    label = seen_texts(one, Reading(40.0))[8]
    first = {int(label.indices[0, 0])}
    assert first <= {0, 1}
    later = dict(
        zip(label.indices[0, 1:].tolist(), label.coefficients[0, 1:].tolist(), strict=True)
    )
    for text in {0, 1} - first:
        assert abs(later.get(text, 0.0)) < 1e-6


def test_parts_that_fit_memory_change_nothing(evidence, monkeypatch):
    reading = Reading(40.0, centred=True, pooled=True)
    whole = seen_texts(evidence, reading)[8]
    monkeypatch.setattr(module, "_UNITS", 3)
    monkeypatch.setattr(evidence_module, "_TEXTS", 7)
    again = Evidence(evidence.directions, evidence.texts, evidence.embeddings, evidence.effects)
    found = seen_texts(again, reading)[8]
    assert torch.equal(found.indices, whole.indices)
    torch.testing.assert_close(found.coefficients, whole.coefficients)


def test_texts_of_no_content_are_alike_to_themselves_alone():
    pairs = evidence_module.alike(torch.cat([torch.zeros(2, 4), torch.eye(4)]))
    assert pairs.tolist() == [[0, 1, 2, 3, 4, 5]] * 2
