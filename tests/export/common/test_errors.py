"""A mistake is one line and status 2, whatever the command."""

import subprocess
import sys

import pytest

from export.__main__ import main
from export.common.errors import UserError, reported
from tests.helpers.tiny import tiny_bundle_folder


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    return str(tiny_bundle_folder(tmp_path_factory.mktemp("bundle") / "vit"))


PARTS = ("--pairs", "--semantic", "--shift")


@pytest.mark.parametrize("part", PARTS)
def test_a_bundle_that_is_none_is_one_line(part, tmp_path, capsys):
    assert main(["evaluate", part, "--bundle", str(tmp_path / "none")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert str(tmp_path / "none") in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--pairs"], "is of a vit, expected a ResNet"),
        (["--semantic", "--methods", "magic"], "no method 'magic'"),
        (["--semantic", "--semantic-dataset", "{tmp}"], "no names.txt"),
        (["--shift", "--shift-pool", "99"], "twice the largest"),
        (["--shift", "--shift-sizes", "1"], "at least two images"),
    ],
)
def test_mistakes_are_one_line(arguments, message, vit, tmp_path, capsys):
    filled = [part.format(tmp=tmp_path) for part in arguments]
    assert main(["evaluate", "--bundle", vit, "--no-fidelity", *filled]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("flag", ["--pair-scenes", "--semantic-images", "--shift-runs"])
def test_counts_are_positive(flag, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["evaluate", flag, "0"])
    assert stopped.value.code == 2
    assert flag in capsys.readouterr().err


def test_help_does_not_wait_for_pytorch():
    names = ("run", "merge", "decompose", "verify", "info", "refresh-card", "papers", "mini")
    shown = "import sys; from export.__main__ import main\nfor name in sys.argv[1:]:\n"
    shown += " try: main([name, '--help'])\n except SystemExit: pass\n"
    shown += "sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", shown, *names], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("usage: python -m export") == len(names)


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
        (["text", "--run", "{tmp}"], "run `python -m research mini-clip space`"),
        (["vit", "--run", "{tmp}"], "run `python -m research mini-clip space`"),
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
