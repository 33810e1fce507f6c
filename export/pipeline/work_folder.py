"""The work folder beside `--out`: settings, checkpoints and cached scores of an unfinished run."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from clipneurons.bundle.bundle import Bundle, bundle_files
from clipneurons.bundle.config import NEURONS
from clipneurons.bundle.folders import file_sha256, write_atomic
from export.common.errors import UserError
from export.common.lock import exclusive
from export.common.settings import Settings, Shard
from export.data.dataset import Source, stamps

_PLAN, _FINISHING = "plan.json", "finishing.json"
# Raised whenever what checkpoints hold changes: a run does not go on from what it cannot read.
_CHECKPOINTS = 3
_NAMED = 3  # images that are named, of those that differ


def plan_of(
    settings: Settings, weights: str, source: Source, shards: int | None = None
) -> dict[str, Any]:
    """What must be the same for a run to go on: settings, the model's digest, the images' files.

    And the n of `--shard i/n`, where it is one job of an array, and the kind of the checkpoints.
    """
    plan = {"settings": json.loads(settings.to_json()), "weights": weights}
    plan |= {"images": len(source), "stamps": stamps(source)}
    plan["checkpoints"] = _CHECKPOINTS
    return plan | ({"shards": shards} if shards else {})


class Work:
    """Files of the run that will end in `out`; the same for all its shards and ranks."""

    def __init__(self, out: Path) -> None:
        self.out = out
        folder = out.resolve()  # of a link, what it leads to: that is what will be replaced
        self.folder = folder.parent / f".{folder.name}.work"

    @property
    def means(self) -> Path:
        """Where `export merge` puts the mean of all shards."""
        return self.folder / "means.safetensors"

    def shard(self, shard: Shard) -> Path:
        """The folder of one shard."""
        return self.folder / shard.name

    @contextmanager
    def lock(self, shard: Shard) -> Iterator[None]:
        """Hold the shard against a second process; a kill lets go of it."""
        with exclusive(self.shard(shard) / "lock", self.out):
            yield

    @property
    def began(self) -> bool:
        """Whether a run has begun here and was not cleared up."""
        return (self.folder / _PLAN).is_file()

    def goes_on(self, plan: Mapping[str, Any], restart: bool = False) -> bool:
        """Whether an unfinished run of the same `plan_of` is here; nothing is changed.

        Raises `UserError` for a run of another one, unless it is to be discarded.
        """
        path = self.folder / _PLAN
        old = json.loads(path.read_text()) if path.is_file() else None
        if old not in (None, plan) and not restart:
            raise UserError(
                f"{self.folder} holds an unfinished run with {self._difference(old, plan)}."
                " Run that command again to go on, or add --restart to discard it"
            )
        return old == plan

    def begin(self, plan: Mapping[str, Any], restart: bool = False) -> None:
        """Note the plan where there is none, and discard what another one left."""
        if self.goes_on(plan, restart):
            return
        if self.began:
            for entry in self.folder.iterdir():
                if entry.is_dir():
                    for inner in entry.iterdir():
                        _delete(inner) if inner.name != "lock" else None
                else:
                    _delete(entry)
        text = json.dumps(plan, indent=1, sort_keys=True) + "\n"
        write_atomic(self.folder / _PLAN, text.encode())

    def shards(self) -> list[Shard]:
        """The jobs of the array at work here; raises `UserError` when it is none."""
        count = json.loads((self.folder / _PLAN).read_text()).get("shards", 0)
        if not count:
            raise UserError(
                f"{self.folder} holds a run without --shard: the command that began it goes on"
            )
        return [Shard(index, count) for index in range(count)]

    def check_images(self, source: Source) -> None:
        """Refuse to go on with images that were replaced since the run began."""
        before = json.loads((self.folder / _PLAN).read_text())["stamps"]
        if changed := _changed(before, stamps(source)):
            raise UserError(f"images changed since this run began ({changed}): add --restart")

    def settings(self) -> Settings:
        """The settings of the run at work here; raises `UserError` when there is none."""
        for path in (self.folder / _PLAN, self.folder / _FINISHING):
            if path.is_file():
                return Settings.from_json(json.dumps(json.loads(path.read_text())["settings"]))
        raise UserError(f"no unfinished run for --out {self.out}: start with `export run`")

    def finishing(self, settings: Settings, bundle: Bundle) -> None:
        """Note what is about to be saved, so that a run killed right after it is not repeated."""
        digest = hashlib.sha256(bundle_files(bundle)[NEURONS]).hexdigest()
        note = {"settings": json.loads(settings.to_json()), "neurons": digest}
        write_atomic(self.folder / _FINISHING, json.dumps(note).encode())

    def finished(self, settings: Settings) -> bool:
        """Whether the bundle of this very run is in its place and only clearing up is left."""
        try:
            note = json.loads((self.folder / _FINISHING).read_text())
            digest = file_sha256(self.out / NEURONS)
        except FileNotFoundError:
            return False
        return note == {"settings": json.loads(settings.to_json()), "neurons": digest}

    def remove(self) -> None:
        """Clear up; the note that lets the next run clear up after a kill goes last."""
        entries = self.folder.iterdir() if self.folder.is_dir() else ()
        for entry in entries:
            if entry.is_dir():
                shutil.rmtree(entry, ignore_errors=True)
            elif entry.name != _FINISHING:
                entry.unlink()
        shutil.rmtree(self.folder, ignore_errors=True)

    @staticmethod
    def _difference(old: dict, new: dict) -> str:
        before, after = (Settings.from_json(json.dumps(x["settings"])) for x in (old, new))
        differences = before.differences(after)
        if old["weights"] != new["weights"]:
            differences.append(f"weights {old['weights'][:12]} and {new['weights'][:12]}")
        if old["images"] != new["images"]:
            differences.append(f"{old['images']} and {new['images']} images")
        if changed := _changed(old.get("stamps", {}), new["stamps"]):
            differences.append(f"images that were replaced since ({changed})")
        if old.get("checkpoints") != new["checkpoints"]:
            differences.append("checkpoints that another version of this program wrote")
        if old.get("shards") != new.get("shards"):
            parts = (
                f"--shard i/{x['shards']}" if "shards" in x else "no --shard" for x in (old, new)
            )
            differences.append(" and ".join(parts))
        return "; ".join(differences)


def _changed(before: Mapping[str, list[int]], now: Mapping[str, list[int]]) -> str:
    """Images that differ, the first of them by name; nothing where none does."""
    names = sorted(n for n in before.keys() | now.keys() if before.get(n) != now.get(n))
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _delete(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()
