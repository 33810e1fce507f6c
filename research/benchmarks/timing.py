"""Alternating measurements in one process: medians and ratios, not single times."""

import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Times:
    """Seconds of each task in each round: on the clock, and of all cores together.

    Where other programs run beside, the second tells what a task costs.
    """

    wall: dict[str, list[float]]
    cpu: dict[str, list[float]]

    def row(self, name: str, base: str, per: int = 1) -> str:
        """Median milliseconds of one of ``per`` parts, and the ratios to a base, in words."""
        words = []
        for kind, seconds in (("wall", self.wall), ("CPU", self.cpu)):
            middle, low, high = ratio(seconds, name, base)
            each = 1e3 * statistics.median(seconds[name]) / per
            words.append(f"{kind} {each:7.1f} ms {middle:.3f} ({low:.3f} to {high:.3f})")
        return "   ".join(words)


def measure(
    tasks: dict[str, Callable[[], object]],
    rounds: int,
    before: Callable[[], object] = lambda: None,
) -> Times:
    """Times of each task in each round; every round runs all tasks once, after a warm-up.

    ``before`` is run at the start of each round and not timed.
    """
    before()
    for task in tasks.values():
        task()
    times = Times({name: [] for name in tasks}, {name: [] for name in tasks})
    for _ in range(rounds):
        before()
        for name, task in tasks.items():
            start, busy = time.perf_counter(), time.process_time()
            task()
            times.wall[name].append(time.perf_counter() - start)
            times.cpu[name].append(time.process_time() - busy)
    return times


def alternate(tasks: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds on the clock alone, as `measure` has them."""
    return measure(tasks, rounds).wall


def ratio(seconds: dict[str, list[float]], name: str, base: str) -> tuple[float, float, float]:
    """Median, smallest and largest of the ratios round by round."""
    ratios = [a / b for a, b in zip(seconds[name], seconds[base], strict=True)]
    return statistics.median(ratios), min(ratios), max(ratios)


def peak_memory() -> float:
    """Largest resident size of this process so far, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
