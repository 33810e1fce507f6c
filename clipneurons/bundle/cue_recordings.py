"""`cues.safetensors`: effects of units in images of cues.

An optional file; made by `clipneurons.adversarial.cue_recorder.record_cues`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from jaxtyping import Float, Int
from safetensors.torch import save
from torch import Tensor

from clipneurons.bundle.storage import narrow, read_fields, read_tensor, within

# Units that are kept of each cue in a layer.
LOUDEST = 64


@dataclass(frozen=True, eq=False)
class LayerRecordings:
    """What images of a cue change in a layer; Δ_j^n is ⟨φ_n(I), r_n⟩, less that of all cues.

    written         Σ_n Δ_j^n r_n of all units
    units, effects  the units of largest |Δ_j^n|, the largest first, with Δ_j^n
    """

    written: Float[Tensor, "cue embed"]
    units: Int[Tensor, "cue loudest"]
    effects: Float[Tensor, "cue loudest"]


@dataclass(frozen=True, eq=False)
class CueRecordings:
    """Mean effects in images of a cue beside other objects, less those of all cues.

    No class pair is known when they are made: one recording serves all pairs.

    row         of each text of the pool its row in what follows, −1 where it cannot be drawn;
                texts that are drawn alike share one
    layers      effects of the units of each layer
    embeddings  the whole unit-norm embedding, centred alike: the control without neurons
    """

    row: Int[Tensor, " text"]
    layers: Mapping[int, LayerRecordings]
    embeddings: Float[Tensor, "cue embed"]


_COLUMNS = tuple(LayerRecordings.__dataclass_fields__)


def to_bytes(recordings: CueRecordings, schema: int, half: bool = False) -> bytes:
    """The file's bytes; the same recordings give the same bytes. `half`: in float16."""
    tensors = {"row": recordings.row, "embeddings": recordings.embeddings}
    for layer, mine in recordings.layers.items():
        tensors |= {f"layer{layer}.{name}": getattr(mine, name) for name in _COLUMNS}
    stored = {name: narrow(value, half).contiguous() for name, value in tensors.items()}
    return save(stored, {"schema_version": str(schema)})


def from_tensors(tensors: Mapping[str, Tensor], layers: tuple[int, ...]) -> CueRecordings:
    """The inverse of `to_bytes`; `KeyError` names a tensor that is missing."""
    return CueRecordings(
        row=read_tensor(tensors, "row", Int[Tensor, " text"]),
        layers={
            layer: LayerRecordings(**read_fields(LayerRecordings, tensors, f"layer{layer}."))
            for layer in layers
        },
        embeddings=read_tensor(tensors, "embeddings", Float[Tensor, "cue embed"]),
    )


def problems(
    recordings: CueRecordings, units: Mapping[int, int], texts: int, embed: int
) -> list[str]:
    """What is wrong with recordings, in words: shapes, rows and units that are not there."""
    if set(recordings.layers) != set(units):
        return [f"cues of layers {sorted(recordings.layers)}, of {sorted(units)}"]
    cues, wrong = len(recordings.embeddings), []
    expected = {
        "row": (recordings.row, (texts,)),
        "embeddings": (recordings.embeddings, (cues, embed)),
    }
    bounds = {"row": (recordings.row, -1, cues)}
    for layer, mine in recordings.layers.items():
        loudest = min(LOUDEST, units[layer])
        expected |= {
            f"layer {layer} written": (mine.written, (cues, embed)),
            f"layer {layer} units": (mine.units, (cues, loudest)),
            f"layer {layer} effects": (mine.effects, (cues, loudest)),
        }
        bounds[f"layer {layer} units"] = mine.units, 0, units[layer]
    for name, (value, shape) in expected.items():
        if tuple(value.shape) != shape:
            wrong.append(f"cues' {name} is {tuple(value.shape)}, expected {shape}")
        elif value.is_floating_point() and not bool(value.isfinite().all()):
            wrong.append(f"cues' {name} holds values that are not finite")
    for name, (value, first, end) in bounds.items():
        if not within(value, first, end):
            wrong.append(f"cues' {name} is not all from {first} to below {end}")
    return wrong
