"""Does a phrase name a class? Rules on its letters; what else it may mean, others tell."""

import re
import unicodedata
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

_IRREGULAR = {
    "children": "child", "feet": "foot", "geese": "goose", "men": "man", "mice": "mouse",
    "oxen": "ox", "people": "person", "teeth": "tooth", "women": "woman",
}  # fmt: skip
_SUFFIXES = (("ies", "y"), ("ves", "f"), ("sses", "ss"), ("ses", "s"), ("xes", "x"), ("ches", "ch"),
             ("shes", "sh"), ("ing", ""), ("ed", ""), ("es", "e"), ("s", ""))  # fmt: skip


@runtime_checkable
class Similarity(Protocol):
    """Finds phrases that mean a class without containing its name."""

    name: str

    def synonyms(self, phrases: Sequence[str], name: str) -> list[bool]:
        """For each phrase, whether it means much the same as the name."""


def tokens(text: str) -> list[str]:
    """Lower-case words of a text, without accents and punctuation."""
    plain = unicodedata.normalize("NFKD", text.casefold())
    plain = "".join(c for c in plain if not unicodedata.combining(c))
    return re.findall(r"[a-z0-9]+|[^\W\da-z_]+", plain)


def content(text: str) -> list[str]:
    """The words of a phrase without its article."""
    words = tokens(text)
    return words[1:] if len(words) > 1 and words[0] in ("a", "an", "the") else words


def stem(word: str) -> str:
    """The word without plural and verb endings; the same for "boxes", "boxed" and "box"."""
    word = _IRREGULAR.get(word, word)
    for suffix, instead in _SUFFIXES:
        rest = word.removesuffix(suffix)
        if rest == word or len(rest) < 2 or (suffix == "s" and rest[-1] in "siu"):
            continue
        if suffix in ("ing", "ed"):
            if len(rest) < 3 or not re.search("[aeiouy]", rest):  # string, red
                continue
            if rest[-1] == rest[-2] and rest[-1] not in "lsz":  # running
                rest = rest[:-1]
        word = rest + instead
        break
    return word[:-1] if word.endswith("e") and len(word) > 3 else word


def names(text: str, name: str) -> bool:
    """Whether a text contains a class's name: as it is, in plural, or inside a compound word.

    "dogs", "a hot-dog" and "bulldog" name "dog"; "scarf" does not name "car", but "carpet" does:
    the rule would rather drop a word too many.
    """
    words = content(name)
    wanted = [stem(word) for word in words]
    found = tokens(text)
    stems = [stem(word) for word in found]
    if not wanted:
        return False
    length = len(wanted)
    if any(stems[i : i + length] == wanted for i in range(len(stems) - length + 1)):
        return True
    joined = "".join(words)
    return len(joined) >= 3 and any(
        word.startswith(joined) or word.endswith(joined) for word in (*found, *stems)
    )
