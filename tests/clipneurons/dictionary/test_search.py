from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from clipneurons.dictionary.search import search
from tests.helpers.tiny import tiny_bundle, tiny_labels


@pytest.fixture(scope="module")
def bundle():
    bare = tiny_bundle()
    return replace(bare, labels=tiny_labels(bare))


def test_units_are_ordered_by_the_cosine_of_their_direction(bundle):
    result = search(bundle, "cat, -dog", top=3)
    cat, dog = torch.nn.functional.normalize(bundle.text_embeddings[:2], dim=1)
    vector = torch.nn.functional.normalize(cat - dog, dim=0)
    cosines = torch.cat([bundle.directions[layer] for layer in (1, 2)]) @ vector
    assert [unit.score for unit in result.toward] == pytest.approx(
        cosines.topk(3).values.tolist(), abs=1e-5
    )
    assert [unit.score for unit in result.against] == pytest.approx(
        (-(-cosines).topk(3).values).tolist(), abs=1e-5
    )
    assert result.to_dict()["toward"][0]["layer"] == result.toward[0].layer
    assert "Write toward it" in repr(result)
    assert "cat, -dog" in result._repr_html_()


def test_reliable_ones_alone_and_by_their_simulation_score(bundle):
    result = search(bundle, "cat", reliable=True, order="simulation_score")
    scores = [unit.simulation_score for unit in result.toward]
    assert scores == sorted(scores, reverse=True)
    assert all(unit.reliable for unit in result.toward)


def test_a_text_of_its_own_needs_the_model(bundle):
    with pytest.raises(ValueError, match=r"no text 'zebra': pass the model, search\(.*embed=clip"):
        search(bundle, "zebra")
    clip = SimpleNamespace(
        name="other", embed_dim=24, encode_text=lambda texts: bundle.directions[1][[5]]
    )
    assert search(bundle, "zebra", embed=clip).toward[0].score == pytest.approx(1, abs=1e-5)
    clip.embed_dim = 7
    with pytest.raises(ValueError, match=r"embeds texts in 7 numbers, .* in 24: pass the bundle's"):
        search(bundle, "zebra", embed=clip)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"query": " , "}, "Type what to look for"),
        ({"query": "cat, -cat"}, "cancel out"),
        ({"query": "zebra", "by": "decomposition"}, "No text of this bundle's pool contains"),
        ({"query": "cat", "by": "words"}, "by='words': expected 'direction' or 'decomposition'"),
        ({"query": "cat", "order": "name"}, "expected 'match' or 'simulation_score'"),
        ({"query": "cat", "top": 0}, "top=0: expected 1 to 100"),
        ({"query": "cat", "reliable": True}, "labels of this bundle were not tested"),
    ],
)
def test_what_is_wrong_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        search(tiny_bundle(), **options)
