"""The baselines of the adversarial table against loops."""

from dataclasses import replace

import pytest
import torch

from clipneurons.adversarial.cue_request import CueRequest
from clipneurons.adversarial.cues import CLASS_TEMPLATES, find_cues
from clipneurons.bundle.stacked_units import StackedUnits
from clipneurons.lens.indirect import indirect_effects, mean_activations
from clipneurons.models.hooks import record_activations
from clipneurons.text.embedding import embed_texts
from research.papers import cue_baselines
from research.papers.indirect_decomposition import first_component, indirect_decompositions
from tests.helpers import naive_adversarial
from tests.helpers.models import images, tiny_resnet, tiny_vit
from tests.helpers.tiny import tiny_bundle


@pytest.fixture(scope="module")
def clip():
    return tiny_vit()


@pytest.fixture(scope="module")
def bundle(clip):
    return tiny_bundle((0, 2), clip.neurons, clip.heads, clip.embed_dim, components=4)


def ask(bundle, clip, scorer, **request):
    request = CueRequest("zebra", "whale", count=50, **request)
    return find_cues(bundle, clip, request, scorer=scorer)


def test_random_neurons_change_with_the_seed_and_never_are_dead(clip, bundle):
    arrays = bundle.layers[0]
    directions = torch.zeros_like(arrays.directions)
    directions[3:5] = arrays.directions[3:5]
    only = replace(bundle, layers={0: replace(arrays, directions=directions)})
    cues = ask(only, clip, cue_baselines.random_neurons(0), neurons=2)
    behind = {n.unit for cue in (*cues.positive, *cues.negative) for n in cue.units}
    assert behind == {3, 4}
    by_seed = [ask(bundle, clip, cue_baselines.random_neurons(s), neurons=3) for s in (0, 0, 1)]
    assert by_seed[0] == by_seed[1] != by_seed[2]


def test_random_words_change_with_the_seed(clip, bundle):
    drawn = {tuple(ask(bundle, clip, cue_baselines.random_words(s)).texts) for s in range(5)}
    assert len(drawn) > 1


def test_indirect_directions_are_those_of_a_loop_over_neurons(clip, bundle):
    batch = images(10, clip)
    shares = []
    decomposed = indirect_decompositions(
        clip, batch, [1], bundle.text_embeddings[:, :12], 3, top=4, batch_size=32,
        progress=shares.append,
    )  # fmt: skip
    means = mean_activations(clip, [batch], 1)
    with record_activations(clip.visual, ["transformer.resblocks.1.mlp.gelu"]) as tensors:
        clip.encode_image(batch)
    activations = tensors["transformer.resblocks.1.mlp.gelu"]
    for neuron in (0, 17, clip.neurons - 1):
        far = [(activations[i, :, neuron] - means[:, neuron]).norm() for i in range(10)]
        top = sorted(range(10), key=lambda i: -far[i])[:4]
        rows = indirect_effects(clip, batch[top], 1, torch.tensor([neuron]), means)[:, 0]
        expected = naive_adversarial.first_component(rows)
        assert (decomposed[1].directions[neuron].double() - expected).norm() < 1e-3
    assert shares == sorted(shares)
    assert shares[-1] == 1
    units = StackedUnits.of(decomposed)
    assert len(units.directions) == clip.neurons


def test_indirect_cues_are_the_formula_with_indirect_decompositions(clip, bundle):
    batch, asked = images(16, clip), []
    scorer = cue_baselines.indirect_effects(clip, lambda: asked.append(1) or batch, 4)(0)
    cues = ask(bundle, clip, scorer)
    decomposed = indirect_decompositions(clip, batch, [0, 2], bundle.text_embeddings, 4)
    true, target = embed_texts(clip, ["zebra", "whale"], CLASS_TEMPLATES)
    expected, _ = naive_adversarial.cue_scores(decomposed, bundle.texts, target - true, 100)
    scores = {cue.text: cue.score for cue in (*cues.positive, *cues.negative)}
    assert scores == pytest.approx({bundle.texts[j]: s for j, s in expected.items() if s}, abs=1e-5)
    assert ask(bundle, clip, scorer) == cues
    assert len(asked) == 1, "measured once"


def test_indirect_effects_need_a_vit_and_enough_images(clip):
    with pytest.raises(ValueError, match="ViT"):
        indirect_decompositions(tiny_resnet(), torch.zeros(3, 3, 64, 64), [4], torch.eye(12), 2)
    with pytest.raises(ValueError, match="at least 16 images"):
        indirect_decompositions(clip, images(3, clip), [0], torch.eye(12), 2)


def test_a_neuron_without_effect_has_no_direction():
    rows = torch.randn(3, 5, 7, generator=torch.Generator().manual_seed(0))
    rows[1] = 0
    directions = first_component(rows)
    assert directions.norm(dim=-1).tolist() == pytest.approx([1, 0, 1])
