"""Labels in other tools' files, and other tools' labels in the bundle's test."""

import csv
import gzip
import json
from dataclasses import replace

import pytest

from clipneurons.bundle.bundle import load_bundle, save_bundle
from export.__main__ import main
from tests.helpers.tiny import tiny_bundle_folder, tiny_labels


@pytest.fixture(scope="module")
def tested(tmp_path_factory):
    """A bundle with labels, those of layer 1 of one text each."""
    folder = tiny_bundle_folder(tmp_path_factory.mktemp("exchange") / "tiny")
    # What composed scenes often show, so that a judge has what to find.
    texts = ["red", "blue", "green", "yellow", "white", "black", "animal", "food"]
    bundle = replace(load_bundle(folder), texts=texts)
    labels = tiny_labels(bundle)
    single = labels[1].coefficients.clone()
    single[:, 0], single[:, 1:] = 1, 0
    labels[1] = replace(labels[1], coefficients=single)
    shared = {"layers": {str(layer): {"shared": []} for layer in bundle.layers}}
    save_bundle(replace(bundle, labels=labels, metrics=bundle.metrics | {"labels": shared}), folder)
    return folder


def table(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def lines(path):
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]


def test_each_unit_is_described_by_its_labels_strongest_text(tested, tmp_path):
    bundle = load_bundle(tested)
    out = tmp_path / "labels.csv"
    assert main(["labels", str(tested), "--to", "csv", str(out)]) == 0
    rows = table(out)
    assert list(rows[0]) == ["layer", "unit", "description", "similarity"]
    described = {(int(row["layer"]), int(row["unit"])): row for row in rows}
    for layer, arrays in bundle.layers.items():
        for unit in range(len(arrays.directions)):
            label = bundle.label(layer, unit)
            if label.positive:
                row = described.pop((layer, unit))
                assert row["description"] == label.positive[0]
                assert float(row["similarity"]) == pytest.approx(label.simulation_score, abs=1e-4)
    assert not described


def test_clip_dissect_and_cosy_find_the_table_where_they_look(tested, tmp_path):
    for name in ("csv", "clip-dissect", "cosy"):
        assert main(["labels", str(tested), "--to", name, str(tmp_path / name)]) == 0
    rows = table(tmp_path / "csv")
    assert table(tmp_path / "clip-dissect" / "descriptions.csv") == rows
    settings = json.loads((tmp_path / "clip-dissect" / "args.txt").read_text())
    assert settings["target_layers"] == "1,2"
    files = sorted((tmp_path / "cosy" / "assets" / "explanations" / "clipneurons").iterdir())
    assert [file.name for file in files] == ["model-1.csv", "model-2.csv"]
    assert [row for file in files for row in table(file)] == rows


def test_neuronpedia_gets_features_activations_and_explanations(tested, tmp_path):
    bundle, out = load_bundle(tested), tmp_path / "neuronpedia"
    assert main(["labels", str(tested), "--to", "neuronpedia", str(out)]) == 0
    place = out / "model" / "2-clipneurons"
    assert json.loads((place / "source.jsonl").read_text())["id"] == "2-clipneurons"
    features = lines(place / "features" / "batch-0.jsonl.gz")
    assert [row["index"] for row in features] == list(range(len(bundle.layers[2].directions)))
    texts = bundle.phrases(2, 3, 10)
    assert features[3]["pos_str"] == [text for text, value in texts if value > 0]
    assert features[3]["neg_str"] == [text for text, value in texts if value < 0]
    assert sum(features[3]["freq_hist_data_bar_heights"]) == int(
        bundle.layers[2].norm_histogram[3].sum()
    )
    for row in lines(place / "activations" / "batch-0.jsonl.gz"):
        assert (place / row["tokens"][0]).read_bytes() == bundle.examples[row["dataIndex"]]
    reliable = [unit for unit in range(len(features)) if bundle.label(2, unit).reliable]
    explanations = lines(place / "explanations" / "batch-0.jsonl.gz")
    assert [row["index"] for row in explanations] == reliable


def test_what_is_there_is_not_overwritten_and_untested_labels_not_written(tmp_path, capsys):
    folder = tiny_bundle_folder(tmp_path / "tiny")
    assert main(["labels", str(folder), "--to", "csv", str(tmp_path / "labels.csv")]) == 2
    assert "evaluate labels first" in capsys.readouterr().err
    assert main(["labels", str(folder), "--to", "csv", str(folder)]) == 2
    assert "exists already" in capsys.readouterr().err


def against(folder, path):
    images = ["--images", "scenes:120", "--batch", "40"]
    return main(["evaluate", "labels", "--bundle", str(folder), *images, "--against", str(path)])


def test_anybodys_labels_are_scored_beside_ours(tested, tmp_path, capsys):
    before = {path: path.read_bytes() for path in tested.rglob("*") if path.is_file()}
    ours = tmp_path / "ours.csv"
    assert main(["labels", str(tested), "--to", "csv", str(ours)]) == 0
    theirs = tmp_path / "theirs.csv"
    text = "layer,unit,description\n2,3,red\n1,0,blue\n2,5,the meaning of life\n"
    theirs.write_text(text)
    assert against(tested, theirs) == 0
    said = capsys.readouterr().out
    assert "on 3 units" in said
    assert "of 1 descriptions the judge knows nothing" in said
    scores = table(tmp_path / "theirs-scores.csv")
    assert [(row["layer"], row["unit"]) for row in scores] == [("1", "0"), ("2", "3"), ("2", "5")]
    assert float(scores[2]["simulation_score"]) == 0
    assert float(scores[0]["low"]) <= float(scores[0]["high"])
    # A label of one text of weight 1 is its own description.
    assert against(tested, ours) == 0
    rows = [row for row in table(tmp_path / "ours-scores.csv") if row["layer"] == "1"]
    assert any(float(row["simulation_score"]) for row in rows)
    for row in rows:
        assert row["simulation_score"] == row["our_simulation_score"]
    assert {path: path.read_bytes() for path in tested.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("unit,description\n1,cat\n", "has no column layer: expected layer,unit"),
        ("layer,unit,description\n1,x,cat\n", "line 2: expected numbers"),
        ("layer,unit,description\n7,0,cat\n", "line 2: layer 7, unit 0: the bundle has layer 1"),
        ("layer,unit,description\n1,0,cat\n1,0,dog\n", "line 3: layer 1, unit 0 is described"),
        ("layer,unit,description\n1,0, \n", "line 2: no description"),
        ("layer,unit,description\n", "describes no unit"),
    ],
)
def test_a_table_that_does_not_fit_is_one_line(tested, tmp_path, capsys, text, message):
    path = tmp_path / "theirs.csv"
    path.write_text(text)
    assert against(tested, path) == 2
    assert message in capsys.readouterr().err
