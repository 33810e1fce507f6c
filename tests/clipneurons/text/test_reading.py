"""A pool as a model reads it: cut at the context length, texts of equal tokens once."""

from clipneurons.text.pools import text_pool
from clipneurons.text.reading import as_read
from tests.helpers.models import tiny_vit


def test_texts_are_kept_as_far_as_they_are_read():
    clip = tiny_vit()  # reads 14 tokens
    long = " ".join(["red"] * 14)
    pool = text_pool(["a cat", long, f"{long} boat", f"{long} house", "a dog"])
    read = as_read(clip, pool)
    assert read.pool.texts == ("a cat", long, "a dog")
    assert read.cut == (f"{long} boat", f"{long} house")
    assert read.merged == 2
    assert read.pool.sha256 != pool.sha256
    (before, after) = (clip.tokenizer([text]).tolist() for text in (f"{long} boat", long))
    assert before == after, "what is stored is what is read"


def test_a_pool_that_is_read_whole_stays_as_it_is():
    pool = text_pool(["a cat", "a dog", "a café"])
    read = as_read(tiny_vit(), pool)
    assert (read.pool, read.cut, read.merged) == (pool, (), 0)


def test_characters_are_composed():
    assert text_pool(["cafe\u0301", "caf\u00e9"]).texts == ("caf\u00e9",)
