"""The library as a package: what its wheel holds, needs and says without a checkout."""

import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path
from shutil import copytree, ignore_patterns

import pytest

from tests.helpers.app_server import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
# Modules of the extras, without those that open_clip brings (torchvision, tqdm).
OPTIONAL = ("gradio", "sklearn", "h5py", "jinja2", "wordfreq", "diffusers", "datasets")  # fmt: skip
WITHOUT_PACKAGES = """
import sys
sys.path.insert(0, sys.argv[1])
import clipneurons, clipneurons.bundle, clipneurons.lens, clipneurons.shift
from clipneurons.adversarial.descriptions import MAX_COUNT
from clipneurons.text.pools import clean_texts
print(clipneurons.__file__, clean_texts([" a cat ", "A cat"]))
"""
WITHOUT_EXTRAS = """
import importlib, pkgutil, sys
sys.path[:0] = sys.argv[1:3]
sys.modules.update(dict.fromkeys(sys.argv[3:]))  # cannot be imported
import clipneurons
for module in pkgutil.walk_packages(clipneurons.__path__, "clipneurons."):
    importlib.import_module(module.name)
from clipneurons.adversarial.image_generator import DiffusersGenerator
from clipneurons.synthetic.photographs import load_photographs
from clipneurons.synthetic.pictograms import load_pictograms
from clipneurons.text.pools import text_pool
missing = (
    lambda: text_pool("common-10k"),
    lambda: DiffusersGenerator("none"),
    load_pictograms,
    load_photographs,
    lambda: text_pool("vocabulary"),
)
for call in missing:
    try:
        call()
    except (ImportError, FileNotFoundError) as error:
        print(error)
"""


def lines(path: Path) -> list[str]:
    """The requirements of a file."""
    found = (line.partition("#")[0].strip() for line in path.read_text().splitlines())
    return [line for line in found if line]


def python(*arguments: str, cwd: Path) -> str:
    """What an isolated interpreter prints, away from the checkout."""
    done = subprocess.run(
        [sys.executable, "-I", *arguments], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built offline from a copy of what lies beside the library too."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("clipneurons", "export", "tabs", "tests", "research"):
        copytree(ROOT / name, source / name, ignore=ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "app.py"):
        (source / name).write_bytes((ROOT / name).read_bytes())
    python("-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation",
           "--wheel-dir", str(out), str(source), cwd=out)  # fmt: skip
    (built,) = out.glob("clipneurons-*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    target = tmp_path_factory.mktemp("site")
    python("-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(target),
           str(wheel), cwd=target)  # fmt: skip
    return target


def test_the_wheel_holds_the_whole_library_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    library = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "clipneurons").rglob("*")
        if path.is_file() and path.parent.name != "__pycache__"
    }
    assert held == library


def test_it_is_imported_without_any_other_package(installed, tmp_path):
    said = python("-S", "-c", WITHOUT_PACKAGES, str(installed), cwd=tmp_path)
    assert said.split() == [str(installed / "clipneurons" / "__init__.py"), "('a", "cat',)"]


def test_all_of_it_is_imported_without_the_extras_and_says_what_is_missing(installed, tmp_path):
    packages = sysconfig.get_path("purelib")
    said = python("-c", WITHOUT_EXTRAS, str(installed), packages, *OPTIONAL, cwd=tmp_path)
    pool, generator, *packs = said.splitlines()
    assert pool == "wordfreq is missing: pip install 'clipneurons[text]'"
    assert generator == "diffusers is missing: pip install 'clipneurons[attack]'"
    assert len(packs) == 3
    assert all(str(installed) in line and "artifacts/ of a checkout" in line for line in packs)


def test_requirements_agree_with_the_extras():
    bundled = [line for name, extra in EXTRAS.items() if name != "hf" for line in extra]
    listed = lines(ROOT / "requirements.txt")
    assert sorted(listed) == sorted({*PROJECT["dependencies"], *bundled})
    assert set(EXTRAS["hf"]) <= set(lines(ROOT / "tests" / "requirements.txt"))
