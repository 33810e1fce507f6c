"""Two passes over the images, resumable at any moment, in one process or many.

Pass 1 sums the scores, pass 2 keeps the largest effects around the mean. The state of either is
written every half minute; a run that was killed goes on from there and ends with the same bytes,
because batches are numbered, added in order, and computed the same way each time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from clipneurons.lens.contributions import Contributions
from clipneurons.lens.lens import Lens
from clipneurons.progress import Progress
from clipneurons.statistics.effect_statistics import EffectStatistics, UnitStatistics
from clipneurons.statistics.streaming.running_mean import RunningMean
from export.common.errors import UserError
from export.common.settings import SINGLE, Settings, Shard
from export.common.state import State, by_layer
from export.data.dataset import Source
from export.data.loader import Batch, batches, joined_digests
from export.pipeline.score_cache import ScoreCache

# Seconds between two checkpoints: what a kill can cost.
EVERY = 30.0
PASS_1, PASS_2 = "pass1.safetensors", "pass2.safetensors"


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
    progress: Progress | None = None  # told in place of a bar

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

    def means(self) -> MeanPass:
        """Pass 1 over this shard: sums of scores, images read and skipped, their digests."""
        progress = MeanPass.from_state(State.load(self.folder / PASS_1, self._device()))
        fresh = self._batches(self.numbers[progress.done :])
        for _ in self._checkpointed(progress, PASS_1):
            batch = next(fresh)
            layers = self._read(batch)
            if self.cache:
                layers = {layer: effects.scored() for layer, effects in layers.items()}
                self._scores.put(batch.number, batch.ids, layers)
            progress.add(batch, layers)
            del layers  # before those of the next batch are made
        return progress

    def effects(self, means: MeanPass) -> EffectPass:
        """Pass 2 over this shard: the largest effects around the mean of the whole data set."""
        state = State.load(self.folder / PASS_2, self._device())
        progress = EffectPass(self.lens, means, self.settings, state)
        numbers = self.numbers[progress.done :]
        cached = {n for n in numbers if self.cache and self._scores.has(n)}
        fresh = self._batches([n for n in numbers if n not in cached])
        for number in self._checkpointed(progress, PASS_2):
            if number in cached:
                ids, layers = self._scores.get(number, self.lens.directions)
            else:
                batch = next(fresh)
                means.check(batch, self.source.name)
                ids, layers = batch.ids, self._read(batch)
            progress.add(ids, layers)
            del layers
        return progress

    def _checkpointed(self, progress: MeanPass | EffectPass, file: str) -> Iterator[int]:
        """Numbers of the batches that are left, with a progress bar; `progress` is saved every
        `EVERY` seconds and at the end."""
        path, saved = self.folder / file, time.monotonic()
        with self._bar(progress.done, path.stem) as bar:
            for number in self.numbers[progress.done :]:
                yield number
                bar.update(self._size(number))
                if self.progress is not None:
                    done = (number + 1) / self.total
                    self.progress(((file == PASS_2) + done) / 2, path.stem)
                self.reached(path.stem)
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
        hidden = None if self.progress is None else True
        total = sum(map(self._size, self.numbers))
        first = sum(map(self._size, self.numbers[:done]))
        return tqdm(total=total, initial=first, desc=name, unit="images", disable=hidden)


@dataclass
class MeanPass:
    """Progress of pass 1: `done` batches of the shard, in order."""

    layers: dict[int, RunningMean] = field(default_factory=dict)
    done: int = 0
    count: int = 0
    digests: dict[int, str] = field(default_factory=dict)
    skipped: list[list] = field(default_factory=list)
    scaled: int = 0

    def add(self, batch, layers: dict[int, Contributions]) -> None:
        """Add a batch of images."""
        for layer, contributions in layers.items():
            self.layers.setdefault(layer, RunningMean()).update(contributions)
        self.done += 1
        self.count += len(batch.ids)
        self.digests[batch.number] = batch.digest.hex()
        self.skipped += [list(entry) for entry in batch.skipped]
        self.scaled += batch.scaled

    def check(self, batch: Batch, images: str) -> None:
        """Raise `UserError` for a batch whose images are not those of this pass, naming some."""
        if batch.digest.hex() == self.digests[batch.number]:
            return
        before = {name for _, name, _ in self.skipped}
        gone = [f"{name}: {why}" for _, name, why in batch.skipped if name not in before]
        which = "; ".join(gone[:3]) or f"among {batch.captions[0]} to {batch.captions[-1]}"
        raise UserError(
            f"{images} changed between the passes ({which}): put the images back and run the same"
            " command, or add --restart"
        )

    def merge(self, other: MeanPass) -> None:
        """Add what another shard saw."""
        for layer, mean in other.layers.items():
            self.layers.setdefault(layer, RunningMean()).merge(mean)
        self.done += other.done
        self.count += other.count
        self.digests |= other.digests
        self.skipped += other.skipped
        self.scaled += other.scaled

    def state(self) -> State:
        """For a checkpoint or another process."""
        digests = {str(number): digest for number, digest in self.digests.items()}
        return State(
            by_layer({layer: mean.state_dict() for layer, mean in self.layers.items()}),
            {
                "done": self.done,
                "count": self.count,
                "digests": digests,
                "skipped": self.skipped,
                "scaled": self.scaled,
                "layers": list(self.layers),
            },
        )

    @classmethod
    def from_state(cls, state: State | None) -> MeanPass:
        """The inverse of `state`; from None, the beginning."""
        if state is None:
            return cls()
        note = state.note
        layers = {layer: RunningMean() for layer in note["layers"]}
        for layer, mean in layers.items():
            mean.load_state_dict(state.of(layer))
        digests = {int(number): digest for number, digest in note["digests"].items()}
        return cls(layers, note["done"], note["count"], digests, note["skipped"], note["scaled"])

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the digests of all batches in order."""
        return joined_digests(bytes.fromhex(self.digests[n]) for n in sorted(self.digests))


def merge_means(parts: Sequence[MeanPass], total: int) -> MeanPass:
    """Pass 1 of the whole data set of `total` batches from that of every shard.

    Raises `UserError` when batches are missing or more than half of the images were skipped.
    """
    whole = MeanPass()
    for part in parts:
        whole.merge(part)
    whole.skipped.sort()
    if len(whole.digests) != total:
        raise UserError(f"{len(whole.digests)} of {total} batches are done: run every shard first")
    images = whole.count + len(whole.skipped)
    if len(whole.skipped) * 2 > images:
        first = "; ".join(f"{name}: {reason}" for _, name, reason in whole.skipped[:3])
        raise UserError(
            f"{len(whole.skipped)} of {images} images cannot be read, more than half: {first}"
        )
    return whole


class EffectPass:
    """Progress of pass 2: the statistics of every layer around the means of the whole data set.

    It goes on from `state`, where there is one.
    """

    def __init__(
        self, lens: Lens, means: MeanPass, settings: Settings, state: State | None = None
    ) -> None:
        self.done = 0
        self.layers = {
            layer: EffectStatistics(
                mean.mean(),
                lens.directions[layer],
                means.count,
                settings.top_k,
                settings.percentile,
            )
            for layer, mean in sorted(means.layers.items())
        }
        if state is not None:
            self.done = state.note["done"]
            for layer, statistics in self.layers.items():
                statistics.load_state_dict(state.of(layer))

    def add(self, ids: Tensor, layers: dict[int, Contributions]) -> None:
        """Add a batch of images."""
        for layer, contributions in layers.items():
            self.layers[layer].update(contributions, ids)
        self.done += 1

    def merge(self, other: EffectPass) -> None:
        """Add what another shard saw."""
        for layer, statistics in self.layers.items():
            statistics.merge(other.layers[layer])
        self.done += other.done

    def state(self) -> State:
        """For a checkpoint or another process."""
        layers = {layer: statistics.state_dict() for layer, statistics in self.layers.items()}
        return State(by_layer(layers), {"done": self.done})


def merge_effects(parts: Sequence[EffectPass]) -> dict[int, UnitStatistics]:
    """Statistics of all units from pass 2 of every shard; the first part takes up the others."""
    whole, *others = parts
    for other in others:
        whole.merge(other)
    return {layer: statistics.finish() for layer, statistics in whole.layers.items()}
