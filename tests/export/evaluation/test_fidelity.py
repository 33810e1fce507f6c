"""Fidelity figures against float64 loops; the card, the gallery, and descriptions of classes."""

from dataclasses import replace

import pytest
import torch
from PIL import Image

from clipneurons.lens.contributions import MeanEffect
from clipneurons.lens.lens import Lens
from clipneurons.statistics.effect_statistics import UnitStatistics
from export.commands.describe_classes import class_names, describe, lines_of
from export.common.errors import UserError
from export.data.dataset_sources import SequenceSource
from export.data.file_sources import FolderSource
from export.data.loader import batches
from export.evaluation.fidelity import fidelity, in_words
from export.evaluation.tally import Tally
from export.pipeline.card import render_card
from export.pipeline.gallery import choose, encode, make_gallery
from export.pipeline.run import summary
from tests.helpers.tiny import WORDS, tiny_bundle, tiny_clip


class Colours:
    """Flat pictures of a few colours, labelled by colour."""

    def __len__(self):
        return 12

    def __getitem__(self, i):
        image = Image.new("RGB", (32, 32), (i * 60 % 256, i * 25 % 256, 200 - i * 9))
        image.putpixel((i, i), (255, 255, 255))
        return image, i % 3


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return tiny_clip(tmp_path_factory.mktemp("tower"))


@pytest.fixture(scope="module")
def source():
    return SequenceSource(Colours(), "colours", ("one", "two", "three"))


def with_means(bundle, lens, source, clip):
    """The bundle with the true means and thresholds of its units on the source."""
    images = torch.cat([b.images for b in batches(source, clip.preprocess, range(3), 4)])
    _, contributions = lens(images)
    layers = {}
    for layer, mine in contributions.items():
        effects = mine.dense(torch.arange(mine.directions.units))
        means = effects.mean(0)
        norms = (effects - means).norm(dim=-1)
        layers[layer] = replace(
            bundle.layers[layer], means=means, threshold=norms.sort(0).values[-4].contiguous()
        )
    return replace(bundle, layers=layers), images


def test_conditions_against_loops(clip, source):
    lens = Lens(clip, (1, 2))
    bundle, images = with_means(tiny_bundle(clip=clip), lens, source, clip)
    classifier = clip.encode_text(["a cat", "a dog", "a car"])
    figures = fidelity(bundle, clip, source, classifier, sizes=(2, 4), batch=5)
    assert figures["count"] == 12
    representation, contributions = lens(images)
    labels = torch.tensor([i % 3 for i in range(12)])
    for layer in (1, 2):
        arrays = bundle.layers[layer]
        mine = contributions[layer]
        effects = mine.dense(torch.arange(mine.directions.units)).double()
        centred = effects - arrays.means.double()
        original = 100 * torch.nn.functional.normalize(representation, dim=1).double()
        kept = {name: torch.zeros_like(original) for name in ("all", "large", "small", "first")}
        for image in range(12):
            for unit in range(effects.shape[1]):
                effect, r = centred[image, unit], arrays.directions[unit].double()
                large = effect.norm() > arrays.threshold[unit] * (1 + 1e-5)
                kept["small" if large else "large"][image] += effect
                kept["first"][image] += (effect @ r) * r
        without = original - centred.sum(1)
        expected = {
            "all effects mean-ablated": without,
            "large effects mean-ablated": without + kept["large"],
            "small effects mean-ablated": without + kept["small"],
            "first component": without + kept["first"],
        }
        for name, embeddings in expected.items():
            found = figures["layers"][f"layer {layer}"][name]
            cosine = torch.cosine_similarity(embeddings, original).mean()
            right = ((embeddings.float() @ classifier.T).argmax(1) == labels).double().mean()
            assert found["cosine"] == pytest.approx(float(cosine), abs=2e-5)
            assert found["accuracy"] == pytest.approx(float(right), abs=1e-5)


def test_all_texts_rebuild_what_they_span(clip, source):
    """With as many texts as dimensions, the texts give the first component itself."""
    lens = Lens(clip, (1, 2))
    bundle, _ = with_means(tiny_bundle(clip=clip), lens, source, clip)
    span = torch.linalg.qr(torch.randn(24, 24, generator=torch.Generator().manual_seed(0)))[0]
    texts = [f"t{i}" for i in range(24)]
    pool = replace(bundle.config.pool, count=24)
    bundle = replace(
        bundle, texts=texts, text_embeddings=span, config=replace(bundle.config, pool=pool)
    )
    figures = fidelity(bundle, clip, source, span, sizes=(24,))["layers"]["layer 1"]
    assert figures["24 texts"]["cosine"] == pytest.approx(figures["first component"]["cosine"])


def test_images_without_classes_give_agreement_only(clip, source):
    lens = Lens(clip, (1, 2))
    bundle, _ = with_means(tiny_bundle(clip=clip), lens, source, clip)

    class Nameless(Colours):
        def __getitem__(self, i):
            return super().__getitem__(i)[0], None

    nameless = SequenceSource(Nameless(), "nameless")
    figures = fidelity(bundle, clip, nameless, bundle.text_embeddings, sizes=(4,))
    condition = figures["layers"]["layer 2"]["first component"]
    assert set(condition) == {"agreement", "agreement_interval", "cosine"}
    assert figures["baseline"] == {}


def test_numbers_without_names_are_no_classes(clip):
    """As in many a shard's `.cls`: they would be taken for places in the text pool."""
    bundle = tiny_bundle(clip=clip)
    figures = fidelity(bundle, clip, SequenceSource(Colours(), "s"), bundle.text_embeddings)
    assert figures["baseline"] == {}
    assert in_words(figures).startswith("layer 1  agreement 100.0% unchanged; all effects")
    card = render_card(bundle, {"fidelity": figures}, "", "name")
    assert "12 images of s, a choice among the bundle's texts;" in card


def test_numbers_beyond_the_names_are_counted(clip, source, tmp_path):
    class More(SequenceSource):
        def _load(self, i):
            return replace(super()._load(i), label=i % 4)

    bundle = tiny_bundle(clip=clip)
    classes = bundle.text_embeddings[:3]
    figures = fidelity(bundle, clip, More(Colours(), "more", source.class_names), classes)
    assert figures["without_class"] == 3
    said = in_words(figures).splitlines()[-1]
    assert "3 of 12 images have no class" in said
    heard = []
    summary(replace(bundle, metrics={"fidelity": figures}), tmp_path, [], [], heard.append)
    assert said in heard
    assert "without_class" not in fidelity(bundle, clip, source, classes)


def test_a_pool_smaller_than_all_sizes_is_taken_whole(clip, source):
    bundle = tiny_bundle(clip=clip)
    bundle = replace(bundle, text_embeddings=bundle.text_embeddings[:3])
    figures = fidelity(bundle, clip, source, bundle.text_embeddings)
    assert [name for name in figures["layers"]["layer 1"] if "texts" in name] == ["3 texts"]


def test_the_shared_bias_is_refused(clip, source):
    bundle = tiny_bundle(clip=clip)
    bundle = replace(bundle, config=replace(bundle.config, shared_bias=True))
    with pytest.raises(UserError, match="shared bias"):
        fidelity(bundle, clip, source, bundle.text_embeddings)


def test_images_of_which_none_can_be_read(clip, tmp_path):
    (tmp_path / "empty.png").touch()
    bundle = tiny_bundle(clip=clip)
    with pytest.raises(UserError, match="none of the images"):
        fidelity(bundle, clip, FolderSource(tmp_path), bundle.text_embeddings)


def test_mean_scores_are_found_again(clip):
    lens = Lens(clip, (0, 2))
    for directions in lens.directions.values():
        scores = torch.randn(directions.units, directions.heads)
        means = torch.einsum("nk,nkd->nd", scores, directions.dense())
        found = MeanEffect.from_dense(means, directions)
        torch.testing.assert_close(found.dense(directions), means, rtol=1e-4, atol=1e-5)


def test_changes_are_paired():
    tally, eye = Tally(), torch.eye(3)
    original = torch.eye(3)
    changed = torch.eye(3)[[0, 2, 2]]
    tally.add(changed, original, eye, torch.tensor([0, 1, 2]))
    figures = tally.figures()
    assert figures["accuracy"] == pytest.approx(2 / 3, abs=1e-6)
    assert figures["change"] == pytest.approx(-1 / 3, abs=1e-6)
    assert figures["agreement"] == pytest.approx(2 / 3, abs=1e-6)
    low, high = figures["change_interval"]
    assert low < figures["change"] < high


def statistics(top_activating_images):
    n, k = top_activating_images.shape
    zero = torch.zeros(n)
    return UnitStatistics(
        means=torch.zeros(n, 4),
        directions=torch.zeros(n, 4),
        explained_variance=zero,
        top_norms=torch.zeros(n, k),
        top_activating_images=top_activating_images,
        percentile=zero,
        norm_histogram=torch.zeros(n, 2, dtype=torch.int32),
        participation_ratio=zero,
        count=9,
    )


def test_every_units_first_image_comes_before_any_second():
    layers = {1: statistics(torch.tensor([[5, 1], [5, 2]])), 2: statistics(torch.tensor([[3, 5]]))}
    assert choose(layers, 2) == [5, 3, 1, 2]
    assert choose(layers, 1) == [5, 3]
    assert choose(layers, 0) == []


def test_thumbnails_show_what_the_model_sees_within_the_budget(clip, source):
    examples = make_gallery(clip, source, [4, 2, 9, 0], 10**6)
    assert sorted(examples) == [0, 2, 4, 9]
    pixels = torch.zeros(3, 300, 200)
    assert 0 < len(encode(clip, pixels)) < 3000
    small = make_gallery(clip, source, [4, 2, 9, 0], len(examples[4]) + len(examples[2]))
    assert sorted(small) == [2, 4]
    assert len(make_gallery(clip, source, [], 100)) == 0


def test_the_card_says_what_the_bundle_holds():
    bundle = tiny_bundle()
    card = render_card(bundle, {}, "python -m export run", "user/name", "---\na: b\n---\n# Mini\n")
    assert card.startswith("---\nlicense: mit\n")
    assert 'load_bundle("user/name")' in card
    assert "Not measured" in card
    assert "### Mini" in card
    assert "a: b" not in card
    for word in ("MIT", "random colours", "gelu", "32 x 32"):
        assert word in card
    hub = replace(bundle, config=replace(bundle.config, model="hf-hub:org/clip"))
    assert "base_model: org/clip\n" in render_card(hub, {}, "", "user/name")


def test_descriptions_go_on_where_they_stopped(tmp_path):
    asked = []

    def generate(message):
        asked.append(message)
        if len(asked) == 2:
            raise RuntimeError("out of memory")
        return "1. Four legs\n- A cat on a mat\n* Soft fur\n\n" + "long " * 60

    part = tmp_path / "part"
    with pytest.raises(RuntimeError):
        describe(["cat", "dog"], 3, generate, part)
    with open(part, "a") as file:
        file.write('{"class": "do')
    texts = describe(["cat", "dog"], 3, generate, part)
    assert texts == ("Four legs", "Soft fur", "A cat on a mat")
    assert sum("of dog." in message for message in asked) == 2
    assert sum("of cat." in message for message in asked) == 1
    with pytest.raises(UserError, match="no usable"):
        describe(["cat"], 3, lambda _: "a cat", tmp_path / "other")


def test_class_names(tmp_path):
    assert len(class_names("imagenet")) == 1000
    (tmp_path / "names.txt").write_text("cat\n\ndog\ncat\n")
    assert class_names(str(tmp_path / "names.txt")) == ["cat", "dog"]
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\n")
    with pytest.raises(UserError, match=r"latin\.txt is not UTF-8"):
        class_names(str(tmp_path / "latin.txt"))
    with pytest.raises(UserError, match="one class a line"):
        class_names(str(tmp_path / "none"))
    assert lines_of("a Cat\nfur", "cat") == ["fur"]
    assert WORDS
