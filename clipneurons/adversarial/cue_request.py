"""What cues are asked for: two classes, a method and its settings, checked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from clipneurons.adversarial.cue_filter import CueFilter
from clipneurons.adversarial.methods import INDIRECT, METHODS, SECOND_ORDER
from clipneurons.bundle.stacked_units import Decomposition
from clipneurons.text.class_names import names, tokens

MAX_NAME = 60
MAX_WORDS = 200


@dataclass(frozen=True)
class CueRequest:
    """Cues of one class pair by one method.

    Attributes:
        true_class: what the picture shows.
        target_class: what it shall be read as.
        layers: layers whose units take part; by default all of the bundle.
        neurons: number of units.
        words: number of positive and of negative cues.
        method: one of ``methods.METHODS``.
        rules: which phrases may be cues.
        decompositions: what takes the place of the bundle's directions and phrases.
        seed: of the random baselines.

    Raises:
        ValueError: empty or equal classes, an unknown method, counts out of range.
    """

    true_class: str
    target_class: str
    layers: Sequence[int] | None = None
    neurons: int = 100
    words: int = 25
    method: str = SECOND_ORDER
    rules: CueFilter = field(default_factory=CueFilter)
    decompositions: Mapping[int, Decomposition] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for side in ("true_class", "target_class"):
            object.__setattr__(self, side, check_name(getattr(self, side)))
        if self.method not in METHODS:
            raise ValueError(f"method must be one of {', '.join(METHODS)}, not {self.method!r}")
        true, target = self.true_class, self.target_class
        if names(true, target) or names(target, true):
            raise ValueError(
                f"{true!r} and {target!r} name each other: expected two different classes"
            )
        if self.neurons < 1:
            raise ValueError(f"expected at least 1 neuron, not {self.neurons}")
        if not 1 <= self.words <= MAX_WORDS:
            raise ValueError(f"expected 1 to {MAX_WORDS} words, not {self.words}")
        if (self.method == INDIRECT) != (self.decompositions is not None):
            raise ValueError(
                f"the method {INDIRECT!r}, and no other, needs `decompositions` "
                "(clipneurons.statistics.indirect_decomposition)"
            )


def check_name(text: str, what: str = "class name") -> str:
    """The text in one line, refused when empty or longer than ``MAX_NAME`` characters."""
    name = " ".join(str(text).split())
    if not tokens(name):
        raise ValueError(f"the {what} is empty: expected a word or a short phrase")
    if len(name) > MAX_NAME or not name.isprintable():
        raise ValueError(
            f"the {what} {name[:20]!r}... has {len(name)} characters: expected at most {MAX_NAME}, "
            "all printable"
        )
    return name
