"""What a model reads of a pool's texts: no more than its context length, and equal tokens once."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace

from clipneurons.models.clip import ClipModel
from clipneurons.text.pools import TextPool

_BATCH = 4096


@dataclass(frozen=True)
class ReadPool:
    """A pool as a model reads it.

    `cut` are the texts that are longer than the model reads; the pool holds what is read of them.
    `merged` counts texts whose tokens are those of an earlier one, which are left out.
    """

    pool: TextPool
    cut: tuple[str, ...]
    merged: int


def as_read(clip: ClipModel, pool: TextPool) -> ReadPool:
    """The pool with each text cut to what the model's tokenizer keeps, equal tokens once."""
    distinct: dict[bytes, str] = {}
    cut = []
    for start in range(0, len(pool), _BATCH):
        part = pool.texts[start : start + _BATCH]
        rows = dict(zip(part, _tokens(clip, part), strict=True))
        # A token is a byte or more; two mark the ends.
        long = [text for text in part if len(text.encode()) >= clip.context_length - 2]
        longer = _tokens(clip, [f"{text} x" for text in long]) if long else []
        full = {text for text, row in zip(long, longer, strict=True) if row == rows[text]}
        for text, row in rows.items():
            kept = _kept(clip, text, row) if text in full else text
            if kept != text:
                cut.append(text)
            distinct.setdefault(row, kept)
    read = replace(pool, texts=tuple(distinct.values()))
    return ReadPool(read, tuple(cut), len(pool) - len(distinct))


def _kept(clip: ClipModel, text: str, row: bytes) -> str:
    """The shortest beginning of a text that has its tokens."""
    # Whether the tokens are those of the whole is false up to some length, and true from there.
    length = bisect_left(range(len(text)), True, key=lambda n: _tokens(clip, [text[:n]])[0] == row)
    return text[:length].rstrip()


def _tokens(clip: ClipModel, texts: Sequence[str]) -> list[bytes]:
    return [row.tobytes() for row in clip.tokenizer(list(texts)).numpy()]
