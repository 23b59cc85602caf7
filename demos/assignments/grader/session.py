"""A grading session, seen from the grader: start the runner, hand it one exercise at a time, take what came back.

    inputs drawn from the seed -> files -> runner forks a child -> files -> read (returned.py), checked (marks.py)

Only the arguments go out; no expected value does. Which fence stands around the child is found out when the session
begins: the strongest of FENCES that works here. The grader's files, and the copies that the runner works with, are
hashed around every exercise; a change is reported and costs that exercise.
"""

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

import torch

from .checkout import ASSIGNMENTS, LIBRARY
from .comparing import Wrong
from .copies import GRADER, Copies, differing, hashes, hidden, others_may_read, shown, sites
from .grading import Call, Exercise, Outputs
from .returned import outcome, readable
from .values import pack

PATIENCE = 30.0                  # seconds beyond an exercise's limit after which the runner itself is given up
IMPATIENCE = 3.0                 # the same with a submission for which it was given up before
HANGS = "the file was stopped after {:g} s while it was imported, and was not tried again for the other exercises"
FENCES = ("wall", "lesser user", "process limits")                    # the strongest first: see ../README.md
# A submission that shows whether a fence lets right work through: it loads modules that nothing has loaded before.
PROBE = """
import colorsys, wave, numpy.f2py.cfuncs, torch
def probe(x):
    open("written", "w").close()
    return torch.linalg.svdvals(x)
"""


class SessionError(RuntimeError):
    """The runner does not start, or does not go on: nothing that a submission did."""


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
    seconds: a limit for every exercise, in place of its own; fence: the only one of FENCES to try, in place of the
    strongest. `fence` is then the one that stands, `instead` says why it is no stronger one; `warnings`: what an
    instructor should know.
    """

    def __init__(self, guarded: list[Path] = (), seconds: float | None = None, fence: str | None = None):
        self.guarded = [ASSIGNMENTS / "grade.py", GRADER, LIBRARY, *guarded]
        self.seconds = seconds
        self.warnings: list[str] = []
        self.process: subprocess.Popen | None = None
        self.closed = False
        self.child = 0                                                # the runner's child, while one is at work
        self.gone_wrong: dict[Path, str] = {}                         # submissions that hang, and what is said of them
        self.root = Path(tempfile.mkdtemp(prefix="tinyheads-grading-")).resolve()
        self.copies = Copies(self.root)
        self.guarded_hashes = hashes(self.guarded)
        self.user = 61184 + os.getpid() % 4096                        # nobody else's number
        self.fence, self.instead = "", ""
        self.asked_fence = fence

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *error) -> None:
        self.close()

    def close(self) -> None:
        """End every process, and leave no file."""
        self.interrupt()
        shutil.rmtree(self.root, ignore_errors=True)

    def interrupt(self) -> None:
        """End every process. What runs a submission in another thread ends with a SessionError."""
        self.closed = True
        self.stop()

    # --- the runner's process ---

    def start(self) -> None:
        """Start the runner, wait until it has imported torch, and find a fence that works."""
        if self.closed:
            raise SessionError("the session is over")
        kept = {name: value for name, value in os.environ.items() if name in ("PATH", "LD_LIBRARY_PATH", "SYSTEMROOT")}
        home = str(self.root / "home")
        environment = kept | {"HOME": home, "TMPDIR": home, "MPLCONFIGDIR": home, "MPLBACKEND": "agg",
                              "LANG": "C.UTF-8", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        settings = {"sites": sites(), "shown": shown(), "hidden": hidden(), "user": self.user,
                    "root": str(self.root / "wall")}
        command = [sys.executable, "-I", "-S", "-B", str(self.root / "runner" / "runner.py"), json.dumps(settings)]
        with open(self.root / "runner.log", "wb") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, cwd=self.root, env=environment,
                start_new_session=True)
        self.unread = b""
        if self.closed:                                               # in another thread, meanwhile
            self.stop()
            raise SessionError("the session is over")
        if not (self.reply(120) or {}).get("ready"):
            self.stop()
            told = (self.root / "runner.log").read_text(errors="replace")[-2000:] if self.root.exists() else ""
            raise SessionError(f"the runner did not start: {told}")
        if not self.fence:
            self.find_fence()

    def find_fence(self) -> None:
        """The first fence behind which a small submission can do its work. Raises SessionError where there is none."""
        told = []
        for fence in FENCES if self.asked_fence is None else (self.asked_fence,):
            if fence == "wall" and sys.platform != "linux" or fence == "lesser user" and os.geteuid() != 0:
                told.append(f"no {fence}: it takes {'Linux' if fence == 'wall' else 'root'}")
                continue
            folder = self.work_folder()
            (folder / "submission" / "probe.py").write_text(PROBE)
            exercise = Exercise("probe", "probe", 0, lambda generator: [], [], seconds=20)
            call = Call((torch.ones(2, 2),))
            answer = self.ask(self.request(exercise, [call], folder, "probe.py", 20, fence)) or {}
            found = outcome(folder, 0, answer, exercise, 20) if "exit" in answer else answer.get("fault", "it ended")
            if isinstance(found, torch.Tensor):
                self.fence, self.instead = fence, "; ".join(told)
                if fence == "lesser user" and others_may_read(GRADER / "runner.py"):
                    self.instead += "; every user can read this checkout: chmod -R go-rwx it"
                return
            told.append(f"no {fence}: {found}")
        self.stop()
        raise SessionError(f"nothing can be run here: {'; '.join(told)}")

    def stop(self) -> None:
        """End the runner, and the child that it is waiting for."""
        process, child, self.process, self.child = self.process, self.child, None, 0
        if process is not None:
            process.kill()
            process.wait()
            process.stdin.close()
            process.stdout.close()
        if child:
            try:
                os.killpg(child, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                pass  # it ended with the runner

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

    def ask(self, request: dict, patience: float = 30.0) -> dict | None:
        """One exercise, run: what became of the child. None where the runner did not survive it, or kept silent."""
        try:
            self.process.stdin.write(json.dumps(request | {"runner": self.process.pid}).encode() + b"\n")
            self.process.stdin.flush()
            self.child = (self.reply(patience) or {}).get("pid", 0)
            answer = self.reply(request["seconds"] + patience) if self.child else None
        except (OSError, ValueError, AttributeError):                 # the last: it was stopped in another thread
            answer = None
        if self.closed:
            raise SessionError("the session is over")
        if answer is None:
            self.stop()
        self.child = 0
        return answer

    # --- one exercise ---

    def work_folder(self) -> Path:
        """A new folder for one exercise."""
        folder = self.root / "work" / "now"
        shutil.rmtree(folder, ignore_errors=True)
        for part in ("submission", "home"):
            (folder / part).mkdir(parents=True)
        return folder

    def request(self, exercise: Exercise, calls: list[Call], folder: Path, main: str, seconds: float,
                fence: str) -> dict:
        """One exercise, as the runner is asked to run it; its arguments are written into the folder."""
        used: set[str] = set()
        for number, call in enumerate(calls):
            (folder / f"in_{number}").write_bytes(pack(self.copies.with_paths(call.args, used)))
        library = self.copies.library(exercise)
        if fence == "lesser user":
            for path in [folder, *folder.rglob("*")]:
                os.chown(path, self.user, -1, follow_symlinks=False)
        return {"folder": str(folder), "submission": str(folder / "submission" / main), "fence": fence,
                "function": exercise.function, "uses": exercise.uses, "library": library, "models": sorted(used),
                "calls": len(calls), "seconds": seconds, "megabytes": exercise.megabytes}

    def run(self, exercise: Exercise, calls: list[Call], submission: Submission) -> Run:
        """Call the submission's function once for each call, in a process with limits, and take what came back."""
        seconds = exercise.seconds if self.seconds is None else self.seconds
        if said := self.gone_wrong.get(submission.main, ""):
            return Run(Outputs([Wrong(said)] * len(calls)), "", 0.0)
        if self.process is None:
            self.start()
        folder = self.work_folder()
        shutil.copyfile(submission.main, folder / "submission" / submission.as_module)
        for file in submission.beside:
            if file.is_dir():
                shutil.copytree(file, folder / "submission" / file.name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copyfile(file, folder / "submission" / file.name)
        request = self.request(exercise, calls, folder, submission.as_module, seconds, self.fence)
        answer = self.ask(request, IMPATIENCE if submission.main in self.gone_wrong else PATIENCE)
        if answer is None:
            self.gone_wrong[submission.main] = ""
        elif "fault" in answer:
            raise SessionError(f"the wall cannot be built: {answer['fault']}")
        elif (answer["timed_out"] or answer["exit"] == -signal.SIGXCPU) and not (folder / "imported").exists():
            self.gone_wrong[submission.main] = HANGS.format(seconds)
        outcomes = [outcome(folder, number, answer, exercise, seconds) for number in range(len(calls))]
        problem = self.changed_files(f"{submission.name}, {exercise.name}")
        shutil.rmtree(folder, ignore_errors=True)
        answer = answer or {"printed": "", "seconds": 0.0, "noted": ["ended the grader's runner, or stopped it"]}
        self.warn(submission, exercise, [readable(note)[:300] for note in answer["noted"]])
        return Run(Outputs(outcomes), readable(answer["printed"]), answer["seconds"], problem)

    def warn(self, submission: Submission, exercise: Exercise, notes: list[str]) -> None:
        """What an instructor should know, once for a submission."""
        told = {each.partition(": it ")[2] for each in self.warnings if each.startswith(f"{submission.name}, ")}
        self.warnings += [f"{submission.name}, {exercise.name}: it {note}" for note in dict.fromkeys(notes)
                          if note not in told]

    def changed_files(self, who: str) -> str:
        """What to say if the grader's files, or its copies, are not what they were; the copies are made anew."""
        changed = (differing(self.guarded_hashes, hashes(self.guarded))
                   + differing(self.copies.hashes, self.copies.hashes_now()))
        if not changed:
            return ""
        names = ", ".join(Path(name).name for name in changed[:5])
        self.warnings.append(f"{who}: files of the grader were changed while this ran: {', '.join(changed[:5])}")
        self.guarded_hashes = hashes(self.guarded)
        self.copies.build()                                           # the runner itself has them in memory
        return f"files of the grader were changed while this ran ({names}); no points, and the instructor is told"
