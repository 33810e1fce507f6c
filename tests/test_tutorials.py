"""Every tutorial runs from top to bottom, as the plain Python file that it is."""

import os
import runpy

import matplotlib
import pytest

from tests.helpers.app_server import ROOT

TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("[0-9]*.py"))

pytestmark = pytest.mark.skipif(
    not (ROOT / "artifacts" / "mini-vit" / "config.json").is_file(), reason="no bundled model"
)


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("tutorial", TUTORIALS, ids=lambda path: path.stem)
def test_a_tutorial_runs(tutorial, monkeypatch, tmp_path):
    from huggingface_hub import constants
    from matplotlib import pyplot

    matplotlib.use("Agg")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    # What the tutorial on publishing sets is put back.
    for name in ("HF_HUB_OFFLINE", "HF_HUB_DISABLE_XET", "HF_HUB_CACHE"):
        monkeypatch.setattr(constants, name, getattr(constants, name))
    for name in ("HF_ENDPOINT", "HF_TOKEN"):
        monkeypatch.setenv(name, os.environ.get(name, ""))
    runpy.run_path(str(tutorial))
    pyplot.close("all")
