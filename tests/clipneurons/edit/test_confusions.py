"""Confusions of a classifier: what units add is their effect, ablations are forward passes."""

import pytest
import torch
from torch.nn.functional import normalize

from clipneurons.edit.class_effects import ClassEffects
from clipneurons.edit.confusions import RANDOM_SETS, UNITS, ConfusionReader, eight_bits
from clipneurons.edit.edit import Edit
from clipneurons.edit.reading import EditReader
from clipneurons.lens.lens import Lens
from tests.helpers.models import tiny_vit
from tests.helpers.tiny import tiny_bundle

NAMES = ("cat", "dog", "red car")


@pytest.fixture(scope="module")
def reader():
    clip = tiny_vit(embed_dim=24)
    bundle = tiny_bundle(clip=clip)
    return ConfusionReader(EditReader(Lens(clip, bundle.config.layers), bundle), NAMES)


@pytest.fixture(scope="module")
def images(reader):
    generator = torch.Generator().manual_seed(0)
    size = reader.clip.image_size
    pixels = torch.randint(0, 256, (40, 3, *size), generator=generator, dtype=torch.uint8)
    return pixels, torch.arange(40) % 3


def normalised(reader, pixels):
    mean, std = (
        torch.tensor(values)[:, None, None]
        for values in (reader.clip.image_mean, reader.clip.image_std)
    )
    return (pixels.float() / 255 - mean) / std


def test_predictions_matrix_and_pairs_agree(reader, images):
    confusions = reader.read(*images)
    embedded = normalize(reader.clip.encode_image(normalised(reader, images[0])), dim=1)
    assert torch.equal(confusions.predicted, (embedded @ reader.classes.T).argmax(1))
    for row in range(3):
        for column in range(3):
            both = (confusions.labels == row) & (confusions.predicted == column)
            assert confusions.matrix[row, column] == both.sum()
    wrong = (confusions.predicted != confusions.labels).nonzero().flatten().tolist()
    assert sorted(i for pair in confusions.pairs for i in pair.images) == wrong
    sizes = [len(pair.images) for pair in confusions.pairs]
    assert sizes == sorted(sizes, reverse=True)
    assert confusions.accuracy == pytest.approx(1 - len(wrong) / 40)


def test_units_of_a_pair_add_most_to_the_wrong_class(reader, images):
    confusions = reader.read(*images)
    pair = confusions.pairs[0]
    rows = normalised(reader, images[0][list(pair.images)])
    _, effects, _ = ClassEffects(reader.reader.bundle, reader.reader.lens, reader.classes)(rows)
    right, wrong = NAMES.index(pair.correct), NAMES.index(pair.predicted)
    mean = (effects[:, :, wrong] - effects[:, :, right]).mean(0)
    expected = mean.topk(UNITS)
    assert [push.adds for push in pair.units] == pytest.approx(expected.values.tolist(), abs=1e-4)
    dictionary = reader.reader.dictionary
    assert [dictionary.row(push.layer, push.unit) for push in pair.units] == (
        expected.indices.tolist()
    )


def test_an_ablation_is_measured_on_all_images(reader, images):
    confusions = reader.read(*images)
    units = [(push.layer, push.unit) for push in confusions.pairs[0].units]
    seen = []
    ablation = reader.ablate(confusions, units, lambda *step: seen.append(step))
    model = reader.reader.edited_model(Edit.ablating(reader.reader.bundle, units))
    embedded = normalize(model.encode_image(normalised(reader, images[0])), dim=1)
    right = (embedded @ reader.classes.T).argmax(1) == confusions.labels
    before = confusions.predicted == confusions.labels
    assert ablation.before == confusions.accuracy
    assert ablation.after == pytest.approx(float(right.float().mean()))
    assert ablation.corrected - ablation.broken == int(right.sum()) - int(before.sum())
    assert len(ablation.random) == RANDOM_SETS
    assert seen[0][1] == (1 + RANDOM_SETS) * 40


def test_eight_bits_are_what_the_model_reads(reader, images):
    pixels = normalised(reader, images[0])[0]
    assert torch.equal(eight_bits(reader.clip, pixels), images[0][0])


def test_one_class_is_refused(reader):
    with pytest.raises(ValueError, match="at least two classes, found 1"):
        ConfusionReader(reader.reader, ["cat"])
