"""The shipped photographs as a data set, and two data sets as one."""

from collections import Counter

import numpy as np
import pytest

from clipneurons.synthetic import photographs
from export.common.errors import SourceError
from export.common.settings import Settings
from export.data.open_source import open_source
from export.pipeline.inputs import heldout_images
from tests.helpers.models import tiny_vit


def test_photographs_come_with_their_names():
    source = open_source("photographs")
    (raw,) = source.raws([5])
    content = raw.load()
    pack = photographs.load_photographs()
    row = next(i for i in range(len(pack)) if pack.data(i) == content.data)
    assert source.class_names[content.label] == pack.name(row)
    assert content.caption.endswith(pack.name(row))
    assert "cougar" in source.class_names
    assert "cougar face" not in source.class_names


def test_a_third_of_each_name_is_kept_for_figures():
    def files(source):
        return [raw.load().data for raw in source.raws(range(len(source)))]

    read, kept = open_source("photographs"), open_source("photographs", heldout=True)
    assert kept.name == "held-out photographs"
    pack = photographs.load_photographs()
    assert sorted(files(read) + files(kept)) == sorted(pack.data(i) for i in range(len(pack)))
    counts = Counter(pack.name(i) for i in range(len(pack)))
    assert len(kept) == sum(count // 3 for count in counts.values())
    assert set(kept.class_names) == {name for name, count in counts.items() if count >= 3}


@pytest.mark.parametrize("images", ["photographs", "scenes:50+photographs"])
def test_figures_are_measured_on_what_the_export_did_not_see(images):
    source = heldout_images(Settings(images=images), tiny_vit())
    assert "held-out photographs" in source.name
    assert len(source) == len(open_source("photographs", heldout=True)) + 1000 * ("+" in images)


def test_scenes_and_photographs_are_one_data_set():
    both, scenes = open_source("scenes:20+photographs"), open_source("scenes:20")
    alone = open_source("photographs")
    assert len(both) == 20 + len(alone)
    found = [raw.load() for raw in both.raws([25, 3, 20])]
    assert [raw.index for raw in both.raws([25, 3, 20])] == [25, 3, 20]
    wanted = [next(iter(s.raws([i]))).load() for s, i in ((alone, 5), (scenes, 3), (alone, 0))]
    for mine, theirs, source in zip(found, wanted, (alone, scenes, alone), strict=True):
        assert mine.caption == theirs.caption
        if theirs.label is not None:
            assert both.class_names[mine.label] == source.class_names[theirs.label]
    np.testing.assert_array_equal(np.asarray(found[1].data), np.asarray(wanted[1].data))
    assert found[0].data == wanted[0].data


def test_missing_photographs_are_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr(photographs, "FILE", tmp_path / "none")
    with pytest.raises(SourceError, match="no photographs at"):
        open_source("photographs")


def test_the_truth_of_both_is_each_one_s_own():
    both = open_source("scenes:20+photographs:held-out")
    scenes, held = open_source("scenes:20"), open_source("photographs", heldout=True)
    texts = ["red", "an animal", "a motorcycle", "nothing of the kind"]
    truth = both.truth(texts)
    assert truth.known.tolist() == [True, True, True, False]
    mine = truth.rows([21, 3, 40])
    for row, (source, own) in zip(mine, ((held, 1), (scenes, 3), (held, 20)), strict=True):
        np.testing.assert_array_equal(row, source.truth(texts).rows([own])[0])
    every = held.truth(texts).rows(range(len(held)))
    names = [held.pack.name(i) for i in range(len(held))]
    assert every[:, 2].tolist() == [float(name == "motorcycle") for name in names]
