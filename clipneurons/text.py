"""Text pools, prompt templates, and unit-norm embeddings of texts."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from clipneurons.towers import Tower

COMMON_WORDS = {"common-10k": 10_000, "common-30k": 30_000}
VOCABULARY = "vocabulary"
DESCRIPTIONS = "imagenet-descriptions"
MAX_TEXTS = 200_000
MAX_CHARACTERS = 500


def _in_pairs(pattern: str, words: str) -> list[str]:
    """The pattern with each word, once with "a" and once with "the"."""
    return [pattern.format(x, word) for word in words.split(", ") for x in ("a", "the")]


# The prompts published with CLIP for ImageNet (80, and the 7 that do almost as well), with their
# "a origami".
_OPENAI = (
    *_in_pairs(
        "{1} of {0} {{}}.",
        "a photo, a drawing, a painting, a sketch, a doodle, a sculpture, a rendering, "
        "a rendition, a tattoo, graffiti, art, itap, a bad photo, a good photo, a bright photo, "
        "a dark photo, a blurry photo, a cropped photo, a close-up photo, a pixelated photo, "
        "a black and white photo, a low resolution photo, a jpeg corrupted photo",
    ),
    *_in_pairs(
        "a photo of {0} {1} {{}}.", "hard to see, clean, dirty, cool, nice, weird, large, small"
    ),
    *_in_pairs("{0} {1} {{}}.", "plastic, origami, toy, cartoon, plushie, embroidered"),
    *_in_pairs("{0} {{}} in {1}.", "a video game"),
    "a photo of many {}.",
    "a photo of one {}.",
    "a photo of my {}.",
    "itap of my {}.",
)
TEMPLATES: dict[str, tuple[str, ...]] = {
    "none": ("{}",),
    "photo": ("a photo of a {}.",),
    "simple": (
        "itap of a {}.",
        "a bad photo of the {}.",
        "a origami {}.",
        "a photo of the large {}.",
        "a {} in a video game.",
        "art of the {}.",
        "a photo of the small {}.",
    ),
    "openai": _OPENAI,
}


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

    Case is ignored in finding repetitions, since CLIP's tokenizer ignores it too.

    Raises:
        ValueError: no text is left, more than 200,000, or one of more than 500 characters.
    """
    kept: dict[str, str] = {}
    for number, text in enumerate(texts, start=1):
        text = " ".join(text.split())
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
    """Concepts of the bundled pictograms, their other names and groups, colours and grounds.

    No coloured concepts: eleven texts that differ in a colour alone crowd out what else is said.
    """
    from clipneurons.captions import COLOURS, PATTERNS, article
    from clipneurons.pictograms import load_pictograms

    pack = load_pictograms()
    texts = [article(name) for name in pack.concepts]
    texts += [article(word) for name in pack.concepts for word in pack.synonyms[name]]
    texts += sorted(set(pack.groups.values()))
    texts += COLOURS
    grounds = ["", *(f"{pattern} " for pattern in PATTERNS.values())]
    texts += [article(f"{colour} {ground}background") for ground in grounds for colour in COLOURS]
    credit = "names of the bundled pictograms, synonyms, colours and backgrounds"
    return TextPool(VOCABULARY, clean_texts(texts), credit, "MIT")


def _templates(templates: str | Sequence[str]) -> Sequence[str]:
    if isinstance(templates, str):
        if templates not in TEMPLATES:
            raise ValueError(
                f"there are no templates {templates!r}. Expected one of {', '.join(TEMPLATES)}, "
                'or a list such as ["a photo of a {}."]'
            )
        return TEMPLATES[templates]
    for template in templates:
        if template.count("{}") != 1:
            raise ValueError(f"template {template!r} must hold {{}} once, where the text goes")
    if not templates:
        raise ValueError("expected at least one template, got none")
    return templates


@torch.no_grad()
def embed_texts(
    tower: Tower,
    texts: Sequence[str],
    templates: str | Sequence[str] | None = None,
    batch: int = 256,
    progress: Callable[[int], object] | None = None,
) -> Float[Tensor, "text embed"]:
    """Unit-norm float32 embedding of each text, on the tower's device.

    With templates it is the mean over the prompts' unit embeddings, normalised again.

    Args:
        templates: a name in `TEMPLATES` or a list of strings with ``{}``; by default the text
            itself.
        batch: prompts that go through the text tower together.
        progress: called with the number of texts just done, e.g. ``tqdm(...).update``.

    Raises:
        ValueError: no texts, bad templates, embeddings that are not finite.
    """
    if len(texts) == 0:
        raise ValueError("expected at least one text, got none")
    if isinstance(texts, str):
        raise ValueError(f"expected a list of texts, got the single string {texts!r}")
    if batch < 1:
        raise ValueError(f"expected a batch of at least 1 prompt, got {batch}")
    chosen = _templates("none" if templates is None else templates)
    embeddings = torch.zeros(len(texts), tower.embed_dim, device=tower.device)
    prompts = len(texts) * len(chosen)
    for start in range(0, prompts, batch):
        numbers = range(start, min(start + batch, prompts))
        # Prompt number i is text i // len(chosen) in template i % len(chosen).
        owners = [i // len(chosen) for i in numbers]
        filled = [chosen[i % len(chosen)].replace("{}", texts[i // len(chosen)]) for i in numbers]
        embeddings.index_add_(
            0, torch.tensor(owners, device=tower.device), tower.encode_text(filled).float()
        )
        if progress is not None:
            progress(numbers.stop // len(chosen) - start // len(chosen))
    return _unit(embeddings, "the text tower gave")


@torch.no_grad()
def centre(embeddings: Float[Tensor, "text embed"]) -> Float[Tensor, "text embed"]:
    """Rows minus the pool's mean row, at norm 1: what each text says that the others do not.

    An option of the decomposition; the papers' description uses the rows as they are.

    Raises:
        ValueError: a row that equals the mean, such as the only row of a pool.
    """
    return _unit(embeddings - embeddings.mean(dim=0), "centring left")


def _unit(rows: Float[Tensor, "text embed"], cause: str) -> Float[Tensor, "text embed"]:
    norms = rows.norm(dim=1, keepdim=True)
    # 1e-5 is far below any real spread of embeddings and above what rounding leaves of zero.
    bad = ~((norms > 1e-5) & norms.isfinite()).squeeze(1)
    if bad.any():
        first = int(bad.nonzero()[0])
        raise ValueError(
            f"{cause} {int(bad.sum())} of {len(rows)} texts no direction (zero, NaN or infinite), "
            f"the first is text {first}"
        )
    return rows / norms
