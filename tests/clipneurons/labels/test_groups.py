"""Names of groups of top images: who belongs to a group, purity, the control."""

import pytest
import torch
from torch.nn.functional import normalize

from clipneurons.labels.assess import Parts, Recordings
from clipneurons.labels.groups import (
    FEWEST,
    LIFT,
    NEAREST,
    SHUFFLED,
    STRONG,
    group_top_images,
    measure_names,
    members,
    name_groups,
)
from clipneurons.statistics.clustering import group_alike

TEXTS = torch.eye(6, 16)


def scenes(count: int, seed: int) -> tuple[Recordings, torch.Tensor]:
    """Images that show one of six texts; of two units one reacts to the first two texts."""
    generator = torch.Generator().manual_seed(seed)
    shown = torch.randint(6, (count,), generator=generator)
    noise = 0.05 * torch.randn(count, 16, generator=generator)
    embeddings = normalize(TEXTS[shown] + noise, dim=1)
    present = torch.nn.functional.one_hot(shown, 6).bool()
    both = (shown < 2).float() + 0.1 * torch.rand(count, generator=generator)
    effects = torch.stack([both, torch.rand(count, generator=generator)], dim=1)
    return Recordings(effects, embeddings, present.float(), present, embeddings), shown


@pytest.fixture(scope="module")
def parts():
    return Parts(*(scenes(400, seed)[0] for seed in range(3)))


@pytest.fixture(scope="module")
def grouped(parts):
    """The first unit's top images show texts 0 (five) and 1 (three), the other's are one."""
    images, shown = scenes(200, 9)
    places = [(shown == text).nonzero().flatten().tolist() for text in range(6)]
    top = torch.tensor([places[0][:5] + places[1][:3], places[3][:1] * 5 + [-1] * 3])
    return group_top_images(
        top, normalize(images.embeddings - images.embeddings.mean(0), dim=1), 0.12
    )


def test_a_unit_of_one_kind_of_image_has_no_groups(grouped):
    assert grouped.unit.tolist() == [0, 0]
    assert grouped.images.tolist() == [[0] * 5 + [1] * 3, [-1] * 8]
    table = grouped.columns(torch.tensor([4, 5]), -1)
    assert table.tolist() == [[4, 5, -1, -1], [-1] * 4]


def test_members_are_the_strongest_and_nearest_as_in_a_loop(grouped, parts):
    held = parts.test
    points = normalize(held.embeddings - parts.fit.embeddings.mean(0), dim=1)
    found = members(grouped, held.effects, points)
    order = sorted(range(len(held)), key=lambda i: -abs(float(held.effects[i, 0])))
    expected = torch.zeros(len(held), 2, dtype=torch.bool)
    for image in order[: round(STRONG * len(held))]:
        near = [float(points[image].double() @ centre.double()) for centre in grouped.centres]
        expected[image, near.index(max(near))] = True
    assert torch.equal(found, expected)


def test_purity_is_the_share_of_members_that_show_the_name(grouped, parts):
    held = parts.test
    belong = torch.zeros(len(held), 2, dtype=torch.bool)
    belong[:10, 0] = True
    belong[: FEWEST - 1, 1] = True
    found = measure_names(torch.tensor([2, 2]), belong, held)
    expected = sum(bool(held.present[i, 2]) for i in range(10)) / 10
    assert float(found.purity[0]) == pytest.approx(expected)
    assert torch.isnan(found.purity[1]), "too few to say"
    assert torch.isnan(found.auc[1])


def test_each_group_gets_its_own_name_and_the_control_another_ones(grouped, parts):
    best, names = name_groups(grouped, parts, TEXTS)
    assert best in (NEAREST, LIFT)
    for way in (NEAREST, LIFT):
        assert names[way].text.tolist() == [0, 1]
        assert names[way].mean_purity == pytest.approx(1)
        assert names[way].auc.tolist() == pytest.approx([1, 1], abs=0.1)
    assert names[SHUFFLED].text.tolist() == [1, 0]
    assert names[SHUFFLED].mean_purity == 0


def test_without_groups_there_is_nothing_to_name(parts):
    none = group_top_images(torch.zeros(2, 1, dtype=torch.long), torch.eye(1, 16), 0.12)
    _, names = name_groups(none, parts, TEXTS)
    assert {len(one.text) for one in names.values()} == {0}


def test_the_largest_group_is_the_first():
    points = torch.eye(4)[[2, 0, 0, 2, 0]] + 0.01 * torch.eye(5, 4)
    assert group_alike(normalize(points, dim=1), 0.12).tolist() == [1, 0, 0, 1, 0]
    assert group_alike(torch.eye(1, 4), 0.12).tolist() == [0]
