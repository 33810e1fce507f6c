"""Text pools: by name, of a file, or given; distinct texts of one line each."""

import hashlib
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from clipneurons.extras import extra

COMMON_WORDS = {"common-10k": 10_000, "common-30k": 30_000}
VOCABULARY = "vocabulary"
DESCRIPTIONS = "imagenet-descriptions"
MAX_TEXTS = 200_000
MAX_CHARACTERS = 500


@dataclass(frozen=True)
class TextPool:
    """Distinct texts of one line each, with where they come from."""

    name: str
    texts: tuple[str, ...]
    source: str
    licence: str

    @property
    def sha256(self) -> str:
        """SHA-256 of the texts in UTF-8, one a line: the digest of a bundle's ``texts.txt``."""
        return hashlib.sha256("".join(f"{text}\n" for text in self.texts).encode()).hexdigest()

    def __len__(self) -> int:
        return len(self.texts)


def text_pool(source: str | Path | Iterable[str], licence: str = "unknown") -> TextPool:
    """The pool of that name, of a UTF-8 file with one text a line, or of the given texts.

    Args:
        source: ``"common-10k"`` or ``"common-30k"`` (the most frequent English words, from
            wordfreq); ``"vocabulary"`` (what the bundled models' captions speak of);
            ``"imagenet-descriptions"`` (the file ``imagenet-descriptions.txt`` in the working
            folder); a path; or an iterable of texts.
        licence: recorded with texts of one's own.

    Raises:
        ValueError: an unknown name, a file that is not there or not UTF-8, and what
            `clean_texts` refuses.
    """
    if not isinstance(source, (str, Path)):
        return TextPool("given", clean_texts(source), "given by the caller", licence)
    if source in COMMON_WORDS:
        return _common_words(str(source), COMMON_WORDS[source])
    if source == VOCABULARY:
        return _vocabulary()
    path = Path(f"{DESCRIPTIONS}.txt" if source == DESCRIPTIONS else source)
    if not path.is_file():
        names = ", ".join([*COMMON_WORDS, VOCABULARY, DESCRIPTIONS])
        raise ValueError(
            f"there is no text file {str(path)!r}. Expected a UTF-8 file with one text a line, "
            f"or one of {names}"
        )
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not UTF-8 text ({error.reason} at byte {error.start})"
        ) from None
    try:
        texts = clean_texts(lines)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return TextPool(path.stem, texts, path.name, licence)


def clean_texts(texts: Iterable[str]) -> tuple[str, ...]:
    """Texts with single spaces, without blanks and repetitions, in their first order.

    Characters are composed (Unicode NFC), so that é is one however it was typed. Case is ignored
    in finding repetitions, since CLIP's tokenizer ignores it too.

    Raises:
        ValueError: no text is left, more than 200,000, or one of more than 500 characters.
    """
    kept: dict[str, str] = {}
    for number, text in enumerate(texts, start=1):
        text = " ".join(unicodedata.normalize("NFC", text).split())
        if len(text) > MAX_CHARACTERS:
            raise ValueError(
                f"text {number} has {len(text)} characters, at most {MAX_CHARACTERS} are "
                f"allowed (CLIP reads about the first 300). It begins {text[:40]!r}"
            )
        if text:
            kept.setdefault(text.casefold(), text)
        if len(kept) > MAX_TEXTS:
            raise ValueError(f"expected at most {MAX_TEXTS:,} distinct texts, got more")
    if not kept:
        raise ValueError("expected at least one text, got none that is not blank")
    return tuple(kept.values())


def _common_words(name: str, count: int) -> TextPool:
    with extra("text"):
        import wordfreq  # reads its lists from disk: only for those who ask for them

    # A tenth of the list is numbers, contractions, letters and emoji, which say nothing alone.
    frequent = wordfreq.top_n_list("en", 2 * count)
    words = [word for word in frequent if len(word) > 1 and word.isalpha()][:count]
    return TextPool(
        name,
        clean_texts(words),
        f"wordfreq {version('wordfreq')}, the {count:,} most frequent English words",
        "CC-BY-SA-4.0",
    )


def _vocabulary() -> TextPool:
    """What the bundled models know: pictograms' concepts, their other names and groups, the names
    and kinds of photographed things, colours and grounds.

    No coloured concepts: eleven texts that differ in a colour alone crowd out what else is said.
    """
    from clipneurons.synthetic.captions import COLOURS, PATTERNS, article
    from clipneurons.synthetic.photographs import load_names
    from clipneurons.synthetic.pictograms import load_pictograms

    pack, photographed = load_pictograms(), load_names()
    texts = [article(name) for name in pack.concepts]
    texts += [article(word) for name in pack.concepts for word in pack.synonyms[name]]
    texts += sorted(set(pack.groups.values()))
    texts += [
        article(f"{name} texture" if "texture" in kinds else name)  # "a banded" says nothing
        for name, kinds in photographed.items()
    ]
    texts += [article(kind) for kinds in photographed.values() for kind in kinds]
    texts += COLOURS
    grounds = ["", *(f"{pattern} " for pattern in PATTERNS.values())]
    texts += [article(f"{colour} {ground}background") for ground in grounds for colour in COLOURS]
    credit = "names of bundled pictograms and of photographed things, colours and backgrounds"
    return TextPool(VOCABULARY, clean_texts(texts), credit, "MIT")
