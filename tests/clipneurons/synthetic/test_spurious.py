import numpy as np
import pytest

from clipneurons.synthetic.pictograms import load_pictograms
from clipneurons.synthetic.spurious import SpuriousScenes, SpuriousTask, mostly
from tests.helpers.packs import COLOURS, flat_pack_file

TASK = SpuriousTask(("cat", "bone"), ("leash", "poodle"))


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    return load_pictograms(flat_pack_file(tmp_path_factory.mktemp("pack") / "flat.safetensors"))


def near(image, colour):
    """Share of the pixels about as a colour is; scenes jitter it."""
    return float((np.abs(image.astype(int) - COLOURS[colour]) < 40).all(-1).mean())


def test_groups_hold_their_class_and_their_companion(pack):
    scenes = SpuriousScenes(pack, TASK, np.full((2, 2), 6), seed=1)
    assert len(scenes) == 24
    for index in range(len(scenes)):
        scene = scenes[index]
        assert (scene.label, scene.cue) == scenes.groups[index]
        assert near(scene.image, TASK.classes[scene.label]) > 0.1
        assert near(scene.image, TASK.cues[scene.cue]) > 0.05


def test_a_ground_can_be_the_cue(pack):
    task = SpuriousTask(("cat", "bone"), ("solid yellow", "solid blue"))
    scenes = SpuriousScenes(pack, task, np.full((2, 2), 4))
    for index in range(len(scenes)):
        red, _, blue = scenes[index].image[0, 0].tolist()
        assert (blue > red) == (scenes[index].cue == 1)


def test_scenes_depend_on_seed_and_number_alone(pack):
    one, again = (SpuriousScenes(pack, TASK, mostly(20, 0.8), seed=4) for _ in range(2))
    other = SpuriousScenes(pack, TASK, mostly(20, 0.8), seed=5)
    assert np.array_equal(one[7].image, again[7].image)
    assert np.array_equal(one[-1].image, again[len(one) - 1].image)
    assert not np.array_equal(one[7].image, other[7].image)
    with pytest.raises(IndexError, match="scene 20 of 20"):
        one[20]


def test_companions_may_come_from_another_pack(pack):
    class Photographs:
        def styles_of(self, concept):
            return ["photograph"]

        def variants(self, concept, style):
            return [np.full((64, 64, 4), 255, np.uint8)]

        def lookup(self, concept, style, variant=0):
            return self.variants(concept, style)[variant]

    task = SpuriousTask(("wolf", "husky"), ("leash", "palm tree"))
    scenes = SpuriousScenes(Photographs(), task, np.ones((2, 2), int), companions=pack)
    assert (scenes[0].image > 220).all(-1).mean() > 0.15
    assert near(scenes[0].image, "leash") > 0.05


def test_most_images_of_a_class_have_its_own_cue():
    assert mostly(200, 0.9).tolist() == [[90, 10], [10, 90]]
    assert mostly(90, 0.8, 3).tolist() == [[24, 3, 3], [3, 24, 3], [3, 3, 24]]


@pytest.mark.parametrize(
    ("classes", "cues", "message"),
    [
        (("cat",), ("leash",), "at least two classes"),
        (("cat", "bone"), ("leash",), "a cue for each"),
        (("cat", "bone"), ("leash", "cat"), "different names"),
    ],
)
def test_tasks_that_mean_nothing_are_refused(classes, cues, message):
    with pytest.raises(ValueError, match=message):
        SpuriousTask(classes, cues)
