"""A wheel, installed far from the repository, has the whole library and the bundled model."""

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import tinyheads as th
from tinyheads.files.weights import BUNDLED

ROOT = Path(__file__).parents[2]
# The wheel that `pip install .` would make; where this setuptools cannot make one (before 70.1, and without the package
# wheel), its "build" command, which lays out what a wheel packs.
BUILD = """
import importlib.util, setuptools, sys
can = importlib.util.find_spec("wheel") or importlib.util.find_spec("setuptools.command.bdist_wheel")
sys.argv = ["setup.py", "-q", *(["bdist_wheel", "-d", sys.argv[1]] if can else ["build", "--build-lib", sys.argv[2]])]
setuptools.setup()
"""
USE = """
import hashlib, json, sys
sys.path.insert(0, sys.argv[1])
import tinyheads as th
from tinyheads.files.weights import search_path
weights = b"".join(tensor.numpy().tobytes() for tensor in th.load("tiny").parameters())
print(json.dumps({"file": th.__file__, "first": str(search_path()[0]), "weights": hashlib.sha256(weights).hexdigest(),
                  "ids": th.load_tokenizer("tiny").encode("The list: apple, sock.")}))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """What lies in site-packages after an installation, made from a copy of the repository."""
    if importlib.util.find_spec("setuptools") is None:
        pytest.skip("setuptools is not installed here, without which no wheel is made")
    copy, wheels, target = (tmp_path_factory.mktemp(name) for name in ["copy", "wheels", "target"])
    for name in ["setup.cfg", "pyproject.toml", "README.md", "LICENSE"]:
        shutil.copy(ROOT / name, copy)
    shutil.copytree(ROOT / "tinyheads", copy / "tinyheads", ignore=shutil.ignore_patterns("__pycache__"))
    for name in BUNDLED:
        shutil.copytree(ROOT / "weights" / name, copy / "weights" / name)
    run([sys.executable, "-c", BUILD, wheels, target], copy)
    for wheel in wheels.glob("*.whl"):
        with zipfile.ZipFile(wheel) as packed:
            packed.extractall(target)
    return target


def run(command, folder, **environment):
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env={**os.environ, **environment})
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_holds_the_modules_and_the_bundled_models_and_nothing_else(installed):
    def files(folder, pattern):
        return {file.relative_to(folder): file.read_bytes() for file in folder.rglob(pattern)}
    assert files(installed / "tinyheads", "*.py") == files(ROOT / "tinyheads", "*.py")
    for name in BUNDLED:
        assert files(installed / "tinyheads" / "weights" / name, "*.*") == files(ROOT / "weights" / name, "*.*")
    assert {entry.name.split("-")[0] for entry in installed.iterdir()} == {"tinyheads"}
    assert {entry.name for entry in (installed / "tinyheads" / "weights").iterdir()} == set(BUNDLED)


def test_the_bundled_model_loads_by_name_and_downloads_go_to_the_users_cache(installed, tmp_path, monkeypatch):
    monkeypatch.delenv("TINYHEADS_WEIGHTS", raising=False)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    found = json.loads(run([sys.executable, "-c", USE, installed], tmp_path, HOME=str(tmp_path)))
    assert Path(found["file"]) == installed / "tinyheads" / "__init__.py"
    assert Path(found["first"]) == tmp_path / ".cache" / "tinyheads"  # not the installation, perhaps not writable
    weights = b"".join(tensor.numpy().tobytes() for tensor in th.load(ROOT / "weights" / "tiny").parameters())
    assert found["weights"] == hashlib.sha256(weights).hexdigest()
    assert found["ids"] == th.load_tokenizer(ROOT / "weights" / "tiny").encode("The list: apple, sock.")
