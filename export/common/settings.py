"""What a run was asked to do: the same settings give the same bundle."""

from __future__ import annotations

import json
from argparse import ArgumentTypeError
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from export.common.errors import UserError

# Texts a direction is written with, where fidelity is measured over their number.
SIZES = (4, 8, 16, 32, 64, 128)
# Composed scenes that labels are written, chosen and tested on.
LABEL_SCENES = 12_000

DEFAULT_MODEL = "artifacts/mini-vit"


def read_text(path: Path) -> str:
    """The text of a user's file; `UserError` where it is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not UTF-8 text ({error.reason} at byte {error.start}): save it as UTF-8"
        ) from None


@dataclass(frozen=True)
class Settings:
    """Arguments of a run that change its result; kept in the work folder and compared there.

    The order of the fields is that of `--help`; units and meanings are in `export.commands.run`.
    """

    model: str = DEFAULT_MODEL
    pretrained: str | None = None
    activation: str | None = None
    preprocess: str | None = None
    image_size: int | None = None
    precision: str = "fp32"
    device: str | None = None
    images: str = "scenes:3000+photographs"
    split: str | None = None
    limit: int | None = None
    image_key: str | None = None
    seed: int = 0
    layers: tuple[int, ...] = ()
    features: str | None = None
    texts: str | None = None
    components: int = 32
    centred_pool: bool = False
    top_k: int = 100
    percentile: float = 98.0
    shared_bias: bool = False
    storage: str = "float32"
    batch: int = 64
    gallery: int = 9
    gallery_mb: float = 3.0
    heldout: str | None = None
    evaluate: bool = True

    def to_json(self) -> str:
        """Text from which `from_json` gives the same settings."""
        return json.dumps(asdict(self), indent=1, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Settings:
        """The inverse of `to_json`."""
        values = json.loads(text)
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})

    def differences(self, other: Settings) -> list[str]:
        """How two runs differ, a line each."""
        return [
            f"--{f.name.replace('_', '-')} {_show(getattr(self, f.name))} and"
            f" {_show(getattr(other, f.name))}"
            for f in fields(self)
            if getattr(self, f.name) != getattr(other, f.name)
        ]

    def command(self, out: str) -> str:
        """The command line that gives this run, without what is default."""
        parts = ["python -m export run"]
        for f in fields(self):
            value = getattr(self, f.name)
            if value == f.default:
                continue
            flag = f"--{f.name.replace('_', '-')}"
            if isinstance(value, bool):
                parts.append(flag if value else f"--no-{f.name.replace('_', '-')}")
            else:
                parts.append(f"{flag} {_show(value)}")
        return " ".join([*parts, f"--out {out}"])


@dataclass(frozen=True)
class Shard:
    """Part `index` of `count`: the batches whose number is `index` modulo `count`."""

    index: int = 0
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Shard:
        """From `i/n`, i counted from 0; `ArgumentTypeError` for anything else."""
        try:
            index, count = (int(part) for part in text.split("/"))
        except ValueError:
            raise ArgumentTypeError(f"{text!r}: expected i/n, such as 0/8") from None
        if not 0 <= index < count:
            raise ArgumentTypeError(f"{text!r}: i runs from 0 to n - 1")
        return cls(index, count)

    @property
    def name(self) -> str:
        """Its folder in the work folder."""
        return f"shard-{self.index}-of-{self.count}"

    def numbers(self, total: int) -> range:
        """Its batch numbers."""
        return range(self.index, total, self.count)


SINGLE = Shard()


@dataclass(frozen=True)
class RunOptions:
    """Arguments of a run that do not change its result; meanings are in `export.commands.run`."""

    out: Path | None = None
    overwrite: bool = False
    restart: bool = False
    dry_run: bool = False
    shard: Shard | None = None
    cache: bool | None = None
    workers: int = 2
    quiet: bool = False


def _show(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
