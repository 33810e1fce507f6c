from dataclasses import replace

import pytest

from clipneurons.bundle.unit_words import signed, signed_words
from tests.helpers.tiny import tiny_bundle, tiny_labels


def test_a_table_has_a_row_a_unit(bundle):
    table = bundle.to_pandas()
    assert list(zip(table["layer"], table["unit"], strict=True)) == [
        (layer, unit) for layer in (1, 2) for unit in range(16)
    ]
    row, label = table.iloc[16 + 5], bundle.label(2, 5)
    assert row["label"] == ", ".join(signed_words(bundle, 2, 5))
    assert row["decomposition"].split(", ")[0] == signed(*bundle.phrases(2, 5, 1)[0])
    assert (row["reliable"], row["simulation_score"]) == (label.reliable, label.simulation_score)
    assert row["explained_variance"] == float(bundle.layers[2].explained_variance[5])


def test_what_was_not_tested_is_missing():
    bundle = tiny_bundle(kind="resnet", neurons=3, heads=2)
    table = bundle.to_pandas()
    assert table["simulation_score"].isna().all()
    assert list(table["head"]) == [0, 1] * 3


@pytest.fixture(scope="module")
def bundle():
    bare = tiny_bundle(layers=(1, 2))
    return replace(bare, labels=tiny_labels(bare))
