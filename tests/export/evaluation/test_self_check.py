"""A model that is read otherwise than it was trained shows before a run."""

import json
from dataclasses import replace

import pytest
from open_clip.transform import PreprocessCfg, image_transform_v2

from clipneurons.bundle.config import BundleConfig, BundleDamaged
from clipneurons.models.clip import load_clip
from clipneurons.models.preprocessing import KNOWN
from export.evaluation.self_check import self_check
from tests.helpers.models import tiny_vit
from tests.helpers.tiny import tiny_bundle


def test_another_reading_that_fits_better_is_asked_about():
    clip = load_clip("artifacts/mini-rn", device="cpu")
    mean, std, _, _ = KNOWN["clip"]
    wrong = image_transform_v2(PreprocessCfg(clip.image_size, mean=mean, std=std), is_train=False)
    checked = self_check(replace(clip, preprocess=wrong, image_mean=mean), other_readings=True)
    assert checked.better == ("--preprocess siglip",)
    assert "are you sure? --preprocess siglip fits better" in checked.line()
    assert set(checked.figure.others) == {"--preprocess siglip", "--activation quick_gelu"}
    assert not clip.quick_gelu, "activations are put back"
    assert checked.figure.others["--preprocess siglip"] == self_check(clip).figure.right


def test_a_model_that_knows_nothing_is_near_chance():
    checked = self_check(tiny_vit())
    assert not checked.figure.others
    assert "near chance" in checked.line()


def test_without_the_photographs_nothing_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr("clipneurons.synthetic.photographs.FILE", tmp_path / "none")
    assert self_check(tiny_vit()) is None


@pytest.mark.parametrize("wrong", [{"right": 99}, {"others": {"<b>": 1}}, {"photographs": 0}])
def test_a_bundle_cannot_claim_what_cannot_be(wrong):
    check = {"photographs": 2, "classes": 2, "right": 1, "others": {"--activation gelu": 1}}
    values = json.loads(tiny_bundle().config.to_json())
    assert BundleConfig.from_json(json.dumps(values | {"self_check": check})).self_check.right == 1
    damaged = json.dumps(values | {"self_check": check | wrong})
    with pytest.raises(BundleDamaged, match="self_check"):
        BundleConfig.from_json(damaged)
