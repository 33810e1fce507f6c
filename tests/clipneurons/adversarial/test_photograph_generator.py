import numpy as np

from clipneurons.adversarial.descriptions import Description
from clipneurons.adversarial.outcomes import PRESENT, TARGET_SHOWN
from clipneurons.adversarial.photograph_generator import photograph_composer
from clipneurons.synthetic.pasted import PastedPhotographs
from clipneurons.synthetic.photographs import load_photographs


def test_the_true_class_is_a_photograph_of_one_half_whatever_the_cues():
    """On a ground of at least 150 the pasted square is where it differs between the halves."""
    chosen, reported = photograph_composer(64), photograph_composer(64, heldout=True)
    descriptions = [Description("", cues) for cues in ((), ("apple", "pizza"))]
    for seed in range(4):
        alone, crowded = reported("gramophone", descriptions, [seed] * 2)
        (other,) = chosen("gramophone", descriptions[:1], [seed])
        assert alone.objects == ("gramophone",)
        assert crowded.objects[0] == "gramophone"
        one, two = np.asarray(alone.image), np.asarray(other.image)
        rows, columns = np.nonzero((one != two).any(-1))
        square = np.ix_(range(rows.min() + 1, rows.max()), range(columns.min() + 1, columns.max()))
        assert np.ptp(rows) >= 0.4 * 64
        assert np.array_equal(one[square], np.asarray(crowded.image)[square])


def test_cues_are_photographs_where_the_half_has_some():
    photographs = PastedPhotographs(load_photographs(), 1)
    composer = photograph_composer(64, heldout=True)
    assert set(photographs.rows) < set(composer.concepts)
    drawn = [d[..., :3].tolist() for d in photographs.variants("pizza", "photograph")]
    assert composer._sprites["pizza"][0][..., :3].tolist() in drawn
    assert len(composer._sprites["pizza"]) == len(drawn)
    assert (composer._sprites["apple"][0][..., 3] == 0).any(), "a pictogram"


def test_a_photograph_shows_its_kind():
    composer = photograph_composer(64)
    assert composer.drawable("dog")("a dalmatian") is None
    assert composer.drawable("cat")("a dalmatian") == "dalmatian"
    (picture,) = composer("gramophone", [Description("", ("dalmatian",))], [0])
    assert composer.check(picture, "gramophone", "dog") == TARGET_SHOWN
    assert composer.check(picture, "gramophone", "cat") == PRESENT
