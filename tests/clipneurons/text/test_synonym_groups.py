import torch
from torch.nn.functional import normalize

from clipneurons.text.synonym_groups import CosineSpread, synonym_groups


def naive_groups(order, embeddings, count, deviations, floor):
    """The rule by loops in float64, without the rule about words."""
    rows = embeddings.double()

    def cosine(a, b):
        return sum(x * y for x, y in zip(rows[a].tolist(), rows[b].tolist(), strict=True))

    groups = []
    for text in order:
        for group in groups:
            near = torch.tensor([cosine(group[0], other) for other in range(len(rows))])
            limit = min(near.mean() + deviations * near.std(), 1 - 0.1 * (1 - near.mean()))
            if cosine(group[0], text) > max(floor, limit):
                group.append(text)
                break
        else:
            if len(groups) < count:
                groups.append([text])
    return groups


def test_groups_are_those_of_the_loops():
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(5, 16, generator=generator)
    rows = centres.repeat_interleave(6, 0) + 0.15 * torch.randn(30, 16, generator=generator)
    rows = normalize(rows, dim=1)
    texts = [f"thing{i} {i}" for i in range(30)]
    order = torch.randperm(30, generator=generator).tolist()
    for deviations in (1.0, 1.6, 4.0):
        found = synonym_groups(order, texts, rows, 3, deviations, 0.5)
        assert found == naive_groups(order, rows, 3, deviations, 0.5)
        spread = CosineSpread.of(rows)
        assert found == synonym_groups(order, texts, rows, 3, deviations, 0.5, spread)
    assert [len(group) for group in synonym_groups(order, texts, rows, 3, 1.6, 0.5)] == [6, 6, 6]


def test_the_same_words_are_one_group_whatever_their_ending():
    texts = ["a dog", "cat", "dogs", "the cats", "a hot dog"]
    rows = torch.eye(5)
    assert synonym_groups(range(5), texts, rows, 5) == [[0, 2], [1, 3], [4]]
    assert synonym_groups(range(5), texts, rows, 1) == [[0, 2]]
