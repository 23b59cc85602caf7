"""The students' archive: no worked solution is in it, and all that students use works where it is unpacked."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import students
from grader.checkout import REPOSITORY

pytestmark = pytest.mark.skipif(not (REPOSITORY / ".git").exists(), reason="git tells which files belong to it")
SOURCE = "https://example.org/students.zip"
NORM = "def layer_norm(x, gain, bias):\n    return torch.nn.functional.layer_norm(x, gain.shape, gain, bias)\n"
IN_A_NOTEBOOK = """
import sys, types
import tinyheads
shell = types.SimpleNamespace(user_ns=globals(), history_manager=types.SimpleNamespace(input_hist_raw=[
    "import torch", open("cell.py").read()]))
sys.modules["IPython"] = types.SimpleNamespace(get_ipython=lambda: shell)
from tinyheads.course import check
print(tinyheads.__file__)
check("1.1")
"""


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    """The archive, unpacked: its one folder."""
    folder = tmp_path_factory.mktemp("students")
    count = students.write_archive(folder / "students.zip", SOURCE)
    with zipfile.ZipFile(folder / "students.zip") as archive:
        assert len(archive.namelist()) == count > 200
        archive.extractall(folder)
    (folder / "students.zip").rename(folder / "first.zip")
    assert [each.name for each in folder.iterdir() if each.is_dir()] == ["tinyheads-course"]
    return folder / "tinyheads-course"


def test_no_worked_solution_is_in_it(unpacked):
    assert not (unpacked / "tests" / "assignments").exists() and (unpacked / "tests" / "test_model.py").exists()
    names = [each.name for each in unpacked.rglob("*")]
    assert not [name for name in names if name.startswith(("reference_", "mistakes_"))]
    solution = (Path(__file__).parent / "reference_2.py").read_text().split("def ")[1:]
    longest = max((line.strip() for line in "".join(solution).splitlines()), key=len)
    assert not [each for each in unpacked.glob("demos/**/*.py") if longest in each.read_text()]


def test_the_same_files_give_the_same_bytes(unpacked):
    students.write_archive(unpacked.parent / "again.zip", SOURCE)
    assert (unpacked.parent / "again.zip").read_bytes() == (unpacked.parent / "first.zip").read_bytes()


def test_what_git_does_not_know_stays_out_and_all_else_is_as_it_lies_here(unpacked):
    for name in students.files_of(REPOSITORY):
        assert (unpacked / name).read_bytes() == (REPOSITORY / name).read_bytes()
    added = {str(each.relative_to(unpacked)) for each in unpacked.rglob("*") if each.is_file()}
    added -= set(students.files_of(REPOSITORY))
    assert len(added) == 6 and all(name.endswith("starter.ipynb") for name in added)


def test_its_notebooks_fetch_it(unpacked):
    for path in unpacked.glob("demos/assignments/*/starter.ipynb"):
        assert SOURCE in "".join(json.loads(path.read_text())["cells"][0]["source"])


def test_a_notebook_that_runs_there_is_graded_there(unpacked, tmp_path):
    """check() finds the unpacked grader, which takes the unpacked library, models and checks."""
    (tmp_path / "cell.py").write_text(NORM)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TINYHEADS_")}
    done = subprocess.run([sys.executable, "-B", "-c", IN_A_NOTEBOOK], capture_output=True, text=True, cwd=tmp_path,
                          env=environment | {"PYTHONPATH": str(unpacked)})
    assert done.stdout.startswith(str(unpacked / "tinyheads")), done.stderr
    assert "1.1 LayerNorm      2 of 2" in done.stdout and not done.stderr


def test_outside_git_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(students, "REPOSITORY", tmp_path)
    with pytest.raises(OSError, match="is no git checkout"):
        students.write_archive(tmp_path / "students.zip", SOURCE)
    assert list(tmp_path.iterdir()) == []


def test_the_command_wants_a_zip(tmp_path):
    done = subprocess.run([sys.executable, str(Path(students.__file__)), str(tmp_path / "students.tar")],
                          capture_output=True, text=True)
    assert done.returncode == 2 and "should end in .zip" in done.stderr and done.stderr.count("\n") == 1
