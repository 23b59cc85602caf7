"""A grading session, seen from the grader: start the runner, hand it one exercise at a time, take what came back.

    inputs drawn from the seed -> files -> runner forks a child -> files -> read (returned.py), checked (marks.py)

Only the arguments go out; no expected value does. The grader's files, and the copies that the runner works with, are
hashed around every exercise; a change is reported and costs that exercise. A fence, not a sandbox: see ../README.md.
"""

import hashlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

import tinyheads as th

from .checkout import ASSIGNMENTS, LIBRARY
from .comparing import Wrong
from .grading import Call, Exercise, Model, Outputs, TokenizerOf
from .returned import outcome, readable
from .values import Reference, pack

GRADER = Path(__file__).resolve().parent
PATIENCE = 30.0                  # seconds beyond an exercise's limit after which the runner itself is given up
IMPATIENCE = 3.0                 # the same with a submission for which it was given up before
HANGS = "the file was stopped after {:g} s while it was imported, and was not tried again for the other exercises"


class SessionError(RuntimeError):
    """The runner does not start: nothing that a submission did."""


@dataclass(frozen=True)
class Submission:
    """What a student handed in: a name for the table, the file with the functions, and what comes along with it."""

    name: str
    main: Path
    beside: tuple[Path, ...] = ()

    @property
    def as_module(self) -> str:
        """The main file's name, so written that Python imports it (`x.PY`) and any error can quote it."""
        stem = self.main.stem
        return f"{stem if stem.isprintable() and stem.isascii() else 'submission'}.py"


@dataclass(frozen=True)
class Run:
    """What came of one exercise's calls. problem: why all of it is void, where it is."""

    outputs: Outputs
    printed: str
    seconds: float
    problem: str = ""


class Session:
    """Runs submissions: `with Session(guarded) as session: session.run(exercise, calls, submission)`.

    guarded: files and folders to hash around each exercise, besides the grader's own and the library;
    seconds: a limit for every exercise, in place of its own. warnings: what an instructor should know.
    """

    def __init__(self, guarded: list[Path] = (), seconds: float | None = None):
        self.guarded = [ASSIGNMENTS / "grade.py", GRADER, LIBRARY, *guarded]
        self.seconds = seconds
        self.warnings: list[str] = []
        self.process: subprocess.Popen | None = None
        self.child = 0                                                # the runner's child, while one is at work
        self.gone_wrong: dict[Path, str] = {}                         # submissions that hang, and what is said of them
        self.root = Path(tempfile.mkdtemp(prefix="tinyheads-grading-"))
        self.models: dict[object, Model] = {}                         # kept alive, so that ids stay theirs
        self.guarded_hashes = hashes(self.guarded)
        self.build_copies()

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *error) -> None:
        self.stop()
        shutil.rmtree(self.root, ignore_errors=True)

    # --- files ---

    def build_copies(self) -> None:
        """Copies of the runner and the library, all that the runner's process is told about."""
        shutil.rmtree(self.root, ignore_errors=True)
        shutil.copytree(LIBRARY, self.root / "library" / "tinyheads",
                        ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("runner", "models", "work", "home"):
            (self.root / name).mkdir(parents=True)
        for name in ("runner.py", "values.py"):
            shutil.copyfile(GRADER / name, self.root / "runner" / name)
        for model in self.models.values():
            self.copy_model(model)
        self.hash_copies()

    def hash_copies(self) -> None:
        self.copies = [self.root / name for name in ("runner", "library", "models")]
        self.copy_hashes = hashes(self.copies)

    def copy_model(self, model: Model) -> None:
        """A folder with the model's files, for the runner to load."""
        folder = self.model_folder(model.source)
        if isinstance(model.source, th.GPT2):
            th.save(model.source, folder)
        elif (source := th.find_weights(model.source)).is_dir():
            shutil.copytree(source, folder, dirs_exist_ok=True)
        else:
            folder.mkdir()
            shutil.copyfile(source, folder / "model.safetensors")
            if (config := source.with_name("config.json")).exists():  # else the file must be of OpenAI's shape
                shutil.copyfile(config, folder / "config.json")

    def model_folder(self, source: object) -> Path:
        key = str(id(source)) if isinstance(source, th.GPT2) else str(source)
        return self.root / "models" / hashlib.sha256(key.encode()).hexdigest()[:16]

    def with_paths(self, value: object) -> object:
        """An argument with models and tokenizers replaced by where the runner finds them."""
        if isinstance(value, (Model, TokenizerOf)):
            model = value if isinstance(value, Model) else Model(value.name)
            key = id(model.source) if isinstance(model.source, th.GPT2) else str(model.source)
            if key not in self.models:
                self.models[key] = model
                self.copy_model(model)
                self.hash_copies()
            return Reference("model" if isinstance(value, Model) else "tokenizer", str(self.model_folder(model.source)))
        if isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
            return type(value)(self.with_paths(each) for each in value)
        if isinstance(value, dict):
            return {key: self.with_paths(each) for key, each in value.items()}
        return value

    # --- the runner's process ---

    def start(self) -> None:
        """Start the runner, and wait until it has imported torch."""
        kept = {name: value for name, value in os.environ.items() if name in ("PATH", "LD_LIBRARY_PATH", "SYSTEMROOT")}
        home = str(self.root / "home")
        environment = kept | {"HOME": home, "TMPDIR": home, "MPLCONFIGDIR": home, "MPLBACKEND": "agg",
                              "LANG": "C.UTF-8", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        sites = [str(Path(module.__file__).parents[1]) for module in (torch, np)]
        command = [sys.executable, "-I", "-B", str(self.root / "runner" / "runner.py"), str(self.root / "library")]
        with open(self.root / "runner.log", "wb") as log:
            self.process = subprocess.Popen(
                [*command, *sites], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, cwd=self.root,
                env=environment, start_new_session=True)
        self.unread = b""
        if not (self.reply(120) or {}).get("ready"):
            self.stop()
            told = (self.root / "runner.log").read_text(errors="replace")[-2000:]
            raise SessionError(f"the runner did not start: {told}")

    def stop(self) -> None:
        """End the runner, and the child that it is waiting for."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process.stdin.close()
            self.process.stdout.close()
            self.process = None
        if self.child:
            try:
                os.killpg(self.child, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                pass  # it ended with the runner
        self.child = 0

    def reply(self, seconds: float) -> dict | None:
        """The runner's next line, or None where it ended or kept silent for so long."""
        end, pipe = time.monotonic() + seconds, self.process.stdout.fileno()
        while b"\n" not in self.unread:
            ready = select.select([pipe], [], [], max(0.0, end - time.monotonic()))[0]
            data = os.read(pipe, 65536) if ready else b""
            if not data:
                return None
            self.unread += data
        line, _, self.unread = self.unread.partition(b"\n")
        return json.loads(line)

    def ask(self, request: dict) -> dict | None:
        """One exercise, run: what became of the child. None where the runner did not survive it."""
        if self.process is None:
            self.start()
        try:
            self.process.stdin.write(json.dumps(request).encode() + b"\n")
            self.process.stdin.flush()
            patience = IMPATIENCE if Path(request["from"]) in self.gone_wrong else PATIENCE
            self.child = (self.reply(patience) or {}).get("pid", 0)
            answer = self.reply(request["seconds"] + patience) if self.child else None
        except (BrokenPipeError, ValueError):
            answer = None
        if answer is None:
            self.stop()
        self.child = 0
        return answer

    # --- one exercise ---

    def run(self, exercise: Exercise, calls: list[Call], submission: Submission) -> Run:
        """Call the submission's function once for each call, in a process with limits, and take what came back."""
        seconds = exercise.seconds if self.seconds is None else self.seconds
        if said := self.gone_wrong.get(submission.main, ""):
            return Run(Outputs([Wrong(said)] * len(calls)), "", 0.0)
        for call in calls:
            self.with_paths(call.args)                                # models are there before anything is hashed
        folder = self.root / "work" / "now"
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "submission").mkdir(parents=True)
        main = folder / "submission" / submission.as_module
        shutil.copyfile(submission.main, main)
        for file in submission.beside:
            copy = shutil.copytree if file.is_dir() else shutil.copyfile
            copy(file, folder / "submission" / file.name)
        for number, call in enumerate(calls):
            (folder / f"in_{number}").write_bytes(pack(self.with_paths(call.args)))
        answer = self.ask({"folder": str(folder), "submission": str(main), "from": str(submission.main),
                           "function": exercise.function, "uses": exercise.uses, "forbidden": list(exercise.forbidden),
                           "calls": len(calls), "seconds": seconds, "megabytes": exercise.megabytes})
        if answer is None:
            self.gone_wrong[submission.main] = ""
        elif (answer["timed_out"] or answer["exit"] == -signal.SIGXCPU) and not (folder / "imported").exists():
            self.gone_wrong[submission.main] = HANGS.format(seconds)
        outcomes = [outcome(folder, number, answer, exercise, seconds) for number in range(len(calls))]
        problem = self.changed_files(f"{submission.name}, {exercise.name}")
        shutil.rmtree(folder, ignore_errors=True)
        answer = answer or {"printed": "", "seconds": 0.0}
        return Run(Outputs(outcomes), readable(answer["printed"]), answer["seconds"], problem)

    def changed_files(self, who: str) -> str:
        """What to say if the grader's files, or its copies, are not what they were; the copies are made anew."""
        changed = (differing(self.guarded_hashes, hashes(self.guarded))
                   + differing(self.copy_hashes, hashes(self.copies)))
        if not changed:
            return ""
        names = ", ".join(Path(name).name for name in changed[:5])
        self.warnings.append(f"{who}: files of the grader were changed while this ran: {', '.join(changed[:5])}")
        self.guarded_hashes = hashes(self.guarded)
        self.build_copies()                                           # the runner itself has them in memory
        return f"files of the grader were changed while this ran ({names}); no points, and the instructor is told"


def hashes(paths: list[Path]) -> dict[str, str]:
    """SHA-256 of each file, those in folders too (byte code left out)."""
    by_file = {}
    for path in paths:
        for file in [path] if path.is_file() else sorted(path.rglob("*")):
            if file.is_file() and "__pycache__" not in file.parts:
                by_file[str(file)] = hashlib.sha256(file.read_bytes()).hexdigest()
    return by_file


def differing(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """Files that are not what they were, are gone, or are new."""
    return sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
