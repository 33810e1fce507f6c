import numpy as np
import pytest
from PIL import Image

from clipneurons.adversarial.composer import (
    Composer,
    Placement,
    overlap,
    photograph_composer,
    pictogram_composer,
)
from clipneurons.adversarial.descriptions import Description
from clipneurons.adversarial.image_generator import (
    MISSING,
    PRESENT,
    TARGET_SHOWN,
    GeneratedImage,
    ImageGeneratorError,
)
from clipneurons.synthetic.pasted import PastedPhotographs
from clipneurons.synthetic.photographs import load_photographs
from tests.helpers.packs import COLOURS, flat, flat_composer, flat_pack_file, share


@pytest.fixture(scope="module")
def composer():
    return flat_composer()


def test_pictures_show_what_they_say(composer):
    descriptions = [Description("", cues) for cues in ((), ("bone",), ("bones", "leash", "sofa"))]
    none, one, two = composer("cats", descriptions, [7, 7, 7])
    assert [p.objects for p in (none, one, two)] == [
        ("cat",), ("cat", "bone"), ("cat", "bone", "leash"),
    ]  # fmt: skip
    assert share(none.image, "bone") == 0
    assert share(one.image, "bone") > 0.02
    assert share(two.image, "bone") > 0.02
    assert share(two.image, "leash") > 0.02
    assert [p.seed for p in (none, one, two)] == [7, 7, 7]


def test_the_true_object_lies_on_top_and_is_the_same_whatever_the_cues(composer):
    cues = ("bone", "leash", "palm trees")
    for seed in range(20):
        alone, crowded = composer("cat", [Description("", ()), Description("", cues)], [seed] * 2)
        mine = (np.asarray(alone.image) == COLOURS["cat"]).all(-1)
        assert 0.43**2 < mine.mean() < 0.62**2
        assert np.array_equal(mine, (np.asarray(crowded.image) == COLOURS["cat"]).all(-1))
        ground = np.asarray(alone.image)[~mine]
        other = np.asarray(crowded.image)[~mine]
        assert (ground == other).all(-1).any()  # the ground is the same too


def test_what_is_hidden_is_not_said_to_be_seen(composer):
    pictures = composer("cat", [Description("", ("bone", "leash", "palm tree"))] * 50, range(50))
    for picture in pictures:
        for name in ("bone", "leash", "palm tree"):
            assert (name in picture.objects) is (share(picture.image, name) >= 0.01)


def test_the_seed_decides(composer):
    description = [Description("", ("bone",))]
    first, again, other = (
        np.asarray(next(composer("cat", description, [seed])).image) for seed in (1, 1, 2)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_cues_are_put_where_they_cover_little(composer):
    covered = []
    for seed in range(30):
        (picture,) = composer("cat", [Description("", ("bone",))], [seed])
        covered.append(share(picture.image, "bone"))
    assert sum(covered) / 30 > 0.8 * (0.385**2)  # whole on average, but for a fifth


def testoverlap_is_that_of_the_pixels():
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:400, :400] / 400 + 1 / 800
    for _ in range(20):
        places = [
            Placement(
                "", Image.new("RGBA", (1, 1)), *rng.uniform(0.3, 0.7, 2), rng.uniform(0.1, 0.5)
            )
            for _ in range(2)
        ]
        inside = [
            (abs(columns - p.x) < p.scale / 2) & (abs(rows - p.y) < p.scale / 2) for p in places
        ]
        assert overlap(*places) == pytest.approx((inside[0] & inside[1]).mean(), abs=5e-3)


def test_phrases_are_drawable_by_name_and_not_when_they_show_the_target_class(composer):
    drawable = composer.drawable("dog")
    wanted = {"bone": "bone", "the Bones": "bone", "palm trees": "palm tree", "palm": None,
              "sofa": None, "poodle": None, "pets": None, "a white bone": "bone",
              "orange": None, "bone white": None}  # fmt: skip
    assert {phrase: drawable(phrase) for phrase in wanted} == wanted
    assert composer.drawable("whale")("pets") == "poodle"
    assert composer.drawable("bones")("bone") is None


def test_what_a_picture_shows_is_checked_exactly(composer):
    pictures = list(
        composer("cat", [Description("", c) for c in ((), ("poodle",), ("bone",))], [0, 0, 0])
    )
    checks = [(composer.check(p, "cat", "dog"), composer.check(p, "bone", "x")) for p in pictures]
    assert checks == [(PRESENT, MISSING), (TARGET_SHOWN, MISSING), (PRESENT, PRESENT)]
    unknown = GeneratedImage(pictures[0].image, pictures[0].description, 0)
    assert composer.check(unknown, "cat", "dog") == MISSING


def test_a_class_without_a_pictogram_is_refused_with_others_to_choose(composer):
    with pytest.raises(ImageGeneratorError, match=r"no pictogram of 'cot' .* \(such as cat"):
        next(composer("cot", [Description("", ())], [0]))
    for sprites, size in (({}, 64), ({"cat": []}, 64), ({"cat": [flat((0, 0, 0))]}, 8)):
        with pytest.raises(ValueError, match="expected"):
            Composer(sprites, size=size)


def test_wide_drawings_keep_their_shape():
    composer = Composer({"cat": [flat((255, 0, 0), 20, 60)]}, size=96)
    image = next(composer("cat", [Description("", ())], [0])).image
    rows, columns = np.nonzero((np.asarray(image) == (255, 0, 0)).all(-1))
    assert np.ptp(columns) / np.ptp(rows) == pytest.approx(3, rel=0.15)


def test_a_pack_gives_the_same_pictures(composer, tmp_path):
    from_pack = pictogram_composer(path=flat_pack_file(tmp_path / "pack.safetensors"))
    assert set(from_pack.concepts) == set(COLOURS)
    assert from_pack.shows("poodle", "dogs")
    description = [Description("", ("bone",))]
    one, other = (next(c("cat", description, [3])) for c in (composer, from_pack))
    assert np.array_equal(np.asarray(one.image), np.asarray(other.image))
    assert one.objects == other.objects


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
    assert composer.sprites["pizza"][0][..., :3].tolist() in drawn
    assert len(composer.sprites["pizza"]) == len(drawn)
    assert (composer.sprites["apple"][0][..., 3] == 0).any(), "a pictogram"


def test_a_photograph_shows_its_kind():
    composer = photograph_composer(64)
    assert composer.drawable("dog")("a dalmatian") is None
    assert composer.drawable("cat")("a dalmatian") == "dalmatian"
    (picture,) = composer("gramophone", [Description("", ("dalmatian",))], [0])
    assert composer.check(picture, "gramophone", "dog") == TARGET_SHOWN
    assert composer.check(picture, "gramophone", "cat") == PRESENT
