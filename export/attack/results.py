"""What an attack leaves on disk: rows that a stopped run goes on from, images, contact sheets."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

from clipneurons.adversarial.attack import Outcome
from clipneurons.adversarial.descriptions import Description
from clipneurons.bundle.folders import write_atomic
from export.attack.options import SHOWN
from export.common.errors import UserError
from export.common.lock import exclusive

SETTINGS, RESULTS, CUES = "settings.json", "results.csv", "cues.json"
_LOCK = "lock"
COLUMNS = (
    "true_class", "target_class", "method", "seed", "number", "image_seed", "description", "cues",
    "objects", "presence", "duplicate", "fooled", "margin", "predicted", "transfer", "file",
)  # fmt: skip
_TILE, _LABEL = 96, 150


@dataclass(frozen=True)
class Cell:
    """One class pair, one method, one seed."""

    pair: tuple[str, str]
    method: str
    seed: int


class AttackFolder:
    """The output folder of an attack; nothing is written before `begin`.

    Raises:
        UserError: the folder holds another attack, with how the two differ.
    """

    def __init__(self, folder: Path, settings: Mapping[str, object]):
        self.folder = folder
        self._settings = json.dumps(settings, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
        self._check()

    @contextmanager
    def begin(self) -> Iterator[None]:
        """Hold the folder against other processes and note the settings.

        Called once what is wrong with the settings has shown: only their own rows go on.

        Raises:
            UserError: another process is at work in the folder.
        """
        with exclusive(self.folder / _LOCK, self.folder):
            self._check()  # another attack may have ended here meanwhile
            write_atomic(self.folder / SETTINGS, self._settings.encode())
            self._drop_cut_line()
            yield

    def outcomes(self) -> dict[Cell, list[Outcome]]:
        """What is done so far.

        Raises:
            UserError: the rows are damaged.
        """
        outcomes: dict[Cell, list[Outcome]] = {}
        try:
            for row in self._rows():
                outcomes.setdefault(_cell(row), []).append(_outcome(row))
        except (KeyError, ValueError, TypeError, AttributeError, csv.Error) as error:
            raise UserError(
                f"{self.folder / RESULTS} is damaged ({type(error).__name__}: {error}): name a new "
                "--out folder"
            ) from None
        return outcomes

    def _check(self) -> None:
        file = self.folder / SETTINGS
        if file.exists():
            _same_settings(file, json.loads(self._settings))
        elif self.folder.exists() and any(f.name != _LOCK for f in self.folder.iterdir()):
            raise UserError(
                f"--out {self.folder} is not empty and holds no attack: name a new folder"
            )

    def forget(self, cells: Sequence[Cell]) -> None:
        """Drop the rows of cells that have to start again."""
        rows = [row for row in self._rows() if _cell(row) not in cells]
        part = self.folder / f"{RESULTS}.part"
        with part.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(rows)
        part.replace(self.folder / RESULTS)

    def add(self, cell: Cell, first: int, outcomes: Sequence[Outcome], keep: str) -> None:
        """Append outcomes, the first of them number ``first`` of its cell, and their images."""
        rows = []
        for number, outcome in enumerate(outcomes, start=first):
            file = self.image_file(cell, number)
            wanted = keep == "all" or (keep == "successes" and outcome.success)
            shown = cell.seed == 0 and number < SHOWN
            if outcome.image is not None and (wanted or shown):
                file.parent.mkdir(parents=True, exist_ok=True)
                outcome.image.save(file, compress_level=1)
            else:
                file = None
            rows.append(_row(cell, number, outcome, file and file.relative_to(self.folder)))
        results = self.folder / RESULTS
        new = not results.exists()
        with results.open("a", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            if new:
                writer.writeheader()
            writer.writerows(rows)

    def image_file(self, cell: Cell, number: int) -> Path:
        """Where an image is kept."""
        pair = f"{slug(cell.pair[0])}-as-{slug(cell.pair[1])}"
        name = f"seed{cell.seed}-{number:04d}.png"
        return self.folder / "images" / pair / slug(cell.method) / name

    def images(self, cell: Cell, count: int) -> list[Image.Image] | None:
        """The first images of a cell, or None unless all of them were kept."""
        files = [self.image_file(cell, number) for number in range(count)]
        if not all(file.is_file() for file in files):
            return None
        return [_read(file) for file in files]

    def contact_sheet(
        self, pair: tuple[str, str], methods: Sequence[str], done: Mapping[Cell, list[Outcome]]
    ) -> Path:
        """A row a method, its first images; those that fool the model are framed in orange."""
        sheet = Image.new("RGB", (_LABEL + SHOWN * _TILE, len(methods) * _TILE), "white")
        draw = ImageDraw.Draw(sheet)
        for row, method in enumerate(methods):
            cell = Cell(pair, method, 0)
            draw.text((6, row * _TILE + _TILE // 2 - 6), method, fill="black", font_size=13)
            for number, outcome in enumerate(done.get(cell, [])[:SHOWN]):
                file = self.image_file(cell, number)
                if not file.is_file():
                    continue
                frame = "#e66100" if outcome.success else "#d8d8d8"
                tile = Image.new("RGB", (_TILE - 4, _TILE - 4), frame)
                side = _TILE - 12
                tile.paste(_read(file).resize((side, side)), (4, 4))
                sheet.paste(tile, (_LABEL + number * _TILE + 2, row * _TILE + 2))
        file = self.folder / f"contact-{slug(pair[0])}-as-{slug(pair[1])}.png"
        sheet.save(file)
        return file

    def _drop_cut_line(self) -> None:
        """A run that was killed may have written half a line."""
        file = self.folder / RESULTS
        if file.exists():
            data = file.read_bytes()
            whole = data[: data.rfind(b"\n") + 1]
            if whole != data:
                file.write_bytes(whole)

    def _rows(self) -> Iterator[dict[str, str]]:
        file = self.folder / RESULTS
        if not file.exists():
            return
        with file.open(newline="") as lines:
            yield from csv.DictReader(lines)


def _read(file: Path) -> Image.Image:
    with Image.open(file) as image:
        return image.convert("RGB")


def check_space(folder: Path, images: int, side: int) -> None:
    """Refuse to begin where the images would not fit.

    Raises:
        UserError: less free space than the images may take.
    """
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    needed = images * side * side * 3 + 10_000_000  # noise, which PNG cannot compress
    if free < needed:
        raise UserError(
            f"{images} images of {side} x {side} may take {needed / 1e6:.0f} MB, {existing} "
            f"has {free / 1e6:.0f} MB free: use --keep successes, fewer --images or another --out"
        )


def slug(text: str) -> str:
    """A text as part of a file name; different texts may give the same."""
    return re.sub(r"[^\w]+", "-", text.casefold()).strip("-")[:60] or "x"


def _same_settings(file: Path, wanted: Mapping[str, object]) -> None:
    try:
        noted = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):  # empty, cut off, no UTF-8
        noted = None
    if not isinstance(noted, dict):
        raise UserError(
            f"{file} is empty or damaged: delete {file.parent}, or name a new --out folder"
        )
    names = sorted(set(noted) | set(wanted))
    changed = [n for n in names if noted.get(n) != wanted.get(n)]
    if changed:
        differences = "; ".join(f"{n}: {noted.get(n)!r}, now {wanted.get(n)!r}" for n in changed)
        raise UserError(
            f"{file.parent} holds an attack with other settings ({differences[:300]}): name a new "
            "--out folder, or repeat the old command to go on with it"
        )


def _cell(row: Mapping[str, str]) -> Cell:
    return Cell((row["true_class"], row["target_class"]), row["method"], int(row["seed"]))


def _row(cell: Cell, number: int, outcome: Outcome, file: Path | None) -> dict[str, object]:
    return {
        "true_class": cell.pair[0],
        "target_class": cell.pair[1],
        "method": cell.method,
        "seed": cell.seed,
        "number": number,
        "image_seed": outcome.seed,
        "description": outcome.description.text,
        "cues": "|".join(outcome.description.cues),
        "objects": "" if outcome.objects is None else "|".join(outcome.objects),
        "presence": outcome.presence,
        "duplicate": int(outcome.duplicate),
        "fooled": int(outcome.fooled),
        "margin": f"{outcome.margin:.6f}",
        "predicted": outcome.predicted,
        "transfer": "|".join(f"{name}={int(fooled)}" for name, fooled in outcome.transfer.items()),
        "file": file or "",
    }


def _outcome(row: Mapping[str, str]) -> Outcome:
    transfer = (part.rpartition("=") for part in _split(row["transfer"]))
    return Outcome(
        description=Description(row["description"], _split(row["cues"])),
        seed=int(row["image_seed"]),
        objects=_split(row["objects"]) or None,
        presence=row["presence"],
        duplicate=row["duplicate"] == "1",
        fooled=row["fooled"] == "1",
        margin=float(row["margin"]),
        predicted=row["predicted"],
        transfer={name: value == "1" for name, _, value in transfer},
    )


def _split(text: str) -> tuple[str, ...]:
    return tuple(text.split("|")) if text else ()
