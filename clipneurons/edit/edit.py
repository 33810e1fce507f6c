"""Edits: effects of units scaled about their means, as a value that can be saved and applied."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from clipneurons.bundle.bundle import Bundle
from clipneurons.bundle.config import BundleError, parse_json
from clipneurons.dictionary.dictionary import Phrase
from clipneurons.dictionary.search import dictionary_of
from clipneurons.lens.base import SCALE
from clipneurons.lens.contributions import Contributions

SCHEMA_VERSION = 1
# What a factor scales about: the unit's mean over the bundle's data, or over the images that the
# edit was found on.
DATA, IMAGES = "data", "images"
_LARGEST = 1000  # factor or coefficient, either way


class EditError(BundleError):
    """An edit that cannot be read or applied; the message says what was expected."""


@dataclass(frozen=True)
class UnitFactor:
    """One unit's factor: 0 ablates its effect to the mean, 1 leaves it, 2 doubles what differs."""

    layer: int
    unit: int
    factor: float = 0.0


@dataclass(frozen=True)
class WordFactor:
    """The factor of all units that say a word with a coefficient of more than `more_than`."""

    words: str
    more_than: float = 0.0
    factor: float = 0.0


@dataclass(frozen=True)
class Edit:
    """Factors of units of one model; a unit's own factor goes before that of its words.

    `weights_sha256` is the model's, as in its bundle's `config.json`; `means` says what factors
    scale about, `DATA` or `IMAGES`.
    """

    weights_sha256: str
    units: tuple[UnitFactor, ...] = ()
    words: tuple[WordFactor, ...] = ()
    means: str = DATA

    def __post_init__(self) -> None:
        if self.means not in (DATA, IMAGES):
            raise EditError(f'means of {self.means!r}: expected "{DATA}" or "{IMAGES}"')
        for one in (*self.units, *self.words):
            if not abs(one.factor) <= _LARGEST:
                raise EditError(
                    f"a factor of {one.factor}: expected a finite number, such as 0, from"
                    f" {-_LARGEST} to {_LARGEST}"
                )
        for one in self.words:
            if not abs(one.more_than) <= _LARGEST or not one.words.strip():
                raise EditError(f"{one}: expected words, and a finite number that they exceed")
        places = Counter((one.layer, one.unit) for one in self.units)
        for (layer, unit), count in places.items():
            if count > 1:
                raise EditError(f"layer {layer}, unit {unit} has {count} factors: expected one")

    @classmethod
    def ablating(cls, bundle: Bundle, units: list[tuple[int, int]], means: str = DATA) -> Edit:
        """Mean-ablate some (layer, unit) of a bundle's model."""
        found = tuple(UnitFactor(layer, unit) for layer, unit in units)
        return cls(bundle.config.weights_sha256, found, means=means)

    def factors(self, bundle: Bundle) -> dict[int, Float[Tensor, " unit"]]:
        """Factors of all units of the bundle's layers that the edit changes, by layer.

        Raises `EditError` for another model's bundle, and for units and words it does not have.
        """
        if self.weights_sha256 != bundle.config.weights_sha256:
            raise EditError(
                f"the edit is of a model with weights {self.weights_sha256[:12]}, the bundle's are "
                f"{bundle.config.weights_sha256[:12]}: expected an edit of this bundle's model"
            )
        dictionary = dictionary_of(bundle)
        factors = torch.ones(len(dictionary.directions))
        try:
            for rule in self.words:
                said = dictionary.coefficient_scores([Phrase(rule.words)])
                factors[said > rule.more_than] = rule.factor
            for one in self.units:
                factors[dictionary.row(one.layer, one.unit)] = one.factor
        except ValueError as error:
            raise EditError(str(error)) from None
        parts = factors.split([dictionary.units(layer) for layer in dictionary.layers])
        return {
            layer: part
            for layer, part in zip(dictionary.layers, parts, strict=True)
            if bool((part != 1).any())
        }

    def to_json(self) -> str:
        """Text from which `from_json` gives the same edit."""
        return json.dumps({"schema_version": SCHEMA_VERSION} | asdict(self), indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Edit:
        """The inverse of `to_json`; `EditError` names what is wrong."""
        try:
            values = parse_json(text, "the edit")
        except BundleError as error:
            raise EditError(str(error)) from None
        version = values.pop("schema_version", None)
        if version != SCHEMA_VERSION:
            raise EditError(f"expected an edit of schema version {SCHEMA_VERSION}, not {version}")
        values |= {
            name: tuple(_typed(cls_, one) for one in _list(values.get(name, []), name))
            for name, cls_ in (("units", UnitFactor), ("words", WordFactor))
        }
        return _typed(cls, values)


def apply_edit(
    representation: Float[Tensor, "image embed"],
    contributions: Mapping[int, Contributions],
    factors: Mapping[int, Float[Tensor, " unit"]],
    means: Mapping[int, Float[Tensor, "unit embed"]],
) -> Float[Tensor, "image embed"]:
    """Image embeddings of norm about 100 with each effect φ replaced by b + f·(φ − b).

    Effects of several layers are replaced independently of each other, as if no later layer read
    what an earlier one writes; `fold` shows what the model does.

    Args:
        representation: image embeddings, not normalised.
        contributions: by layer, to these images.
        factors: f, by layer; see `Edit.factors`.
        means: b, mean effects by layer, on the scale of effects.
    """
    edited = SCALE * representation / representation.norm(dim=-1, keepdim=True)
    for layer, factor in factors.items():
        change = factor.to(edited) - 1
        mine = contributions[layer]
        edited = (
            edited + mine.sum(change.expand(len(edited), -1)) - change @ means[layer].to(edited)
        )
    return edited


def _list(value: Any, name: str) -> list:
    if not isinstance(value, list):
        raise EditError(f"{name} of an edit: expected a list, not {value!r}")
    return value


_TYPES = {"int": int, "float": (int, float), "str": str}


def _typed(cls: type, values: Any) -> Any:
    """A dataclass from a JSON object whose keys and types must fit."""
    names = {f.name: f.type for f in fields(cls)}
    if not isinstance(values, dict) or not set(values) <= set(names):
        raise EditError(f"expected an object with some of {', '.join(names)}, not {values!r}")
    for name, value in values.items():
        expected = _TYPES.get(names[name])
        if expected and (not isinstance(value, expected) or isinstance(value, bool)):
            raise EditError(f"{name} of {values!r}: expected a {names[name]}")
    try:
        return cls(**values)
    except TypeError as error:
        raise EditError(f"{values!r}: {error}") from None
