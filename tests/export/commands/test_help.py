"""`--help` of every command is there at once: PyTorch takes seconds to import."""

import subprocess
import sys

import pytest

from export.__main__ import COMMANDS, main
from export.evaluation.labels.measure import LEAST_IMAGES
from export.evaluation.labels.recordings import TRUTH
from tests.helpers.app_server import ROOT

PARTS = ("fidelity", "labels", "cues")
# One process for all: what a command has imported stays, so the first that does is named.
ASK = """
import sys
from export.__main__ import COMMANDS, main
for words in [[name] for name in COMMANDS] + [["evaluate", part] for part in sys.argv[1:]]:
    try:
        main([*words, "--help"])
    except SystemExit as stopped:
        assert stopped.code == 0
    loaded = {"torch", "open_clip", "transformers"} & set(sys.modules)
    assert not loaded, (words, loaded)
"""


def test_no_help_waits_for_pytorch():
    done = subprocess.run(
        [sys.executable, "-c", ASK, *PARTS], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for words in (*COMMANDS, *(f"evaluate {part}" for part in PARTS)):
        assert f"usage: python -m export {words} [-h]" in done.stdout


def test_what_help_says_of_labels_is_what_they_need(capsys):
    with pytest.raises(SystemExit):
        main(["evaluate", "labels", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert f"{TRUTH} (default for" in said
    assert f"at least {LEAST_IMAGES} (" in said
