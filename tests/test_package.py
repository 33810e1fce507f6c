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
PACKAGES = sysconfig.get_path("purelib")
EXTRAS = PROJECT["optional-dependencies"]
# Modules of the extras, without those that open_clip brings (torchvision, tqdm).
OPTIONAL = ("gradio", "sklearn", "h5py", "jinja2", "wordfreq", "diffusers", "datasets")  # fmt: skip
PUBLIC_NAMES = """
import sys, time
sys.path[:0] = sys.argv[1:3]
started = time.process_time()
import clipneurons as cn
seconds = time.process_time() - started
print(cn.__file__, cn.__version__, seconds, *{"torch", "open_clip", "numpy"} & {*sys.modules})
for name in cn.__all__:
    documented = (getattr(cn, name).__doc__ or name).removeprefix(name)[:1] not in ("", "(")
    print(name, documented)
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


def test_importing_it_loads_nothing_and_every_public_name_is_documented(installed, tmp_path):
    said = python("-c", PUBLIC_NAMES, str(installed), PACKAGES, cwd=tmp_path)
    first, *names = said.splitlines()
    file, version, seconds, *loaded = first.split()
    assert file == str(installed / "clipneurons" / "__init__.py")
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    assert float(seconds) < 0.05
    assert loaded == []
    assert {*names} >= {f"{name} True" for name in ("load_clip", "load_bundle", "Lens")}
    assert all(line.endswith(" True") for line in names), names


def test_all_of_it_is_imported_without_the_extras_and_says_what_is_missing(installed, tmp_path):
    said = python("-c", WITHOUT_EXTRAS, str(installed), PACKAGES, *OPTIONAL, cwd=tmp_path)
    pool, generator, *packs = said.splitlines()
    assert pool == "wordfreq is missing: pip install 'clipneurons[text]'"
    assert generator == "diffusers is missing: pip install 'clipneurons[attack]'"
    assert len(packs) == 3
    assert all(str(installed) in line and "artifacts/ of a checkout" in line for line in packs)


def test_requirements_agree_with_the_extras():
    of_users = ("hf", "pandas", "plot")  # of whoever calls the library
    bundled = [line for name, extra in EXTRAS.items() if name not in of_users for line in extra]
    listed = lines(ROOT / "requirements.txt")
    assert sorted(listed) == sorted({*PROJECT["dependencies"], *bundled})
    for name in of_users:
        assert set(EXTRAS[name]) <= set(lines(ROOT / "tests" / "requirements.txt"))
