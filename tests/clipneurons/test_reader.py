"""The reader: what it gives is what the features' own functions give; bad input is named."""

import json
from dataclasses import replace

import pytest
import torch
from PIL import Image

from clipneurons.bundle.config import BundleMismatch
from clipneurons.concepts.image_concepts import read_image
from clipneurons.reader import Reader, compare_sets, find_cues
from clipneurons.segmentation.segment import segment
from tests.helpers.models import tiny_resnet, tiny_vit
from tests.helpers.tiny import tiny_bundle, tiny_labels


def noise(seed, size=(48, 32)):
    generator = torch.Generator().manual_seed(seed)
    return Image.fromarray(
        torch.randint(0, 256, (*size[::-1], 3), generator=generator).byte().numpy()
    )


@pytest.fixture(scope="module", params=[tiny_vit, tiny_resnet], ids=["vit", "resnet"])
def reader(request):
    clip = request.param(embed_dim=24)
    bundle = tiny_bundle(clip=clip, top_k=3)
    for arrays in bundle.layers.values():
        arrays.percentile.zero_()
    return Reader(clip, replace(bundle, labels=tiny_labels(bundle)))


def drawn(result):
    """Drawn in a notebook, printed and as JSON: all say something."""
    assert repr(result)
    json.dumps(result.to_dict())
    page = result._repr_html_()
    assert page.count("<article") == page.count("</article>") == 1
    return page


def test_concepts_are_those_of_the_preprocessed_image(reader, tmp_path):
    noise(1).save(tmp_path / "image.png")
    result = reader.concepts(tmp_path / "image.png", top=4)
    expected = read_image(reader.concept_reader, reader.clip.preprocess(noise(1)), top=4)
    assert result.concepts == expected.concepts
    assert result.share_seen == pytest.approx(32 / 48)
    assert result.image.size == reader.clip.image_size[::-1]
    assert "data:image/png" in drawn(result)


def test_top_units_are_those_behind_the_concepts(reader):
    units = reader.top_units(noise(1), top=5)
    assert units == reader.concepts(noise(1)).neurons[:5]
    label = reader.bundle.unit(units[0].layer, units[0].unit).label
    assert bool(units[0].label) == label.reliable


def test_masks_are_those_of_segment_for_what_is_in_the_image(reader):
    masks = reader.segment(noise(2), ["cat", "dog"], anyway=True)
    result = segment(reader.clip, noise(2), ["cat", "dog"], others=reader.contrast)
    assert torch.equal(masks.mask("dog"), result.mask(1))
    assert masks.mask("dog").shape == (32, 48)
    assert drawn(masks).count("<figure>") == 1 + 2 * 2
    found = reader.segment(noise(2), ["cat", "dog"])
    assert found.shown == [i for i, presence in enumerate(found.presence) if presence.found]
    assert not found.masks(0.3)[[i for i in (0, 1) if i not in found.shown]].any()
    with pytest.raises(ValueError, match=r"'boat' was not looked for: expected one of \['cat', "):
        masks.mask("boat")


def test_an_edit_changes_what_ablating_its_unit_changes(reader):
    layer = reader.lens.layers[0]
    unedited = reader.edit(noise(3), {(layer, 0): 1}, ["cat", "dog"])
    ablated = reader.edit(noise(3), {(layer, 0): 0, (layer, 3): 2.5}, ["cat", "dog"], wanted="cat")
    assert unedited.result() == pytest.approx(unedited.before(), abs=1e-5)
    assert ablated.before() == pytest.approx(unedited.before(), abs=1e-5)
    parts = {(part.rules[0].layer, part.rules[0].unit): part for part in ablated.parts}
    assert parts[layer, 3].strength == 1.5
    assert "Under the edit" in drawn(ablated)


def test_sets_that_differ_are_told_in_what(reader, tmp_path):
    (tmp_path / "usual").mkdir()
    for seed in range(6):
        noise(seed, (32, 32)).save(tmp_path / "usual" / f"{seed}.png")
    new = [noise(seed, (32, 32)).convert("L").convert("RGB") for seed in range(6, 12)]
    steps = []
    result = compare_sets(
        reader, tmp_path / "usual", new, permutations=60,
        progress=lambda share, text: steps.append((share, text)),
    )  # fmt: skip
    assert result.images == {"reference": 6, "new": 6}
    assert result.significant
    assert [change.measure for change in result.pixels][:1] == ["saturation"]
    assert len(result.shown) == len(result.changed_images)
    assert "The sets differ" in drawn(result)
    assert steps == sorted(steps)
    assert steps[-1] == (1.0, "Done")


def test_cues_leave_out_the_classes_and_the_blocked(reader):
    result = find_cues(reader, "cat", "dog", blocked=["car"], count=3)
    assert not {"cat", "dog", "red car"} & set(result.texts)
    assert "read as dog" in drawn(result)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda reader, _: reader.concepts("no.png"), "no image at no.png"),
        (lambda reader, text: reader.concepts(text), "is not an image that Pillow reads"),
        (lambda reader, _: reader.segment(noise(0), []), "expected at least one class name"),
        (lambda reader, _: reader.segment(noise(0), "cat"), r"a list of names, such as \['cat'\]"),
        (lambda reader, _: reader.segment(noise(0), ["a"], threshold=3), "threshold=3: expected"),
        (lambda reader, _: reader.edit(noise(0), {}, ["cat"]), "at least two class names"),
        (lambda reader, _: reader.edit(noise(0), {(9, 0): 0}, ["a", "b"]), "no layer 9"),
        (lambda reader, _: reader.edit(noise(0), {}, ["a", "b"], wanted="c"), "one of a, b"),
        (lambda reader, _: compare_sets(reader, "no/", []), "reference: no is no folder"),
        (lambda reader, _: compare_sets(reader, [noise(0)], []), "reference: .* got 1"),
        (lambda reader, _: compare_sets(reader, [noise(0)] * 2, [], level=2), "between 0 and 1"),
        (lambda reader, _: find_cues(reader, "cat", "cat"), "expected two different classes"),
        (lambda reader, _: find_cues(reader, "cat", "dog", layers=[9]), "expected layers among"),
        (lambda reader, _: find_cues(reader, "cat", "dog", method="x"), "method must be one of"),
    ],
)
def test_bad_input_is_named(reader, tmp_path, call, message):
    text = tmp_path / "text.png"
    text.write_text("no image")
    with pytest.raises((ValueError, FileNotFoundError), match=message) as raised:
        call(reader, text)
    assert "\n" not in str(raised.value)


def test_a_bundle_of_another_model_is_refused(reader):
    other = tiny_vit(embed_dim=24, seed=1)
    with pytest.raises(BundleMismatch, match="the bundle was made with"):
        Reader(other, reader.bundle)
