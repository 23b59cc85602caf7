"""Writes the archive that students get: this repository without the worked solutions, starters as notebooks added.

    python demos/assignments/students.py students.zip [--source https://.../students.zip]

tests/assignments/ stays out of it: worked solutions, common mistakes and the grader's own tests. All else that git
knows is in it, as it lies here, so that the grader, check(), the chapters and the library's tests work where it is
unpacked. The same files give the same bytes.
"""

import subprocess
import sys
import zipfile
from pathlib import Path

from grader.checkout import REPOSITORY, load_module

from tinyheads.files.array_file import write_atomically
from tinyheads.files.command import Parser, one_line_errors

notebooks = load_module("notebooks", REPOSITORY / "demos" / "notebooks.py")

INSTRUCTORS = ("tests/assignments/", "demos/assignments/students.py", "demos/assignments/targets.py")
DAY = (2026, 1, 1, 0, 0, 0)      # every file's, so that the archive's bytes follow from the files alone


def files_of(repository: Path) -> list[str]:
    """What git knows of the repository, less the instructors' part. Raises OSError where this is no checkout of git."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=repository, capture_output=True, text=True)
    if listed.returncode:
        raise OSError(f"{repository} is no git checkout, so that nobody can tell which of its files belong to it")
    names = [name for name in listed.stdout.split("\0")[:-1] if not name.startswith(INSTRUCTORS)]
    return sorted(name for name in names if (repository / name).is_file())


def write_archive(path: Path, source: str) -> int:
    """Write the archive, with one folder in it; how many files it holds. source: where the notebooks fetch it."""
    contents = {name: (REPOSITORY / name).read_bytes() for name in files_of(REPOSITORY)}
    for starter in sorted(REPOSITORY.glob("demos/assignments/[1-9]_*/starter.py")):
        book = notebooks.as_bytes(notebooks.starter_notebook(starter, source))
        contents[starter.with_suffix(".ipynb").relative_to(REPOSITORY).as_posix()] = book
    with write_atomically(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in sorted(contents.items()):
            archive.writestr(zipfile.ZipInfo(f"{notebooks.COURSE_FOLDER}/{name}", DAY), data, zipfile.ZIP_DEFLATED)
    return len(contents)


if __name__ == "__main__":
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("archive", type=Path, help="the .zip to write")
    parser.add_argument("--source", default=notebooks.SOURCE,
                        help="for its notebooks: the address at which you publish it, https://.../students.zip")
    asked = parser.parse_args()
    if asked.archive.suffix != ".zip":
        parser.error(f"argument archive: {asked.archive} should end in .zip")
    with one_line_errors(parser.prog):
        print(f"{asked.archive}: {write_archive(asked.archive, asked.source)} files")
    if "ACCOUNT" in asked.source:
        print("For Colab give --source: the address at which you publish the archive.", file=sys.stderr)
