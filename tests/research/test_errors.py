"""A mistake is one line and status 2, whatever the comparison."""

import pytest

from research.__main__ import main
from tests.helpers.tiny import tiny_bundle_folder


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    return str(tiny_bundle_folder(tmp_path_factory.mktemp("bundle") / "vit"))


COMPARISONS = (["segmentation", "objects"], ["segmentation", "semantic"], ["concepts"], ["shift"])


@pytest.mark.parametrize("comparison", COMPARISONS)
def test_a_missing_bundle_is_one_line(comparison, tmp_path, capsys):
    assert main([*comparison, "--bundle", str(tmp_path / "none")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert str(tmp_path / "none") in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["segmentation", "semantic", "--methods", "magic"], "no method 'magic'"),
        (["segmentation", "semantic", "--dataset", "{tmp}"], "no names.txt"),
        (["shift", "--pool", "99"], "twice the largest"),
        (["shift", "--sizes", "1"], "at least two images"),
    ],
)
def test_mistakes_are_one_line(arguments, message, vit, tmp_path, capsys):
    filled = [part.format(tmp=tmp_path) for part in arguments]
    assert main([*filled, "--bundle", vit]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


COUNTS = (["concepts", "--scenes"], ["segmentation", "semantic", "--images"], ["shift", "--runs"])


@pytest.mark.parametrize("flags", COUNTS)
def test_counts_are_positive(flags, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([*flags, "0"])
    assert stopped.value.code == 2
    assert flags[-1] in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["text", "--run", "{tmp}"], "run `python -m research mini-clip space`"),
        (["vit", "--run", "{tmp}"], "run `python -m research mini-clip space`"),
        (["export", "--run", "{tmp}"], "holds no trained image tower"),
        (["prepare", "--run", "{tmp}"], "needs --photographs"),
        (["pack", "--photographs", "{tmp}/none"], "no photographs at"),
        (["evaluate", "--out", "{tmp}"], "holds neither mini-vit nor mini-rn"),
    ],
)
def test_mistakes_in_training_are_one_line(arguments, message, tmp_path, capsys):
    assert main(["mini-clip", *(part.format(tmp=tmp_path) for part in arguments)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
