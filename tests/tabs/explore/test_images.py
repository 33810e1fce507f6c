"""A dashboard's images: the strongest, weaker ones, where they lead."""

from dataclasses import replace

import torch

from clipneurons.bundle import thumbnails
from clipneurons.bundle.thumbnails import SHOWN
from clipneurons.bundle.weaker_images import FEW, PAD, sampled
from clipneurons.dictionary.dictionary import Dictionary
from tabs.explore.images import weaker_images
from tabs.explore.view import Measured, card_html
from tests.helpers.tiny import tiny_bundle


def drawn(bundle, layer, unit):
    dictionary = Dictionary(bundle)
    return card_html(
        "key", "b", dictionary, dictionary.bundle.unit(layer, unit), Measured([], [], [], {})
    )


def test_a_unit_shows_its_first_images_that_have_a_thumbnail():
    images = torch.tensor([5, 9, 7, -1])
    norms = torch.tensor([4.0, 3.0, 2.0, 0.0])
    assert thumbnails.shown_images(images, norms, {5, 7}) == [(5, 4.0), (7, 2.0)]
    assert len(thumbnails.shown_images(torch.arange(40), torch.zeros(40), range(40))) == SHOWN


def test_weaker_images_are_of_the_middle_and_the_end_and_none_is_shown_twice():
    bundle = tiny_bundle(top_k=100, images=100)
    card = bundle.unit(1, 3)
    strong = [image.index for image in card.images]
    (title, middle), (_, weak) = weaker_images(bundle, card)
    order = bundle.layers[1].top_activating_images[3].tolist()
    ranks = {image: rank for rank, image in enumerate(order)}
    assert [ranks[image] for image in strong] == list(range(SHOWN))
    assert [ranks[image] for image, _ in middle] == list(range(46, 54))
    assert [ranks[image] for image, _ in weak] == list(range(92, 100))
    few = tiny_bundle()
    assert weaker_images(few, few.unit(1, 3)) == []
    assert "cn-weaker" not in drawn(few, 1, 3)
    assert title == "The middle of its 100 strongest"
    assert title in drawn(bundle, 1, 3)


def test_weaker_images_are_of_the_whole_data_set_where_the_bundle_has_such():
    bundle = tiny_bundle(images=80)
    known, places = sampled(bundle.examples), torch.full((16, FEW), PAD)
    middle, weak = places.clone(), places.clone()
    middle[3, :2], weak[4, 0] = torch.tensor([5, 0]), 63
    arrays = replace(bundle.layers[1], middle_images=middle, weak_images=weak)
    bundle = replace(bundle, layers=bundle.layers | {1: arrays})
    dictionary = Dictionary(bundle)
    ((title, images),) = weaker_images(bundle, dictionary.bundle.unit(1, 3))
    assert title == "From the middle half of all images"
    assert images == [(known[5], None), (known[0], None)]
    ((title, images),) = weaker_images(bundle, dictionary.bundle.unit(1, 4))
    assert title == "From the quarter of all images in which it does least"
    assert images == [(known[63], None)]
    assert title in drawn(bundle, 1, 4)
    assert weaker_images(bundle, dictionary.bundle.unit(1, 5)) == []


def test_a_picture_says_what_it_shows_and_leads_to_other_tabs():
    bundle = tiny_bundle()
    page = drawn(bundle, 1, 3)
    image = bundle.unit(1, 3).images[0].index
    assert f"<p>colour {image}</p>" in page
    for tab in ("concepts", "segmentation", "edit"):
        assert f"?tab={tab}&amp;picture={image}&amp;bundle=key" in page


def test_photographs_come_first_and_the_rest_is_folded():
    bundle = tiny_bundle(top_k=20)
    images = [image.index for image in bundle.unit(1, 3).images]
    captions = tuple(
        "a photo of a cat" if i == images[-1] else "a drawing" for i in bundle.examples
    )
    page = drawn(replace(bundle, examples=replace(bundle.examples, captions=captions)), 1, 3)
    assert page.index("a photo of a cat") < page.index("a drawing")
    assert f"{len(images) - 12} more images" in page
