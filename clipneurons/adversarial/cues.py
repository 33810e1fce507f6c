"""Cues that make a CLIP read one class as another (2406.04341, section 5.1).

Neurons that write along the difference of two class texts also write other phrases; those
phrases, put into a picture of the first class, push it toward the second.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from jaxtyping import Float
from torch import Tensor

from clipneurons.adversarial.cue_request import CueRequest
from clipneurons.adversarial.cue_scores import SCORERS, CueNeuron
from clipneurons.bundle.bundle import Bundle
from clipneurons.models.clip import ClipModel
from clipneurons.text.embedding import embed_texts

# Plain enough for models that never read the word "photo".
CLASS_TEMPLATES = ("a {}", "a picture of a {}")


@dataclass(frozen=True)
class Cue:
    """A phrase with its contribution score (positive: toward the target class)."""

    text: str
    score: float
    neurons: tuple[CueNeuron, ...] = ()


@dataclass(frozen=True)
class Cues:
    """Phrases that push toward (positive) or away from (negative) the target class.

    ``dropped`` holds (phrase, reason) of those that scored high enough but may not be used.
    """

    true_class: str
    target_class: str
    method: str
    positive: tuple[Cue, ...]
    negative: tuple[Cue, ...]
    dropped: tuple[tuple[str, str], ...] = ()

    @property
    def words(self) -> list[str]:
        """The positive cues' phrases, strongest first."""
        return [cue.text for cue in self.positive]


def find_cues(
    bundle: Bundle,
    clip: ClipModel,
    request: CueRequest,
    difference: Float[Tensor, " embed"] | None = None,
) -> Cues:
    """Phrases whose presence should turn the true class into the target one.

    With v = M_text(target) − M_text(true), the ``neurons`` units of largest |⟨v, r_n⟩| give each
    phrase j the score w_j = Σ_n γ_j^n ⟨v, r_n⟩ (2406.04341, section 5.1). "dense effects" is ours:
    all units and all that they write, w_j = Σ_n s_n² ⟨t_j, r_n⟩ ⟨v, r_n⟩ with s_n the size of a
    unit's largest effects. "tested labels", ours too, takes from the labels what makes a unit act:
    w_j = Σ_n c_j^n s_n ⟨v, r_n⟩ with a label's coefficients c. "recorded effects", ours, has seen
    pictures of every phrase: w_j = Σ_n Δ_j^n ⟨v, r_n⟩ with what the units do in them.

    The baselines differ in one thing each: "random neurons" in the choice of units, "indirect
    effect" in ``decompositions`` (see `indirect_decompositions`), "similar words" scores a phrase
    by ⟨t_j, v⟩, "recorded embeddings" by the same pictures without the neurons, "random words" by
    chance, "no cues" is empty.

    Args:
        bundle: dictionary of the model's units.
        clip: the model under attack, for the class texts.
        request: the classes, the method and its settings.
        difference: v, where the class texts are embedded already.

    Raises:
        ValueError: a layer that the bundle does not have, labels that were not tested, or cues of
            which no pictures were read.
    """
    request = replace(request, layers=chosen_layers(bundle, request.layers))
    pair = (request.true_class, request.target_class)
    if difference is None:
        true_text, target_text = embed_texts(clip, list(pair), CLASS_TEMPLATES)
        difference = target_text - true_text
    found = SCORERS[request.method](bundle, request, difference.cpu())
    keys = request.rules.keys(bundle.texts)

    def best(sign: int) -> tuple[tuple[Cue, ...], list[tuple[str, str]]]:
        kept, dropped = request.rules.strongest(
            bundle.texts, keys, sign * found.scores, request.words, *pair
        )
        cues = (Cue(bundle.texts[j], float(found.scores[j]), found.behind(j)) for j in kept)
        return tuple(cues), dropped

    positive, dropped = best(+1)
    negative, _ = best(-1)
    return Cues(*pair, request.method, positive, negative, tuple(dropped))


def chosen_layers(bundle: Bundle, layers: Sequence[int] | None) -> list[int]:
    """The layers, or all of the bundle; raises ValueError for one that it does not have."""
    known = list(bundle.layers)
    chosen = known if layers is None else list(dict.fromkeys(layers))
    unknown = [layer for layer in chosen if layer not in known]
    if unknown or not chosen:
        raise ValueError(f"expected layers among {known}, the bundle's own, not {list(chosen)}")
    return chosen
