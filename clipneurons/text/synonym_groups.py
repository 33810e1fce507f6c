"""Texts that mean much the same, put together."""

from collections.abc import Iterable, Sequence

from jaxtyping import Float
from torch import Tensor

from clipneurons.text.class_names import content, stem


def synonym_groups(
    order: Iterable[int],
    texts: Sequence[str],
    embeddings: Float[Tensor, "text embed"],
    count: int,
    deviations: float = 4.0,
    floor: float = 0.75,
) -> list[list[int]]:
    """The first ``count`` groups of texts, each begun by one that means something new.

    Args:
        order: numbers of texts, the most important first.
        texts: all texts, with ``embeddings`` of unit norm.
        count: how many groups; later texts are still put into those that are there.
        deviations, floor: a text belongs to a group when its cosine with the group's first lies
            more than ``deviations`` standard deviations above the mean over all texts and above
            ``floor``, or when both have the same words but for article and ending.
    """
    groups: list[list[int]] = []
    limits: list[float] = []
    cosines: list[Tensor] = []
    stems: list[list[str]] = []
    for text in order:
        mine = [stem(word) for word in content(texts[text])]
        for group, limit, near, words in zip(groups, limits, cosines, stems, strict=True):
            if mine == words or near[text] > limit:
                group.append(text)
                break
        else:
            if len(groups) == count:
                continue
            near = embeddings @ embeddings[text]
            mean, deviation = near.mean().item(), near.std().item()
            # Where all texts are alike, deviations may end above 1; a tenth of the way is left.
            limits.append(max(floor, min(mean + deviations * deviation, 1 - 0.1 * (1 - mean))))
            groups.append([text])
            cosines.append(near)
            stems.append(mine)
    return groups
