"""Commands that are modules of their own: a mistake is one line and status 2 there too."""

import sys

import pytest

from export.__main__ import main
from export.common.errors import UserError, reported
from export.evaluation import neuron_head_pairs, semantic_segmentation, shift_power
from tests.helpers.tiny import tiny_bundle_folder


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    return str(tiny_bundle_folder(tmp_path_factory.mktemp("bundle") / "vit"))


@pytest.mark.parametrize("module", [neuron_head_pairs, semantic_segmentation, shift_power])
def test_a_bundle_that_is_none_is_one_line(module, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["command", "--bundle", str(tmp_path / "none")])
    assert reported(module.main) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert str(tmp_path / "none") in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("module", "arguments", "message"),
    [
        (neuron_head_pairs, ["--bundle", "{vit}"], "is of a vit, expected a ResNet"),
        (semantic_segmentation, ["--bundle", "{vit}", "--methods", "magic"], "no method 'magic'"),
        (semantic_segmentation, ["--bundle", "{vit}", "--dataset", "{tmp}"], "no names.txt"),
        (shift_power, ["--bundle", "{vit}", "--shift-pool", "99"], "twice the largest"),
        (shift_power, ["--bundle", "{vit}", "--shift-sizes", "1"], "at least two images"),
    ],
)
def test_mistakes_are_one_line(module, arguments, message, vit, tmp_path, monkeypatch, capsys):
    filled = [part.format(vit=vit, tmp=tmp_path) for part in arguments]
    monkeypatch.setattr(sys, "argv", ["command", *filled])
    assert reported(module.main) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("module", [neuron_head_pairs, semantic_segmentation])
def test_counts_are_positive(module, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["command", "--count", "0"])
    with pytest.raises(SystemExit) as stopped:
        module.main()
    assert stopped.value.code == 2
    assert "--count" in capsys.readouterr().err


def test_what_commands_return_is_their_status():
    assert reported(lambda: None) == 0
    assert reported(lambda: 3) == 3


@pytest.mark.parametrize(
    ("raised", "status", "said"),
    [
        (UserError("write --out"), 2, "error: write --out"),
        (FileNotFoundError(2, "No such file", "a.txt"), 2, "error: No such file: a.txt"),
        (KeyboardInterrupt(), 130, "stopped; the same command goes on"),
    ],
)
def test_mistakes_and_stops_have_a_status(raised, status, said, capsys):
    def command():
        raise raised

    assert reported(command) == status
    assert said in capsys.readouterr().err


def test_a_bug_is_not_hidden():
    with pytest.raises(ZeroDivisionError):
        reported(lambda: 1 // 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["text", "--run", "{tmp}"], "run `python -m export mini space`"),
        (["vit", "--run", "{tmp}"], "run `python -m export mini space`"),
        (["export", "--run", "{tmp}"], "holds no trained image tower"),
        (["prepare", "--run", "{tmp}"], "needs --photographs"),
        (["pack", "--photographs", "{tmp}/none"], "no photographs at"),
        (["evaluate", "--out", "{tmp}"], "holds neither mini-vit nor mini-rn"),
    ],
)
def test_mistakes_in_training_are_one_line(arguments, message, tmp_path, capsys):
    assert main(["mini", *(part.format(tmp=tmp_path) for part in arguments)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
