"""A stream of images compared with a reference, window by window; watched texts over time."""

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from clipneurons.bundle.folders import write_atomic
from clipneurons.shift.comparison import EmbeddedTextPool, check_level, compare
from clipneurons.shift.profile import Profile
from clipneurons.shift.report import changed_pixels, text_rows

_SIDES = ("reference", "waiting")  # in a saved file


@dataclass(frozen=True)
class Window:
    """The comparison of one window of new images with the reference.

    Attributes:
        first, last: numbers of its images since the monitor began.
        p: of the comparison with the reference; ``alarm`` is whether it is at most the level.
        tests: p-value of each statistic.
        units: largest changes, as (column, change in standard deviations, false-discovery rate);
            none without an alarm.
        texts: matched more than in the reference (`text_rows`); none without an alarm.
        pixels: low-level properties that changed (`changed_pixels`); none without an alarm.
        watched: of each watched text, the mean cosine in the window, in standard deviations of
            the reference and relative to its mean, with the standard error.
        images: numbers of the images that lie farthest along the change; none without an alarm.
    """

    first: int
    last: int
    p: float
    alarm: bool
    tests: dict[str, float]
    units: list[tuple[int, float, float]]
    texts: list[dict]
    pixels: list[dict]
    watched: dict[str, tuple[float, float]] = field(default_factory=dict)
    images: list[int] = field(default_factory=list)


class Monitor:
    """Compare a stream of profiles with a reference, one window of images at a time.

    Each window without a shift raises an alarm with probability ``level`` (one in twenty at the
    default), whatever came before; divide the level by the number of windows to be expected to
    bound the chance of any false alarm.

    Args:
        reference: profile of the images that are as they should be.
        pool: texts that changes are read in.
        window: images in a window.
        watched: texts followed over time.
        level: largest p-value that is an alarm.
        permutations: of each comparison; must be able to reach the level.
        seed: of the permutations.
    """

    def __init__(
        self,
        reference: Profile,
        pool: EmbeddedTextPool,
        window: int = 200,
        watched: EmbeddedTextPool | None = None,
        level: float = 0.05,
        permutations: int = 500,
        seed: int = 0,
    ) -> None:
        if window < 2 or len(reference) < 2:
            raise ValueError(
                "expected at least two reference images and windows of at least two, not "
                f"{len(reference)} and {window}"
            )
        check_level(level, permutations)
        if not all(bool(values.isfinite().all()) for values in vars(reference).values()):
            raise ValueError("the reference holds NaN or infinity: expected finite profiles")
        self.reference, self.pool, self.window = reference, pool, window
        self.watched = watched
        self.level, self.permutations, self.seed = level, permutations, seed
        self.windows: list[Window] = []
        self.seen = 0
        self._pending: list[Profile] = []
        if watched is not None:
            gap = pool.embeddings.mean(0)
            self._axes = torch.nn.functional.normalize(watched.embeddings - gap, dim=-1)
            cosines = reference.embeddings @ self._axes.T
            self._usual = cosines.mean(0), cosines.std(0).clamp_min(1e-12)

    def update(self, batch: Profile) -> list[Window]:
        """Add images; the windows that they complete.

        Raises:
            ValueError: profiles by the units of another bundle than the reference's.
        """
        if batch.units.shape[1] != self.reference.units.shape[1]:
            raise ValueError(
                f"profiles of {batch.units.shape[1]} units, the reference has "
                f"{self.reference.units.shape[1]}: expected the same bundle"
            )
        self._pending.append(batch)
        waiting = Profile.cat(self._pending)
        done = []
        while len(waiting) >= self.window:
            done.append(self._compare(waiting[: self.window]))
            waiting = waiting[self.window :]
        self._pending = [waiting]
        return done

    def flush(self) -> Window | None:
        """Compare what has not filled a window; a single image goes on waiting."""
        if self.waiting < 2:
            return None
        rest, self._pending = Profile.cat(self._pending), []
        return self._compare(rest)

    @property
    def waiting(self) -> int:
        """Number of images that have not been compared yet."""
        return sum(len(part) for part in self._pending)

    def _compare(self, new: Profile) -> Window:
        # Another seed a window: one unlucky set of permutations must not decide all of them.
        seed = self.seed + len(self.windows)
        shift = compare(self.reference, new, self.pool, self.permutations, seed)
        alarm = shift.p <= self.level
        tests = shift.units
        window = Window(
            first=self.seen,
            last=self.seen + len(new) - 1,
            p=shift.p,
            alarm=alarm,
            tests=shift.tests,
            units=[
                (unit, tests.change[unit].item(), tests.q[unit].item())
                for unit in (shift.top_units() if alarm else ())
            ],
            texts=text_rows(shift.more, 10) if alarm else [],
            pixels=changed_pixels(shift, self.level) if alarm else [],
            watched=self._watch(new.embeddings),
            images=[self.seen + i for i in shift.changed_images()] if alarm else [],
        )
        self.seen += len(new)
        self.windows.append(window)
        return window

    def _watch(self, embeddings: Float[Tensor, "image embed"]) -> dict[str, tuple[float, float]]:
        if self.watched is None:
            return {}
        mean, deviation = self._usual
        standardised = (embeddings @ self._axes.T - mean) / deviation
        error = standardised.std(0) / len(standardised) ** 0.5
        pairs = zip(standardised.mean(0).tolist(), error.tolist(), strict=True)
        return dict(zip(self.watched.texts, pairs, strict=True))

    def to_json(self) -> dict:
        """All windows so far, as JSON values."""
        return {
            "reference_images": len(self.reference),
            "window": self.window,
            "level": self.level,
            "permutations": self.permutations,
            "seed": self.seed,
            "waiting": self.waiting,
            "watched": list(self.watched.texts) if self.watched else [],
            "windows": [asdict(window) for window in self.windows],
        }

    def save(self, path: str | Path) -> None:
        """Write the reference, the waiting images and the windows, to go on in another process."""
        waiting = Profile.cat([self.reference[:0], *self._pending])
        tensors = {
            f"{side}.{name}": value.contiguous()
            for side, profile in zip(_SIDES, (self.reference, waiting), strict=True)
            for name, value in vars(profile).items()
        }
        state = self.to_json() | {"seen": self.seen, "texts": self.pool.sha256()}
        write_atomic(Path(path), save(tensors, {"monitor": json.dumps(state)}))

    @staticmethod
    def load(
        path: str | Path, pool: EmbeddedTextPool, watched: EmbeddedTextPool | None = None
    ) -> "Monitor":
        """Go on from :meth:`save`, with the same texts.

        Raises:
            ValueError: other texts or watched concepts than those it was saved with, or a file
                that no monitor wrote.
        """
        try:
            with safe_open(path, "pt") as file:
                state = json.loads((file.metadata() or {})["monitor"])
            tensors = load_file(path)
            profiles = [
                Profile(*(tensors[f"{side}.{part.name}"] for part in fields(Profile)))
                for side in _SIDES
            ]
            texts, concepts = state["texts"], tuple(state["watched"])
            windows = [_window(values) for values in state["windows"]]
            numbers = [state[name] for name in ("window", "permutations", "seed", "seen")]
            if not all(type(number) is int for number in numbers):
                raise ValueError(f"window, permutations, seed and seen are {numbers}")
        except (SafetensorError, KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"{path} is not a whole file of `Monitor.save`: {error}") from None
        if pool.sha256() != texts:
            raise ValueError("expected the texts, and their embeddings, that the monitor had")
        if (watched.texts if watched else ()) != concepts:
            raise ValueError(f"the monitor watches {list(concepts)}: expected the same concepts")
        window, permutations, seed, seen = numbers
        try:
            monitor = Monitor(
                profiles[0], pool, window, watched, state["level"], permutations, seed
            )
            monitor._pending, monitor.seen = [Profile.cat([profiles[0][:0], profiles[1]])], seen
        except (KeyError, TypeError, ValueError, RuntimeError, IndexError) as error:
            raise ValueError(f"{path} is not a whole file of `Monitor.save`: {error}") from None
        monitor.windows = windows
        return monitor


def _window(values: dict) -> Window:
    values = dict(values)
    values["units"] = [tuple(row) for row in values["units"]]
    values["watched"] = {text: tuple(pair) for text, pair in values["watched"].items()}
    return Window(**values)
