"""The kit for Gradescope: a zip with two scripts and what they need of this checkout, for one assignment.

Gradescope unpacks it at /autograder/source and runs setup.sh once, to build an image; for each submission it then runs
/autograder/run_autograder in a container of that image, as root (gradescope-autograders.readthedocs.io). The grader
stays root there. The submission's process becomes a user of its own, who can read neither /autograder nor the grader's
memory: the library is therefore not installed, and run_autograder takes all rights from others.
"""

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

from tinyheads.files.array_file import write_atomically

from .checkout import ASSIGNMENTS, LIBRARY, REPOSITORY
from .marks import Assignment

TORCH = "2.13.0"
SECONDS = 540                    # Gradescope gives up after 10 minutes, if nothing else is set
SETUP = f"""#!/usr/bin/env bash
# Gradescope runs this once, as root, when it builds the image: Python's packages for the grader.
set -euo pipefail
cd "$(dirname "$0")"
export PIP_BREAK_SYSTEM_PACKAGES=1      # the image is for this alone

# PyTorch's package for CPUs alone is a tenth as large. Paste here the address that pytorch.org, "Get started", shows
# behind --index-url for Linux, pip and CPU; with none, pip takes its default, which works too.
torch_index=""

apt-get update
apt-get install -y python3 python3-pip
pip3 install ${{torch_index:+--index-url "$torch_index"}} torch=={TORCH}
pip3 install numpy tiktoken matplotlib
python3 -c 'import sys; sys.exit(sys.version_info < (3, 10) and "tinyheads needs Python 3.10: choose a newer image")'
chmod -R go-rwx .
"""
RUN = """#!/usr/bin/env bash
# Gradescope runs this for each submission, as root. The submission itself runs as a user who can read nothing here.
set -uo pipefail
cd "$(dirname "$0")"
chmod go-rwx source submission results
timeout -k 10 {seconds} \\
    python3 source/tinyheads/demos/assignments/grade.py {number} submission --json results/results.json
if [ $? = 124 ]; then
    echo "stopped after {seconds} s: results.json holds the exercises that were graded until then"
fi
"""


def write_kit(assignment: Assignment, path: Path) -> None:
    """Write the zip: the same bytes whenever nothing has changed. Raises ValueError for another kind of file."""
    if path.suffix != ".zip":
        raise ValueError(f"--gradescope {path}: Gradescope takes a .zip; autograder.zip, say")
    if not path.absolute().parent.is_dir():
        raise ValueError(f"--gradescope {path}: there is no folder {path.parent}")
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as kit:
        for name, text in [("setup.sh", SETUP), ("run_autograder", RUN)]:
            add(kit, name, text.replace("{number}", str(assignment.number)).replace("{seconds}", str(SECONDS)).encode(),
                0o755)
        for file in needed(assignment):
            add(kit, f"tinyheads/{file.relative_to(REPOSITORY).as_posix()}", file.read_bytes(), 0o644)
    with write_atomically(path) as file:
        file.write(data.getvalue())


def add(kit: zipfile.ZipFile, name: str, data: bytes, rights: int) -> None:
    """A file with rights and no date."""
    about = zipfile.ZipInfo(name)
    about.create_system, about.external_attr, about.compress_type = 3, rights << 16, zipfile.ZIP_DEFLATED
    kit.writestr(about, data)


def needed(assignment: Assignment) -> Iterator[Path]:
    """The files that grading takes: the library, the bundled model, the grader, and of the assignments this one."""
    for place in (LIBRARY, REPOSITORY / "weights" / "tiny", ASSIGNMENTS / "grader", assignment.folder):
        yield from (file for file in sorted(place.rglob("*")) if file.is_file() and "__pycache__" not in file.parts)
    worked = REPOSITORY / "tests" / "assignments" / f"reference_{assignment.number}.py"
    yield from [ASSIGNMENTS / "grade.py", REPOSITORY / "LICENSE", *([worked] if worked.exists() else [])]
