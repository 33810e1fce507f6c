"""Image processors of transformers: the same pixels as their own, or refused by key."""

import json

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from clipneurons.models.clip import load_clip
from tests.clipneurons.models.test_transformers_clip import save_processing
from tests.helpers.families import transformers_model

SIDE = 32
CROPPED = {"size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}}
SQUASHED = {"size": {"height": SIDE, "width": SIDE}}
READ = {
    "CLIP's own": ("CLIP", CROPPED | {"do_center_crop": True}),
    "CLIP, crop unsaid": ("CLIP", CROPPED),
    "CLIP, size as a number": ("CLIP", {"size": SIDE, "crop_size": SIDE, "do_center_crop": True}),
    "CLIP squashed": ("CLIP", SQUASHED | {"do_center_crop": False}),
    "CLIP bilinear": ("CLIP", CROPPED | {"resample": 2}),
    "CLIP, nothing said": ("CLIP", CROPPED | {"image_mean": None, "image_std": None}),
    "SigLIP's own": ("Siglip", SQUASHED),
    "SigLIP bilinear": ("Siglip", SQUASHED | {"resample": 2}),
    "SigLIP, other colours": ("Siglip", SQUASHED | {"image_mean": [0.1, 0.2, 0.3]}),
}
REFUSED = {
    "no normalisation": ({"do_normalize": False}, "do_normalize"),
    "no rescaling": ({"do_rescale": False}, "do_rescale"),
    "no resizing": ({"do_resize": False}, "do_resize"),
    "another scale": ({"rescale_factor": 1 / 127.5}, "rescale_factor"),
    "a larger size": ({"size": {"shortest_edge": 40}, "do_center_crop": True}, "size"),
    "squashed, then cropped": (SQUASHED | {"do_center_crop": True}, "size"),
    "nearest": ({"resample": 0}, "resample"),
    "one mean for all": ({"image_mean": 0.5}, "image_mean"),
}


@pytest.fixture(scope="module")
def picture():
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 255, (8, 16, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((128, 64), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """A saved model of each kind, whose processor's file each test writes anew."""
    folders = {}
    for kind in ("CLIP", "Siglip"):
        folders[kind] = tmp_path_factory.mktemp(kind)
        transformers_model({"Siglip": "SigLIP"}.get(kind, kind)).save_pretrained(folders[kind])
        save_processing(folders[kind])
    return folders


def write(folder, kind, options):
    saved = {"image_processor_type": f"{kind}ImageProcessor", "image_mean": [0.5] * 3,
             "image_std": [0.25] * 3, "resample": 3} | options  # fmt: skip
    saved = {key: value for key, value in saved.items() if value is not None}
    (folder / "preprocessor_config.json").write_text(json.dumps(saved))
    return saved


@pytest.mark.parametrize(("kind", "options"), READ.values(), ids=READ)
def test_pixels_are_those_of_transformers(checkpoints, picture, kind, options):
    saved = write(checkpoints[kind], kind, options)
    own = getattr(transformers, f"{kind}ImageProcessorPil", None) or getattr(
        transformers, f"{kind}ImageProcessor"
    )
    expected = own(**saved)(picture, return_tensors="pt")["pixel_values"][0]
    found = load_clip(checkpoints[kind], device="cpu").preprocess(picture)
    # Both round the resized pixels to 8 bits.
    assert torch.allclose(found, torch.as_tensor(expected), atol=1e-3 + 1 / 255 / 0.25)
    assert (found - torch.as_tensor(expected)).abs().mean() < 1e-3


@pytest.mark.parametrize(("options", "key"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_expressed_is_refused_by_its_key(checkpoints, options, key):
    write(checkpoints["CLIP"], "CLIP", CROPPED | options)
    with pytest.raises(ValueError, match=f"{key}"):
        load_clip(checkpoints["CLIP"], device="cpu")


def test_a_checkpoint_without_its_tokenizer_is_refused(checkpoints, tmp_path):
    folder = tmp_path / "bare"
    transformers_model("CLIP").save_pretrained(folder)
    write(folder, "CLIP", CROPPED)
    with pytest.raises(ValueError, match="tokenizer"):
        load_clip(folder, device="cpu")


def test_damaged_weights_are_one_line(tmp_path):
    transformers_model("CLIP").save_pretrained(tmp_path)
    save_processing(tmp_path)
    file = tmp_path / "model.safetensors"
    content = file.read_bytes()
    for damaged, message in (
        (content[: len(content) // 2], "no whole safetensors file"),
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
    ):
        file.write_bytes(damaged)
        with pytest.raises(ValueError, match=message) as caught:
            load_clip(tmp_path, device="cpu")
        assert "\n" not in str(caught.value)
    file.rename(tmp_path / "model-00001-of-00002.safetensors")
    (tmp_path / "model-00001-of-00002.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=r"without model\.safetensors\.index\.json"):
        load_clip(tmp_path, device="cpu")
    (tmp_path / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"a": "model-00002-of-00002.safetensors"}})
    )
    with pytest.raises(ValueError, match="lacks model-00002-of-00002"):
        load_clip(tmp_path, device="cpu")
