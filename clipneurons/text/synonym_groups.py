"""Texts that mean much the same, put together."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from clipneurons.text.class_names import content, stem


@dataclass(frozen=True, eq=False)
class CosineSpread:
    """Mean and covariance of text embeddings: from them, how cosines with one text spread.

    For a text t these have mean ⟨t, mean⟩ and variance tᵀ · covariance · t, without a product
    with all texts.
    """

    mean: Float[Tensor, " embed"]
    covariance: Float[Tensor, "embed embed"]

    @classmethod
    def of(cls, embeddings: Float[Tensor, "text embed"]) -> "CosineSpread":
        """Of all texts; worth it where many texts are asked for."""
        mean = embeddings.mean(0)
        centred = embeddings - mean
        return cls(mean, centred.T @ centred / max(1, len(embeddings) - 1))

    def __call__(self, text: Float[Tensor, " embed"]) -> tuple[float, float]:
        """Mean and standard deviation of the cosines with all texts."""
        variance = text @ self.covariance @ text
        return float(text @ self.mean), float(variance.clamp_min(0).sqrt())


def synonym_groups(
    order: Iterable[int],
    texts: Sequence[str],
    embeddings: Float[Tensor, "text embed"],
    count: int,
    deviations: float = 4.0,
    floor: float = 0.75,
    spread: CosineSpread | None = None,
) -> list[list[int]]:
    """The first ``count`` groups of texts, each begun by one that means something new.

    Args:
        order: numbers of texts, the most important first.
        texts: all texts, with ``embeddings`` of unit norm.
        count: how many groups; later texts are still put into those that are there.
        deviations, floor: a text belongs to a group when its cosine with the group's first lies
            more than ``deviations`` standard deviations above the mean over all texts and above
            ``floor``, or when both have the same words but for article and ending.
        spread: that of the embeddings, where it is known already.
    """
    groups: list[list[int]] = []
    limits: list[float] = []
    stems: list[list[str]] = []
    for text in order:
        mine = [stem(word) for word in content(texts[text])]
        for group, limit, words in zip(groups, limits, stems, strict=True):
            if mine == words or embeddings[group[0]] @ embeddings[text] > limit:
                group.append(text)
                break
        else:
            if len(groups) == count:
                continue
            if spread is None:
                cosines = embeddings @ embeddings[text]
                mean, deviation = cosines.mean().item(), cosines.std().item()
            else:
                mean, deviation = spread(embeddings[text])
            # Where all texts are alike, deviations may end above 1; a tenth of the way is left.
            limits.append(max(floor, min(mean + deviations * deviation, 1 - 0.1 * (1 - mean))))
            groups.append([text])
            stems.append(mine)
    return groups
