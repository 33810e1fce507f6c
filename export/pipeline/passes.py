"""Two passes over the images, resumable at any moment, in one process or many.

Pass 1 sums the scores, pass 2 keeps the largest effects around the mean. The state of either is
written every half minute; a run that was killed goes on from there and ends with the same bytes,
because batches are numbered, added in order, and computed the same way each time.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from clipneurons.lens.contributions import Contributions
from clipneurons.lens.make import Lens
from clipneurons.statistics.effect_statistics import EffectStatistics, UnitStatistics
from clipneurons.statistics.streaming.running_mean import RunningMean
from export.common.errors import UserError
from export.common.settings import SINGLE, Settings, Shard
from export.data.dataset import Source
from export.data.loader import Batch, batches
from export.pipeline.checkpoints import ScoreCache, State, by_layer

# Seconds between two checkpoints: what a kill can cost.
EVERY = 30.0


@dataclass(frozen=True)
class Passes:
    """What both passes need; `folder` holds this shard's checkpoints and cached scores."""

    lens: Lens
    source: Source
    settings: Settings
    folder: Path
    shard: Shard = SINGLE
    cache: bool = True
    workers: int = 1
    reached: Callable[[str], None] = lambda point: None  # tests stop the run here

    @property
    def total(self) -> int:
        """Number of batches of the whole data set."""
        return -(-len(self.source) // self.settings.batch)

    @property
    def numbers(self) -> range:
        """This shard's batches."""
        return self.shard.numbers(self.total)

    @property
    def _scores(self) -> ScoreCache:
        return ScoreCache(self.folder / "scores", self.lens.clip.device)

    def _device(self) -> torch.device:
        return self.lens.clip.device

    def means(self) -> State:
        """Pass 1 over this shard: sums of scores, images read and skipped, their digests."""
        path = self.folder / "pass1.safetensors"
        progress = MeanPass.from_state(State.load(path, self._device()))
        for batch in self._timed(progress.done, path, progress, "pass 1"):
            layers = self._read(batch)
            if self.cache:
                layers = {layer: effects.scored() for layer, effects in layers.items()}
                self._scores.put(batch.number, batch.ids, layers)
            progress.add(batch, layers)
            del layers  # before those of the next batch are made
        return progress.state()

    def effects(self, merged: State) -> State:
        """Pass 2 over this shard: the largest effects around the mean of the whole data set."""
        path = self.folder / "pass2.safetensors"
        progress = EffectPass(self.lens, merged, self.settings, State.load(path, self._device()))
        cached = [n for n in self.numbers[progress.done :] if self.cache and self._scores.has(n)]
        fresh = self._batches(sorted(set(self.numbers[progress.done :]) - set(cached)))
        cached = set(cached)
        with self._bar(progress.done, "pass 2") as bar:
            saved = time.monotonic()
            for number in self.numbers[progress.done :]:
                if number in cached:
                    ids, layers = self._scores.get(number, self.lens.directions)
                else:
                    batch = next(fresh)
                    ids = batch.ids
                    layers = self._read(batch)
                progress.add(ids, layers)
                del layers
                bar.update(self._size(number))
                self.reached("pass 2")
                if time.monotonic() - saved >= EVERY:
                    progress.state().save(path)
                    saved = time.monotonic()
        progress.state().save(path)
        return progress.state()

    def _timed(self, done: int, path: Path, progress: MeanPass, name: str) -> Iterator:
        """Fresh batches of this shard, with progress shown and the state saved in between."""
        saved = time.monotonic()
        with self._bar(done, name) as bar:
            for batch in self._batches(self.numbers[done:]):
                yield batch
                bar.update(self._size(batch.number))
                self.reached(name)
                if time.monotonic() - saved >= EVERY:
                    progress.state().save(path)
                    saved = time.monotonic()
        progress.state().save(path)

    def _read(self, batch: Batch) -> dict[int, Contributions]:
        return {} if batch.images is None else self.lens(batch.images)[1]

    def _batches(self, numbers: Sequence[int]) -> Iterator:
        return batches(
            self.source, self.lens.clip.preprocess, numbers, self.settings.batch, self.workers
        )

    def _size(self, number: int) -> int:
        size = self.settings.batch
        return min((number + 1) * size, len(self.source)) - number * size

    def _bar(self, done: int, name: str) -> tqdm:
        total = sum(map(self._size, self.numbers))
        first = sum(map(self._size, self.numbers[:done]))
        return tqdm(total=total, initial=first, desc=name, unit="images", disable=None)


@dataclass
class MeanPass:
    """Progress of pass 1: `done` batches of the shard, in order."""

    means: dict[int, RunningMean] = field(default_factory=dict)
    done: int = 0
    count: int = 0
    digests: dict[int, str] = field(default_factory=dict)
    skipped: list[list] = field(default_factory=list)

    def add(self, batch, layers: dict[int, Contributions]) -> None:
        """Add a batch of images."""
        for layer, mine in layers.items():
            self.means.setdefault(layer, RunningMean()).update(mine)
        self.done += 1
        self.count += len(batch.ids)
        self.digests[batch.number] = batch.digest.hex()
        self.skipped += [list(entry) for entry in batch.skipped]

    def state(self) -> State:
        """For a checkpoint, another process or the second pass."""
        digests = {str(number): digest for number, digest in self.digests.items()}
        return State(
            by_layer({layer: mean.state_dict() for layer, mean in self.means.items()}),
            {
                "done": self.done,
                "count": self.count,
                "digests": digests,
                "skipped": self.skipped,
                "layers": list(self.means),
            },
        )

    @classmethod
    def from_state(cls, state: State | None) -> MeanPass:
        """The inverse of `state`; from None, the beginning."""
        if state is None:
            return cls()
        note = state.note
        means = {}
        for layer in note["layers"]:
            means[layer] = RunningMean()
            means[layer].load_state_dict(state.of(layer))
        digests = {int(number): digest for number, digest in note["digests"].items()}
        return cls(means, note["done"], note["count"], digests, note["skipped"])

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the digests of all batches in order."""
        ordered = "".join(self.digests[number] for number in sorted(self.digests))
        return hashlib.sha256(ordered.encode()).hexdigest()


def merge_means(states: Sequence[State], total: int) -> State:
    """Pass 1 of the whole data set from that of every shard, in the order given.

    Raises `UserError` when batches are missing or more than half of the images were skipped.
    """
    merged = MeanPass()
    for state in states:
        part = MeanPass.from_state(state)
        for layer, mean in part.means.items():
            merged.means.setdefault(layer, RunningMean()).merge(mean)
        merged.done += part.done
        merged.count += part.count
        merged.digests |= part.digests
        merged.skipped += part.skipped
    merged.skipped.sort()
    if len(merged.digests) != total:
        raise UserError(f"{len(merged.digests)} of {total} batches are done: run every shard first")
    images = merged.count + len(merged.skipped)
    if len(merged.skipped) * 2 > images:
        first = "; ".join(f"{name}: {reason}" for _, name, reason in merged.skipped[:3])
        raise UserError(
            f"{len(merged.skipped)} of {images} images cannot be read, more than half: {first}"
        )
    return merged.state()


class EffectPass:
    """Progress of pass 2 around the mean that `merged` holds."""

    def __init__(
        self, lens: Lens, merged: State, settings: Settings, state: State | None = None
    ) -> None:
        whole = MeanPass.from_state(merged)
        self.done = 0
        self.layers = {
            layer: EffectStatistics(
                mean.mean(),
                lens.directions[layer],
                whole.count,
                settings.top_k,
                settings.percentile,
            )
            for layer, mean in sorted(whole.means.items())
        }
        if state is not None:
            self.done = state.note["done"]
            for layer, statistics in self.layers.items():
                statistics.load_state_dict(state.of(layer))

    def add(self, ids: Tensor, layers: dict[int, Contributions]) -> None:
        """Add a batch of images."""
        for layer, mine in layers.items():
            self.layers[layer].update(mine, ids)
        self.done += 1

    def merge(self, other: EffectPass) -> None:
        """Add what another shard saw."""
        for layer, statistics in self.layers.items():
            statistics.merge(other.layers[layer])
        self.done += other.done

    def state(self) -> State:
        """For a checkpoint or another process."""
        layers = {layer: mine.state_dict() for layer, mine in self.layers.items()}
        return State(by_layer(layers), {"done": self.done})


def merge_effects(
    lens: Lens, merged: State, settings: Settings, states: Sequence[State]
) -> dict[int, UnitStatistics]:
    """Statistics of all units from pass 2 of every shard."""
    whole = EffectPass(lens, merged, settings, states[0])
    for state in states[1:]:
        whole.merge(EffectPass(lens, merged, settings, state))
    return {layer: mine.finish() for layer, mine in whole.layers.items()}
