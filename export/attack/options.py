"""What an attack on class pairs was asked to do."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from clipneurons.adversarial.cue_request import NEURONS

COMPOSER, PHOTOGRAPHS, TEMPLATES, ALL = "composer", "photographs", "templates", "all"
# Images of a cell's first seed that are always kept, for the contact sheet.
SHOWN = 10


@dataclass(frozen=True)
class AttackOptions:
    """Options of `export.attack.run`; `export.commands.attack` says what each means."""

    out: Path
    bundle: str = "artifacts/mini-vit"
    true: str | None = None
    target: str | None = None
    pairs: str | None = None
    methods: str = ALL
    images: int = 100
    seeds: int = 3
    layers: str | None = None
    neurons: int = NEURONS
    cues: int = 25
    cues_per_image: int = 3
    block: str = ""
    similarity: str = "auto"
    describer: str = TEMPLATES
    generator: str = COMPOSER
    pack: str | None = None
    heldout: bool = False
    steps: int | None = None
    guidance: float | None = None
    size: int | None = None
    offload: bool = False
    device: str | None = None
    others: str = ""
    transfer: list[str] = field(default_factory=list)
    second_opinion: str | None = None
    keep: str = "successes"
