"""A mistake is one line and status 2, whatever the command."""

import pytest

from export.common.errors import UserError, reported


def test_what_commands_return_is_their_status():
    assert reported(lambda: None) == 0
    assert reported(lambda: 3) == 3


@pytest.mark.parametrize(
    ("raised", "status", "said"),
    [
        (UserError("write --out"), 2, "error: write --out"),
        (FileNotFoundError(2, "No such file", "a.txt"), 2, "error: No such file: a.txt"),
        (UserError("\x1b[2Ja\nb"), 2, "error: \ufffd[2Ja b\n"),
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
