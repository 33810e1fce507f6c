"""`--help` of every command is there at once: PyTorch takes seconds to import."""

import argparse
import subprocess
import sys

from clipneurons.labels.assess import LEAST_IMAGES
from export.__main__ import COMMANDS
from export.evaluation import flags
from export.evaluation.labels.recordings import TRUTH
from tests.helpers.app_server import ROOT

# One process for all: what a command has imported stays, so the first that does is named.
ASK = """
import sys
from export.__main__ import COMMANDS, main
for name in COMMANDS:
    try:
        main([name, "--help"])
    except SystemExit as stopped:
        assert stopped.code == 0
    loaded = {"torch", "open_clip", "transformers"} & set(sys.modules)
    assert not loaded, (name, loaded)
"""


def test_no_help_waits_for_pytorch():
    done = subprocess.run(
        [sys.executable, "-c", ASK], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for name in COMMANDS:
        assert f"usage: python -m export {name} [-h]" in done.stdout


def test_what_help_says_of_labels_is_what_they_need():
    parser = argparse.ArgumentParser()
    flags.labels(parser)
    said = {action.dest: action.help for action in parser._actions}
    assert f" {TRUTH} (default for" in said["judge"]
    assert f"at least {LEAST_IMAGES} (" in said["label_images"]
