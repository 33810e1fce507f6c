"""What a model was seen to do in pictures of cues; made by `cue_recorder.record_cues`."""

from collections.abc import Mapping
from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class CueRecordings:
    """What pictures of a cue beside other objects have beyond those of all cues, on average.

    No class pair is known when they are made: one recording serves all pairs.

    Attributes:
        row: of each phrase of the pool its row in what follows, -1 where it cannot be drawn;
            phrases that are drawn alike share one.
        effects: by layer, ⟨φ_n(I), r_n⟩ of each unit, centred on the mean over the cues.
        embeddings: the whole unit-norm embedding, centred alike, which knows of no neurons.
    """

    row: Int[Tensor, " text"]
    effects: Mapping[int, Float[Tensor, "cue unit"]]
    embeddings: Float[Tensor, "cue embed"]
