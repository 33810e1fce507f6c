import numpy as np
import pytest
import torch

from clipneurons.adversarial.descriptions import Description
from clipneurons.adversarial.image_generator import (
    SETTINGS,
    Cancelled,
    DiffusersGenerator,
    ImageGeneratorError,
    image_seeds,
)
from tests.helpers.pipelines import painter_folder

# diffusers hands torch tensors to numpy in a way that numpy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
DESCRIPTIONS = [Description("a cat with a bone", ("bone",)), Description("a cat", ())]

SEEDS = image_seeds(2, seed=5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(painter_folder(tmp_path_factory.mktemp("painter")))


def pixels(images):
    return [np.asarray(image.image) for image in images]


def test_images_are_drawn_in_order_with_a_seed_each(folder):
    draw = DiffusersGenerator(folder, device="cpu", steps=2, size=32)
    images = list(draw("cat", DESCRIPTIONS, SEEDS))
    assert [p.description for p in images] == DESCRIPTIONS
    assert [p.seed for p in images] == SEEDS
    assert {p.image.size for p in images} == {(32, 32)}
    assert all(p.objects is None for p in images)
    again, other = (pixels(draw("cat", DESCRIPTIONS, s)) for s in (SEEDS, [8, 9]))
    first = pixels(images)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_every_image_has_a_seed_of_its_own():
    assert len(set(image_seeds(1000, 0))) == 1000
    assert image_seeds(5, 1) == image_seeds(9, 1)[:5] != image_seeds(5, 2)


def test_one_image_can_be_drawn_again_alone(folder):
    draw = DiffusersGenerator(folder, device="cpu", steps=1, size=16)
    image = list(draw("cat", DESCRIPTIONS, SEEDS))[1]
    (alone,) = draw("cat", [image.description], [image.seed])
    assert np.array_equal(np.asarray(alone.image), np.asarray(image.image))


def test_the_prompt_and_the_number_of_steps_matter(folder):
    draw = DiffusersGenerator(folder, device="cpu", steps=1, size=16)
    more = DiffusersGenerator(folder, device="cpu", steps=3, size=16)
    asked = ("cat", DESCRIPTIONS[:1], SEEDS[:1])
    assert not np.array_equal(pixels(draw(*asked))[0], pixels(more(*asked))[0])
    assert draw.options == {"num_inference_steps": 1, "height": 16, "width": 16}


def test_distilled_models_get_their_own_settings(folder, monkeypatch):
    monkeypatch.setitem(SETTINGS, folder, (1, 0.0))
    assert DiffusersGenerator(folder, device="cpu").options == {
        "num_inference_steps": 1,
        "guidance_scale": 0.0,
    }
    assert DiffusersGenerator(folder, device="cpu", steps=2).options["num_inference_steps"] == 2


def test_progress_is_reported_and_a_cancelled_image_stops(folder):
    shares = []
    draw = DiffusersGenerator(folder, device="cpu", steps=4, size=16, progress=shares.append)
    next(draw("cat", DESCRIPTIONS, SEEDS))
    assert shares == [0.25, 0.5, 0.75, 1.0]
    stop = DiffusersGenerator(
        folder, device="cpu", steps=4, size=16, progress=shares.append,
        cancelled=lambda: len(shares) >= 6,
    )  # fmt: skip
    with pytest.raises(Cancelled):
        next(stop("cat", DESCRIPTIONS, SEEDS))
    assert len(shares) == 6


def test_a_missing_generator_and_a_missing_gpu_are_said_at_once(tmp_path, folder, monkeypatch):
    with pytest.raises(ImageGeneratorError, match="could not be loaded"):
        DiffusersGenerator(str(tmp_path / "nothing"), device="cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ImageGeneratorError, match="no CUDA device"):
        DiffusersGenerator(folder, device="cuda")


def test_full_memory_is_said(folder, monkeypatch):
    draw = DiffusersGenerator(folder, device="cpu", steps=1, size=16)

    def full(*_args, **_options):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(type(draw.pipeline), "__call__", full)
    with pytest.raises(ImageGeneratorError, match="memory is full"):
        next(draw("cat", DESCRIPTIONS, SEEDS))
