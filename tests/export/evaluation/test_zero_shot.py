"""The prompts that classes are put in."""

from types import SimpleNamespace

import pytest

from export.evaluation.zero_shot import templates_of


@pytest.mark.parametrize(
    ("siglip", "model", "expected"),
    [
        (False, ".", "photo"),
        (False, "ViT-B-32", "simple"),
        (True, "ViT-B-16-SigLIP2", "siglip"),
        (True, ".", "siglip"),
    ],
)
def test_prompts_fit_the_model_and_a_user_chooses_others(siglip, model, expected):
    clip = SimpleNamespace(siglip=siglip)
    bundle = SimpleNamespace(config=SimpleNamespace(model=model, ships_model=False))
    assert templates_of(("cat", "dog"), clip, bundle) == expected
    assert templates_of(("cat", "dog"), clip, bundle, "openai") == "openai"
    assert templates_of((), clip, bundle, "openai") is None
