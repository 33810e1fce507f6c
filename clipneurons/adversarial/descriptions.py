"""From cues to descriptions of images that name the true class and not the target class."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from clipneurons.adversarial.cue_request import check_name
from clipneurons.text.class_names import Similarity, names

# Apache-2.0, 3 GB, runs on a laptop: describes unless another chat model is named.
CHAT_MODEL = "Qwen/Qwen2.5-1.5B-Instruct"
MAX_DESCRIPTION = 300
MAX_COUNT = 10_000
MAX_CUES_EACH = 6


@dataclass(frozen=True)
class Description:
    """What an image should show, and the cues among it."""

    text: str
    cues: tuple[str, ...]


@runtime_checkable
class Describer(Protocol):
    """Writes descriptions; the same seed gives the same ones."""

    def __call__(
        self, true_class: str, target_class: str, cues: Sequence[str], count: int, seed: int
    ) -> list[Description]:
        """``count`` descriptions."""


class DescriberError(ValueError):
    """The descriptions could not be had; the message says what to change."""


def check_description(
    text: str,
    true_class: str,
    target_class: str,
    cues: Sequence[str],
    similarity: Similarity | None = None,
) -> str | None:
    """Why a description may not be drawn, or None when it may.

    It must name the true class, must not name the target one (as it is, in plural, in a compound
    or, where ``similarity`` is given, by a synonym) and must name at least one cue, if there
    are any.
    """
    if not text or len(text) > MAX_DESCRIPTION or not text.isprintable():
        return f"is empty, has more than {MAX_DESCRIPTION} characters or is not one line"
    if not names(text, true_class):
        return f"does not name {true_class}"
    if names(text, target_class):
        return f"names {target_class}"
    if cues and not any(names(text, cue) for cue in cues):
        return "names no cue"
    if similarity is not None:
        words = [word for word in text.split() if not names(word, true_class)]
        same = similarity.synonyms(words, target_class)
        for word in (w for w, is_same in zip(words, same, strict=True) if is_same):
            return f"names {target_class} by the synonym {word}"
    return None


def check_count(count: int) -> int:
    """The number of images, refused where it is not 1 to ``MAX_COUNT``."""
    if not 1 <= count <= MAX_COUNT:
        raise ValueError(f"expected 1 to {MAX_COUNT} images, not {count}")
    return count


def article(noun: str) -> str:
    """The noun with "a" or "an", unless it has one."""
    if noun.split(" ")[0].lower() in ("a", "an", "the"):
        return noun
    return f"{'an' if noun[:1].lower() in 'aeiou' else 'a'} {noun}"


class TemplateDescriber:
    """Short scenes from fixed sentences: offline, and each states exactly what is in it.

    ``cues_each`` is the number of cues in a description, drawn without repetition; the same for
    every method that is compared.
    """

    frames = (
        "{true} with {cues}",
        "{true} beside {cues}",
        "{cues} around {true}",
        "a picture of {true} next to {cues}",
        "{true} in front of {cues}",
        "a scene with {true}, {cues}",
    )

    def __init__(self, cues_each: int = 3):
        if not 0 <= cues_each <= MAX_CUES_EACH:
            raise ValueError(f"expected 0 to {MAX_CUES_EACH} cues an image, not {cues_each}")
        self.cues_each = cues_each

    def __call__(
        self, true_class: str, target_class: str, cues: Sequence[str], count: int, seed: int
    ) -> list[Description]:
        """``count`` descriptions; without cues, of the true class alone."""
        check_count(count)
        rng = random.Random(seed)
        return [self._one(true_class, cues, rng) for _ in range(count)]

    def _one(self, true_class: str, cues: Sequence[str], rng: random.Random) -> Description:
        drawn = tuple(rng.sample(list(cues), min(self.cues_each, len(cues))))
        if not drawn:
            return Description(f"a picture of {article(true_class)}", ())
        *first, last = map(article, drawn)
        listed = f"{', '.join(first)} and {last}" if first else last
        frame = rng.choice(self.frames)
        return Description(frame.format(true=article(true_class), cues=listed), drawn)


@dataclass(frozen=True)
class Attempts:
    """How many of a chat model's lines could be used."""

    accepted: int
    refused: tuple[tuple[str, str], ...]


def collect(
    ask: Callable[[int], Sequence[str]],
    check: Callable[[str], str | None],
    count: int,
    rounds: int,
) -> tuple[list[str], Attempts]:
    """Ask again, each time with another round number, until ``count`` lines pass the check.

    Raises:
        DescriberError: too few did after all rounds; the message shows a refused line.
    """
    accepted, refused = [], []
    for number in range(rounds):
        for line in ask(number):
            reason = "repeats another" if line in accepted else check(line)
            if reason is None:
                accepted.append(line)
            else:
                refused.append((line, reason))
        if len(accepted) >= count:
            return accepted[:count], Attempts(count, tuple(refused))
    example = f"; for example {refused[0][0][:80]!r} {refused[0][1]}" if refused else ""
    raise DescriberError(
        f"the chat model gave {len(accepted)} of {count} usable descriptions in {rounds} rounds"
        f"{example}. Use a larger model, fewer images, or the offline templates"
    )


def checked_cues(cues: Sequence[str]) -> list[str]:
    """Cues as they may be used: short, one line each."""
    return [check_name(cue, "cue") for cue in cues]
