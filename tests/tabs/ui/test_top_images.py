"""Groups of a card's images: names only where they fit."""

from dataclasses import replace

import pytest
import torch

from clipneurons.bundle.image_groups import GROUPS, NAMED, SHOWN, ImageGroups
from clipneurons.bundle.weaker_images import FEW, PAD, sampled
from clipneurons.dictionary.dictionary import Dictionary
from tabs.ui.card_files import card_data
from tabs.ui.neuron_card import card_html
from tabs.ui.top_images import group_images, shown_images, stored_groups, weaker_images
from tests.helpers.tiny import tiny_bundle, tiny_labels


@pytest.fixture(scope="module")
def bundle():
    """Unit 3 of layer 1 has three groups: a pure one, one of many things, an untested one."""
    bundle = tiny_bundle()
    labels = tiny_labels(bundle)
    images = torch.full((16, SHOWN), -1)
    images[3, :6] = torch.tensor([0, 0, 0, 1, 1, 2])
    text = torch.full((16, GROUPS), -1)
    text[3, :3] = torch.tensor([0, 1, 2])
    purity = torch.full((16, GROUPS), torch.nan)
    purity[3, :2] = torch.tensor([NAMED + 0.21, NAMED - 0.21])
    groups = ImageGroups(images, text, purity, purity)
    return replace(bundle, labels=labels | {1: replace(labels[1], groups=groups)})


def drawn(bundle, layer, unit, groups):
    dictionary = Dictionary(bundle)
    return card_html("key", dictionary, dictionary.card(layer, unit), groups, [])


def test_a_group_has_a_name_only_where_held_out_images_show_it(bundle):
    found = stored_groups(bundle, 1, 3)
    assert [group.members for group in found] == [(0, 1, 2), (3, 4), (5,)]
    assert [group.name for group in found] == ["cat", "", ""]
    page = drawn(bundle, 1, 3, found)
    assert "cat <small>3 pictures, 71 % of other pictures like these show it" in page
    assert "no name fits: “dog” is in 29 % of other pictures like these" in page
    assert "too few other pictures" in page


def test_the_groups_are_in_the_data(bundle):
    card = Dictionary(bundle).card(1, 3)
    shown = [image for image, _ in shown_images(bundle, card)]
    first, second, third = card_data(bundle, card)["groups"]
    assert (first["text"], first["images"]) == ("cat", shown[:3])
    assert first["purity"] == pytest.approx(NAMED + 0.21)
    assert (second["images"], third["images"]) == (shown[3:5], shown[5:6])
    assert (third["purity"], third["auc"]) == (None, None)
    old = tiny_bundle()
    assert card_data(old, Dictionary(old).card(1, 3))["groups"] is None


def test_a_unit_of_one_kind_has_no_titles_and_an_old_bundle_no_stored_groups(bundle):
    assert stored_groups(bundle, 1, 4) == []
    assert "cn-group" not in drawn(bundle, 1, 4, [])
    assert stored_groups(bundle, 2, 3) is None
    assert stored_groups(tiny_bundle(), 1, 3) is None


@pytest.fixture(scope="module")
def two_kinds(bundle):
    """Five images of one thing, seven of as many things beside what nothing names."""
    generator = torch.Generator().manual_seed(0)
    texts = bundle.text_embeddings - bundle.text_embeddings.mean(0)
    noise = 0.02 * torch.randn(12, 24, generator=generator)
    odd = torch.linalg.qr(torch.cat([texts, torch.randn(1, 24, generator=generator)]).T)[0][:, -1]
    return torch.cat([texts[:1].repeat(5, 1), odd + 0.3 * texts[1:8]]) + noise


@pytest.mark.parametrize(
    ("captions", "name", "note"),
    [
        ((), "cat", "name not tested"),
        (("a Cat on red", "cats", "cat", "a dog", "a cat", *["a dog"] * 15), "cat",
         "60 % of their captions say so"),
        (("cats", "concatenate", "cat", "cat", *["a dog"] * 16), "", "no one name fits"),
    ],
)  # fmt: skip
def test_an_untested_name_is_given_where_most_captions_or_images_have_it(
    bundle, two_kinds, captions, name, note
):
    bundle = replace(bundle, examples=replace(bundle.examples, captions=captions))
    found = group_images(two_kinds, Dictionary(bundle), torch.zeros(24), 0.12, range(12))
    groups = {group.members[0]: group for group in found}
    assert groups[0].members == (0, 1, 2, 3, 4)
    assert (groups[0].name, groups[0].note) == (name, note)
    assert (groups[5].name, groups[5].note) == ("", "no one name fits")


def test_weaker_images_are_of_the_middle_and_the_end_and_none_is_shown_twice():
    bundle = tiny_bundle(top_k=100, images=100)
    card = Dictionary(bundle).card(1, 3)
    strong = [image for image, _ in shown_images(bundle, card)]
    (title, middle), (_, weak) = weaker_images(bundle, card)
    ranks = {image: rank for rank, (image, _) in enumerate(card.images)}
    assert [ranks[image] for image in strong] == list(range(SHOWN))
    assert [ranks[image] for image, _ in middle] == list(range(46, 54))
    assert [ranks[image] for image, _ in weak] == list(range(92, 100))
    few = tiny_bundle()
    assert weaker_images(few, Dictionary(few).card(1, 3)) == []
    assert "Weaker reactions" not in drawn(few, 1, 3, [])
    assert title == "The middle of its 100 strongest"
    assert title in drawn(bundle, 1, 3, [])


def test_weaker_images_are_of_the_whole_data_set_where_the_bundle_has_such():
    bundle = tiny_bundle(images=80)
    known, places = sampled(bundle.examples), torch.full((16, FEW), PAD)
    middle, weak = places.clone(), places.clone()
    middle[3, :2], weak[4, 0] = torch.tensor([5, 0]), 63
    arrays = replace(bundle.layers[1], middle_images=middle, weak_images=weak)
    bundle = replace(bundle, layers=bundle.layers | {1: arrays})
    dictionary = Dictionary(bundle)
    ((title, images),) = weaker_images(bundle, dictionary.card(1, 3))
    assert title == "From the middle half of all images"
    assert images == [(known[5], None), (known[0], None)]
    ((title, images),) = weaker_images(bundle, dictionary.card(1, 4))
    assert title == "From the quarter of all images in which it does least"
    assert images == [(known[63], None)]
    assert title in drawn(bundle, 1, 4, [])
    assert weaker_images(bundle, dictionary.card(1, 5)) == []


def test_a_picture_says_what_it_shows_and_leads_to_other_tabs(bundle):
    page = drawn(bundle, 1, 3, [])
    image, _ = Dictionary(bundle).card(1, 3).images[0]
    assert f"<p>colour {image}</p>" in page
    for tab in ("concepts", "segmentation", "edit"):
        assert f"?tab={tab}&amp;picture={image}&amp;bundle=key" in page
