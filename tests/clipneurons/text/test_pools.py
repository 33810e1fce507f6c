"""Text pools, templates and embeddings."""

import hashlib

import open_clip
import pytest
import torch
from torch.nn.functional import normalize

from clipneurons.models.clip import load_clip
from clipneurons.text.embedding import centre, embed_texts
from clipneurons.text.pools import TextPool, clean_texts, text_pool
from clipneurons.text.templates import TEMPLATES
from tests.clipneurons.models.test_transformers_clip import saved
from tests.helpers.models import tiny_vit


@pytest.fixture(scope="module")
def clip():
    return tiny_vit()


@pytest.mark.parametrize(("name", "count"), [("common-10k", 10_000), ("common-30k", 30_000)])
def test_common_words(name, count):
    pool = text_pool(name)
    assert (pool.name, len(pool), len(set(pool.texts))) == (name, count, count)
    assert all(len(word) > 1 and word.isalpha() for word in pool.texts)
    assert {"dog", "red", "photograph"} <= set(pool.texts)
    assert "wordfreq 3" in pool.source
    assert pool.licence == "CC-BY-SA-4.0"
    assert pool.texts == text_pool(name).texts


def test_the_smaller_pool_begins_the_larger():
    assert text_pool("common-30k").texts[:10_000] == text_pool("common-10k").texts


def test_file_with_one_text_a_line(tmp_path):
    file = tmp_path / "phrases.txt"
    file.write_bytes("\ufeffa  red\tcar \r\n\r\n café\nA red car\n日本の城".encode())
    pool = text_pool(file, licence="CC0-1.0")
    assert pool == TextPool("phrases", ("a red car", "café", "日本の城"), "phrases.txt", "CC0-1.0")
    assert text_pool(str(file)).texts == pool.texts


def test_imagenet_descriptions_are_a_file_in_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"no text file 'imagenet-descriptions\.txt'"):
        text_pool("imagenet-descriptions")
    (tmp_path / "imagenet-descriptions.txt").write_text("A photo of snow\nA close-up of a beak\n")
    pool = text_pool("imagenet-descriptions")
    assert pool.name == "imagenet-descriptions"
    assert pool.texts == ("A photo of snow", "A close-up of a beak")


def test_vocabulary_is_a_clean_pool():
    pool = text_pool("vocabulary")
    assert {"an airplane", "red", "a red striped background"} <= set(pool.texts)
    assert "a red airplane" not in pool.texts
    assert len(set(pool.texts)) == len(pool) > 700


def test_given_texts_and_their_digest():
    pool = text_pool(["café", "dog"])
    assert pool.texts == ("café", "dog")
    assert pool.sha256 == hashlib.sha256("café\ndog\n".encode()).hexdigest()


def test_texts_stay_one_line_each():
    assert clean_texts(["a\nb\u2028c\x0bd"]) == ("a b c d",)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([], "at least one text"),
        (["", " \t"], "at least one text"),
        (["short", "x" * 501], "text 2 has 501 characters"),
        ((str(i) for i in range(200_001)), "at most 200,000"),
    ],
)
def test_refuses_texts(texts, message):
    with pytest.raises(ValueError, match=message):
        clean_texts(texts)


def test_refuses_files(tmp_path):
    with pytest.raises(ValueError, match=r"no text file.*common-30k, vocabulary, imagenet-"):
        text_pool("common-20k")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\n")
    with pytest.raises(ValueError, match=r"latin\.txt is not UTF-8.*byte 3"):
        text_pool(tmp_path / "latin.txt")
    (tmp_path / "empty.txt").write_bytes(b"\n\n")
    with pytest.raises(ValueError, match=r"empty\.txt: expected at least one text"):
        text_pool(tmp_path / "empty.txt")


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("openai", open_clip.OPENAI_IMAGENET_TEMPLATES),
        ("simple", open_clip.SIMPLE_IMAGENET_TEMPLATES),
        ("siglip", (*open_clip.SIMPLE_IMAGENET_TEMPLATES, str)),
    ],
)
def test_templates_are_the_published_ones(name, published):
    ours = [template.replace("{}", "snow leopard") for template in TEMPLATES[name]]
    assert len(ours) == len(published)
    assert set(ours) == {template("snow leopard") for template in published}


@pytest.mark.parametrize("kind", ["CLIP", "SigLIP"])
def test_named_prompts_go_to_a_siglip_without_punctuation(kind, tmp_path):
    saved(tmp_path, kind)
    model = load_clip(tmp_path, device="cpu")
    with_stop, without = (
        model.encode_text([prompt]) for prompt in ("a photo of a cat.", "a photo of a cat")
    )
    assert (with_stop - without).norm() > 0.01
    named = embed_texts(model, ["cat"], "photo")
    torch.testing.assert_close(named, with_stop if kind == "CLIP" else without)
    for mine in (["a photo of a {}."], None):  # a user's own texts are as they are
        text = "cat" if mine else "a photo of a cat."
        torch.testing.assert_close(embed_texts(model, [text], mine), with_stop)


def test_a_text_may_hold_braces(clip):
    filled = embed_texts(clip, ["{} {0} %s"], ["the {}."])
    torch.testing.assert_close(filled, clip.encode_text(["the {} {0} %s."]))


@pytest.mark.parametrize(
    ("templates", "message"),
    [
        ("clip", "no templates 'clip'.*none, photo, simple, openai, siglip"),
        (["a photo"], "'a photo' must hold {} once"),
        (["{} and {}"], "must hold {} once"),
        ([], "at least one template"),
    ],
)
def test_refuses_templates(templates, message, clip):
    with pytest.raises(ValueError, match=message):
        embed_texts(clip, ["dog"], templates)


def test_embeddings_without_templates(clip):
    texts = ["dog", "a red car", "snow"]
    embeddings = embed_texts(clip, texts)
    torch.testing.assert_close(embeddings, clip.encode_text(texts))
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(3))


@pytest.mark.parametrize("batch", [1, 4, 7, 1000])
def test_templates_are_averaged_whatever_the_batch(batch, clip):
    texts = ["dog", "a red car", "snow", "two cats"]
    done = []
    embeddings = embed_texts(clip, texts, "simple", batch=batch, progress=done.append)
    assert sum(done) == len(texts)
    for text, embedding in zip(texts, embeddings, strict=True):
        prompts = [template.replace("{}", text) for template in TEMPLATES["simple"]]
        mean = torch.stack([clip.encode_text([prompt])[0] for prompt in prompts]).mean(0)
        torch.testing.assert_close(embedding, mean / mean.norm())


def test_centred_rows():
    rows = normalize(torch.randn(50, 12, generator=torch.Generator().manual_seed(0)) + 2, dim=1)
    expected = (rows - rows.mean(0)) / (rows - rows.mean(0)).norm(dim=1, keepdim=True)
    torch.testing.assert_close(centre(rows), expected)
    with pytest.raises(ValueError, match="centring left 1 of 1 texts no direction"):
        centre(rows[:1])


def test_refuses_what_cannot_be_embedded(clip, monkeypatch):
    with pytest.raises(ValueError, match="at least one text"):
        embed_texts(clip, [])
    with pytest.raises(ValueError, match="single string 'dog'"):
        embed_texts(clip, "dog")
    with pytest.raises(ValueError, match="batch of at least 1"):
        embed_texts(clip, ["dog"], batch=0)
    broken = torch.full((2, clip.embed_dim), torch.nan)
    monkeypatch.setattr(type(clip), "encode_text", lambda self, texts: broken)
    with pytest.raises(ValueError, match="the text tower gave 2 of 2 texts no direction"):
        embed_texts(clip, ["dog", "cat"])
