"""Units that fit a query: `search`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from jaxtyping import Float
from torch import Tensor

from clipneurons.bundle.bundle import Bundle
from clipneurons.bundle.unit_words import signed_words
from clipneurons.dictionary.dictionary import Dictionary, Hit
from clipneurons.dictionary.query import Embed, Phrase, parse_query
from clipneurons.notebook import article, bars, number

if TYPE_CHECKING:  # open_clip takes seconds to import, and most searches need no model
    from clipneurons.models.clip import ClipModel

DIRECTION, DECOMPOSITION = "direction", "decomposition"
MATCH, SIMULATION_SCORE = "match", "simulation_score"


@dataclass(frozen=True)
class FoundUnit:
    """A unit that fits a query.

    ``score`` is its cosine or coefficient, ``label`` its reliable label in one line (empty without
    one); ``simulation_score`` and ``reliable`` are None where labels were not tested.
    """

    layer: int
    unit: int
    score: float
    label: str
    simulation_score: float | None
    reliable: bool | None


@dataclass(frozen=True)
class SearchResult:
    """Units that fit a query, the strongest first.

    Attributes:
        query: what was searched for.
        labelled: units whose reliable label names it.
        toward, against: units that write toward it, and against it.
        chance_line: cosine that the best unit for a random direction stays below in 95 % of
            cases; None for a search by decomposition.
    """

    query: str
    labelled: tuple[FoundUnit, ...]
    toward: tuple[FoundUnit, ...]
    against: tuple[FoundUnit, ...]
    chance_line: float | None

    def to_dict(self) -> dict[str, Any]:
        """In JSON values, as the page's endpoint gives it."""
        return {
            "query": self.query,
            "labelled": [asdict(unit) for unit in self.labelled],
            "toward": [asdict(unit) for unit in self.toward],
            "against": [asdict(unit) for unit in self.against],
            "chance_line": self.chance_line,
        }

    def __repr__(self) -> str:
        lines = [f"Search for {self.query!r}"]
        for title, units in self._sections:
            lines += [f"  {title}:", *(f"    {_row(unit)}" for unit in units)]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        parts = [
            bars(title, [(_name(unit), unit.score) for unit in units])
            for title, units in self._sections
        ]
        line = self.chance_line
        note = "" if line is None else f"95 % of random directions stay below {line:.2f}."
        return article(f"Units that fit “{self.query}”", *parts, note=note)

    @property
    def _sections(self) -> list[tuple[str, tuple[FoundUnit, ...]]]:
        sections = (
            ("Reliable label names it", self.labelled),
            ("Write toward it", self.toward),
            ("Write against it", self.against),
        )
        return [(title, units) for title, units in sections if units]


def search(
    bundle: Bundle,
    query: str,
    *,
    by: str = DIRECTION,
    order: str = MATCH,
    reliable: bool = False,
    top: int = 10,
    embed: ClipModel | Embed | None = None,
) -> SearchResult:
    """Find the units that write toward a query, and those that write against it.

    Args:
        bundle: the units to search in.
        query: texts with commas between them; a leading minus for what is unwanted.
        by: ``"direction"`` compares the units' directions with the texts' embeddings,
            ``"decomposition"`` adds up the coefficients of texts that have the words.
        order: ``"match"``, or ``"simulation_score"``: of those, the best predicted first.
        reliable: only units with a reliable label.
        top: how many of each, 1 to 100.
        embed: the bundle's model, or a function from texts to embeddings; only texts that the
            bundle does not have need it.

    Raises:
        ValueError: an empty query, a text that the bundle does not have and no model to embed it,
            labels that were not tested where the search needs them.

    Example:
        >>> bundle = cn.load_bundle("user/name")
        >>> cn.search(bundle, "boat, -water").toward[0]
    """
    for name, value, known in (
        ("by", by, (DIRECTION, DECOMPOSITION)),
        ("order", order, (MATCH, SIMULATION_SCORE)),
    ):
        if value not in known:
            raise ValueError(f"{name}={value!r}: expected {' or '.join(map(repr, known))}")
    if not 1 <= top <= 100:
        raise ValueError(f"top={top}: expected 1 to 100")
    dictionary, phrases = dictionary_of(bundle), parse_query(query)
    if (reliable or order != MATCH) and not dictionary.tested:
        raise ValueError(
            "the labels of this bundle were not tested (python -m export evaluate labels): search "
            "without order and reliable"
        )
    scores = _scores(dictionary, phrases, by, embed)
    if reliable:
        scores = scores * dictionary.reliable
    toward, against = dictionary.strongest(scores, top)
    labelled, _ = dictionary.strongest(dictionary.label_scores(phrases), top)
    if order == SIMULATION_SCORE:

        def predicted(hit: Hit) -> float:
            return float(dictionary.simulation_score[dictionary.row(hit.layer, hit.unit)])

        toward.sort(key=predicted, reverse=True)
        against.sort(key=predicted, reverse=True)
    return SearchResult(
        query,
        *(tuple(_unit(bundle, hit) for hit in hits) for hits in (labelled, toward, against)),
        chance_line=dictionary.chance_line if by == DIRECTION else None,
    )


@lru_cache(maxsize=4)
def dictionary_of(bundle: Bundle) -> Dictionary:
    """The dictionary of a bundle; those of the last few are kept."""
    return Dictionary(bundle)


def _scores(
    dictionary: Dictionary, phrases: list[Phrase], by: str, embed: ClipModel | Embed | None
) -> Float[Tensor, " row"]:
    if by == DECOMPOSITION:
        return dictionary.coefficient_scores(phrases)
    unknown = [phrase.words for phrase in phrases if not dictionary.in_pool(phrase.words)]
    if unknown and embed is None:
        raise ValueError(
            f"the bundle has no text {unknown[0]!r}: pass the model, search(..., embed=clip), or "
            'search by="decomposition"'
        )
    expected = dictionary.bundle.config.embed_dim
    if getattr(embed, "embed_dim", expected) != expected:
        raise ValueError(
            f"{embed.name} embeds texts in {embed.embed_dim} numbers, the bundle's model in "
            f"{expected}: pass the bundle's model"
        )
    embed = getattr(embed, "encode_text", embed)
    return dictionary.cosines(dictionary.embed(phrases, embed))


def _unit(bundle: Bundle, hit: Hit) -> FoundUnit:
    label = bundle.label(hit.layer, hit.unit)
    return FoundUnit(
        hit.layer,
        hit.unit,
        hit.score,
        ", ".join(signed_words(bundle, hit.layer, hit.unit)),
        label and label.simulation_score,
        label and label.reliable,
    )


def _name(unit: FoundUnit) -> str:
    return f"{unit.layer} · {unit.unit}  {unit.label}".rstrip()


def _row(unit: FoundUnit) -> str:
    return f"{number(unit.score)}  {_name(unit)}"
