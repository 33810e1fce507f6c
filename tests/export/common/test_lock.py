"""Two commands do not change one bundle at once."""

from dataclasses import replace

import pytest

from clipneurons.bundle.bundle import load_bundle, save_bundle
from clipneurons.bundle.folders import write_together
from export.__main__ import main
from export.common.errors import UserError
from export.common.lock import changing
from tests.helpers.tiny import tiny_bundle_folder


@pytest.mark.parametrize(
    "command",
    [["evaluate", "cues"], ["evaluate", "fidelity"], ["decompose"], ["refresh-card"]],
    ids=" ".join,
)
def test_a_bundle_that_is_being_changed_is_left_alone(tmp_path, capsys, command):
    folder = tiny_bundle_folder(tmp_path / "bundle")
    with changing(folder):
        assert main([*command, "--bundle", str(folder), "--device", "cpu"]) == 2
    error = capsys.readouterr().err
    assert f"another command is changing {folder}" in error
    assert error.count("\n") == 1


def test_the_folder_that_took_its_place_is_free(tmp_path):
    folder = tiny_bundle_folder(tmp_path / "bundle")
    with changing(folder), pytest.raises(UserError), changing(folder):
        pass
    with changing(folder):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"], "no file is left"


def test_files_are_written_together_or_not_at_all(tmp_path):
    (tmp_path / "a").write_bytes(b"old")
    (tmp_path / "b").mkdir()
    with pytest.raises(OSError, match="b"):
        write_together({tmp_path / "c": b"new", tmp_path / "b" / "d" / ("x" * 300): b"new"})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_what_a_bundle_says_moves_no_cursor(tmp_path, capsys):
    folder = tiny_bundle_folder(tmp_path / "bundle")
    bundle = load_bundle(folder)
    data = replace(bundle.config.data, name="\x1b[2J\u202eabc\nmodel    fake")
    save_bundle(replace(bundle, config=replace(bundle.config, data=data)), folder)
    assert main(["info", str(folder)]) == 0
    said = capsys.readouterr().out
    assert all(line.isprintable() for line in said.splitlines())
    assert sum(line.startswith("model ") for line in said.splitlines()) == 1
