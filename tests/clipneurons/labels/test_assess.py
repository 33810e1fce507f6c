"""The whole test on recordings whose answer is planted: the parts, the choice, the refusals."""

import pytest
import torch
from torch.nn.functional import normalize

from clipneurons.labels.assess import (
    DECOMPOSITION,
    RANDOM,
    SHUFFLED,
    UPPER,
    Recordings,
    assess,
    mean_interval,
    split,
)
from clipneurons.labels.simulation import Labels

UNITS, TEXTS, IMAGES = 40, 60, 900


@pytest.fixture(scope="module")
def planted():
    """Each unit reacts to one text, which the judge sees on some images; directions say nothing."""
    generator = torch.Generator().manual_seed(0)
    present = torch.rand(IMAGES, TEXTS, generator=generator) < 0.15
    texts = normalize(torch.randn(TEXTS, 64, generator=generator), dim=1)
    embeddings = normalize(present.float() @ texts, dim=1)
    answer = torch.randperm(TEXTS, generator=generator)[:UNITS]
    effects = present[:, answer].float()
    effects = effects + 0.5 * torch.randn(effects.shape, generator=generator)
    directions = normalize(torch.randn(UNITS, 64, generator=generator), dim=1)
    recordings = Recordings(effects, embeddings, present.float(), present, present.float())
    decomposition = Labels(
        torch.randint(TEXTS, (UNITS, 4), generator=generator), torch.ones(UNITS, 4)
    )
    parts = split(recordings)
    return parts, assess(parts, directions, texts, decomposition), answer


def test_parts_share_no_image_and_leave_none_out(planted):
    parts, _, _ = planted
    rows = torch.cat([part.effects for part in (parts.fit, parts.choose, parts.test)])
    assert len(rows) == len(rows.unique(dim=0)) == IMAGES
    assert (len(parts.fit), len(parts.choose), len(parts.test)) == (360, 180, 360)


def test_what_is_planted_is_found_and_the_controls_find_nothing(planted):
    _, found, answer = planted
    shipped = found.shipped
    assert found.best != DECOMPOSITION
    assert (shipped.labels.first(1) == answer).float().mean() > 0.9
    assert (shipped.q_value <= 0.05).float().mean() > 0.9
    assert shipped.simulation.mean() > 0.4
    for name in (SHUFFLED, RANDOM):
        assert abs(float(found.rivals[name].simulation.mean())) < 0.05
        assert (found.rivals[name].q_value <= 0.05).float().mean() < 0.1
    assert found.methods[DECOMPOSITION].simulation.mean() < 0.2
    assert found.rivals[UPPER].simulation.mean() > shipped.simulation.mean() - 0.05


def test_shuffled_labels_are_those_of_other_units(planted):
    _, found, _ = planted
    own, other = found.shipped.labels, found.rivals[SHUFFLED].labels
    assert not (own.indices[:, 0] == other.indices[:, 0]).any()
    assert own.indices[:, 0].sort().values.equal(other.indices[:, 0].sort().values)


def test_the_interval_holds_the_mean(planted):
    _, found, _ = planted
    low, high = mean_interval(found.shipped.draws)
    assert low < float(found.shipped.simulation.mean()) < high
    assert high - low < 0.1
    assert mean_interval(found.shipped.draws, torch.zeros(UNITS, dtype=torch.bool)) == (0, 0)


def test_too_few_images_are_refused_with_the_reason():
    nothing = torch.zeros(99, 2)
    with pytest.raises(ValueError, match=r"99 images.*at least 100"):
        split(Recordings(nothing, nothing, nothing, nothing > 0, nothing))
