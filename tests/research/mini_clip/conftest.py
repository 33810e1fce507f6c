"""Six concepts of the shipped pack in a space of random word vectors."""

import numpy as np
import pytest

from clipneurons.synthetic.pictograms import load_pictograms, save_pictograms
from research.mini_clip.word_space import DIM, MEDIA, Space

WORDS = ["red", "orange", "yellow", "green", "blue", "purple"]
WORDS += ["pink", "brown", "black", "gray", "white"]
PATTERNS = ["plain", "gradient", "striped", "checkered", "noisy", "background"]


@pytest.fixture(scope="package")
def pack(tmp_path_factory):
    """Six concepts of the shipped pack, in every style."""
    whole, concepts = load_pictograms(), ("cat", "dog", "star", "key", "automobile", "apple")
    drawings = [
        (concept, style, whole.data[whole.offsets[i] : whole.offsets[i + 1]].tobytes())
        for (concept, style), ids in whole.entries.items()
        if concept in concepts
        for i in ids
    ]
    path = tmp_path_factory.mktemp("pack") / "few.safetensors"
    groups = {c: whole.groups[c] for c in concepts}
    synonyms = {c: list(whole.synonyms[c]) for c in concepts}
    save_pictograms(path, drawings, groups, synonyms, whole.licences)
    return load_pictograms(path)


@pytest.fixture(scope="package")
def space(pack):
    """Random word vectors: the sentence model is needed only to train the released weights."""
    rng = np.random.default_rng(0)
    classes = [*pack.concepts, "chair", "lobster"]
    synonyms = [s for c in pack.concepts for s in pack.synonyms[c]]
    words = [*classes, *synonyms, *WORDS, *PATTERNS, *MEDIA]
    vectors = rng.normal(size=(len(words), DIM)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    rotations = np.stack([np.linalg.qr(rng.normal(size=(DIM, DIM)))[0] for _ in range(4)])
    things = len(classes) + len(synonyms)
    return Space(words, len(classes), things, vectors, rotations.astype(np.float32))
