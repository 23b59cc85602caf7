"""The process that runs submissions: it imports torch once, then forks a child for every exercise.

Requests come as lines of JSON on standard input; answers go back the same way on standard output. A child takes
its arguments from files, calls the submission's function, and writes what it returned to files. It gets a limit of
memory, of processor time and of time on the clock, a folder of its own, no standard input, and no pipe to anybody
but for what it prints. What it can reach beyond that is up to the fence, which the request names:

    wall             the child's child is process 1 of new namespaces (wall.py), and forks the submission's process
    lesser user      the submission's process becomes a user of its own, who may read and write nothing of the grader
    process limits   the submission's process keeps the rights of whoever grades

This file, wall.py, watching.py, noticed.py and values.py are copied into a temporary folder and run from there (python
-I -S). No expected value is ever here, nor the library: a child imports the copy that its exercise may use.
"""

import gc
import importlib
import importlib.util
import json
import os
import pkgutil
import random
import resource
import select
import signal
import sys
import time
import traceback

HERE = os.path.dirname(os.path.abspath(__file__))
LARGEST_ANSWER = 69 * 2**20      # bytes of one call's answer: more than the grader reads
GRACE = 20.0                     # seconds beyond an exercise's limit after which its namespaces are given up
MOST_PROCESSES = 64              # of one exercise, threads among them
NOTES = 200                      # the pipe for noticed.py has this number, which a submission's own files do not get
MAY_NOT_IMPORT = {"torch": ("tinyheads", "transformers", "transformer_lens"),
                  "tinyheads": ("transformers", "transformer_lens")}
LIBRARY_NEEDS = ("hmac", "secrets", "urllib.request", "tiktoken", "matplotlib.figure", "matplotlib.font_manager",
                 "matplotlib.backends.backend_agg")  # loaded once, here, for all children


def main(settings: str) -> None:
    """Serve requests until standard input closes. settings: JSON of what session.py says about this machine."""
    settings = json.loads(settings)
    sys.path[:0] = [HERE]
    sys.path += [folder for folder in settings["sites"] if folder not in sys.path]
    import torch
    for name in ("noticed", "values", "wall", "watching"):
        importlib.import_module(name)                                 # here, so that no child has to
    torch.set_num_threads(1)
    torch.linalg.svd(torch.eye(3) @ torch.eye(3))                     # what is set up at first use is set up once
    if sys.platform == "linux":
        prctl = sys.modules["wall"].prctl
        prctl(sys.modules["wall"].SET_CHILD_SUBREAPER, 1)             # orphans come to us
        prctl(sys.modules["wall"].SET_DUMPABLE, 0)                    # our memory is no file of our user's
    gc.freeze()                                                       # children need not copy what is there already
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    reply = lambda what: print(json.dumps(what), file=replies, flush=True)
    reply({"ready": True})
    for line in sys.stdin:
        request = json.loads(line)
        if request["uses"] == "tinyheads":
            for name in LIBRARY_NEEDS:
                importlib.import_module(name)
        serve(request | {"mapped": mapped_bytes()}, settings, reply)


# --- the runner's side --------------------------------------------------------------------------------


def serve(request: dict, settings: dict, reply) -> None:
    """One exercise: a child, its number to whoever asked, and what became of it."""
    watching = sys.modules["watching"]
    pipes = {name: os.pipe() for name in ("printed", "noted", "answer")}
    behind_wall, user = request["fence"] == "wall", settings["user"] if request["fence"] == "lesser user" else None
    pid = os.fork()
    if pid == 0:
        try:
            if behind_wall:
                first_of_new_namespaces(request, settings, pipes)
            else:
                child(request, pipes, user)
        finally:
            os._exit(70)
    for _, write_end in pipes.values():
        os.close(write_end)
    reply({"pid": pid})
    if behind_wall:
        answer = from_within(pid, pipes["answer"][0], request["seconds"] + GRACE)
    else:
        answer = watching.watch(pid, pipes["printed"][0], pipes["noted"][0], request["seconds"], user, alone=False)
    for read_end, _ in pipes.values():
        os.close(read_end)
    reply(answer)


def first_of_new_namespaces(request: dict, settings: dict, pipes: dict) -> None:
    """Leave for new namespaces, and watch an exercise from within, as their process 1. Never returns."""
    wall, watching = sys.modules["wall"], sys.modules["watching"]
    os.setsid()
    answer = {}
    try:
        wall.end_with_parent(request["runner"])
        wall.leave()
        pid = os.fork()
        if pid:
            os.waitpid(pid, 0)
            os._exit(0)
        wall.end_with_parent(0)                                       # the parent is outside, and has no number here
        os.setsid()
        folder, user = request["folder"], settings["user"] if os.geteuid() == 0 else os.geteuid()
        outside = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        shown = [*settings["shown"], *request["models"], *([request["library"]] if request["library"] else [])]
        wall.build(settings["root"], shown, settings["hidden"], folder, user)
        pid = os.fork()
        if pid == 0:
            os.close(outside)
            child(request, pipes, user)
        answer = watching.watch(pid, pipes["printed"][0], pipes["noted"][0], request["seconds"], None, alone=True)
        wall.take_out(folder, outside, LARGEST_ANSWER)
    except OSError as error:
        answer = {"fault": str(error)}
    os.write(pipes["answer"][1], json.dumps(answer).encode())
    os._exit(0)


def from_within(pid: int, pipe: int, seconds: float) -> dict:
    """What process 1 of the new namespaces says; where it says nothing, it and all of them are ended."""
    text, end = b"", time.monotonic() + seconds
    while select.select([pipe], [], [], max(0.0, end - time.monotonic()))[0]:
        data = os.read(pipe, 65536)
        if not data:
            break
        text += data
    sys.modules["watching"].kill_group(pid)                           # and with it process 1, and with that all others
    os.waitpid(pid, 0)
    try:
        return json.loads(text)
    except ValueError:  # the kernel ended it, for memory
        return {"exit": -signal.SIGKILL, "timed_out": False, "seconds": 0.0, "noted": [], "printed": ""}


def mapped_bytes() -> int:
    """What torch has mapped already: it does not count as the submission's."""
    if not os.path.exists("/proc/self/statm"):
        return 0
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


# --- the child's side ---------------------------------------------------------------------------------


def child(request: dict, pipes: dict, user: int | None) -> None:
    """Run one exercise of one submission, and end. user: who to become, where there is a choice. Never returns."""
    os.setsid()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(pipes["printed"][1], 1)
    os.dup2(pipes["printed"][1], 2)
    os.dup2(pipes["noted"][1], NOTES)
    os.closerange(3, NOTES)
    os.closerange(NOTES + 1, 1024)
    sys.stdin = open(os.devnull)
    folder = request["folder"]
    os.chdir(folder)
    random.seed(0)
    import noticed
    import numpy
    import torch
    import values
    import wall
    set_limits(request, own_user=user is not None and wall.own_count_of_processes())
    if user is not None:
        wall.give_up(user)
    for name in ("noticed", "values", "wall", "watching", "runner"):
        sys.modules.pop(name, None)                                   # a submission may have modules of these names
    for name in ("HOME", "TMPDIR", "MPLCONFIGDIR"):
        os.environ[name] = f"{folder}/home"
    numpy.random.seed(0)
    torch.manual_seed(0)
    sys.path[:] = [os.path.dirname(request["submission"])] + [each for each in sys.path if each != HERE]
    if request["library"]:
        import_library(request["library"])
    sys.meta_path.insert(0, Fence(MAY_NOT_IMPORT[request["uses"]]))
    noticed.note_what_it_tries(NOTES, folder, sys.path, request["library"], MAY_NOT_IMPORT[request["uses"]])
    del noticed, wall, pipes
    try:
        function = find_function(request)
    except BaseException as error:  # whatever a submission raises, sys.exit too, is to be told to its author
        write(f"{folder}/out_import", values.pack(described(error, request, at="while the file was imported")))
        sys.stdout.flush()
        os._exit(0)
    write(f"{folder}/imported", b"")
    for number in range(request["calls"]):
        call(values, function, number, request)
    sys.stdout.flush()
    os._exit(0)


def set_limits(request: dict, own_user: bool) -> None:
    """Processor time, memory, size of files; of a user who has no other processes, their number."""
    memory = request["mapped"] + request["megabytes"] * 2**20
    seconds = int(request["seconds"]) + 2
    for what, soft, hard in [(resource.RLIMIT_CPU, seconds, seconds + 1), (resource.RLIMIT_CORE, 0, 0),
                             (resource.RLIMIT_FSIZE, 2**27, 2**27), (resource.RLIMIT_NOFILE, 256, 256),
                             (resource.RLIMIT_AS, memory, memory + 2**28),
                             *([(resource.RLIMIT_NPROC, MOST_PROCESSES, MOST_PROCESSES)] if own_user else [])]:
        try:
            resource.setrlimit(what, (soft, hard))
        except (ValueError, OSError):
            if sys.platform == "linux":  # macOS knows no limit of memory
                raise


class NotHere(ImportError):
    """A module that this exercise does without."""


class Fence:
    """Stands before the other importers and refuses some names."""

    def __init__(self, names: tuple[str, ...]):
        self.names = names

    def find_spec(self, name: str, path=None, target=None):
        if name.split(".")[0] in self.names:
            raise NotHere(f"{name} cannot be imported here: this exercise is to be written with torch, numpy and the "
                          f"standard library")


def import_library(library: str) -> None:
    """All of a copy of tinyheads, from the folder that holds it: now, since later nothing of it need be opened."""
    sys.path.insert(1, os.path.dirname(library))
    package = importlib.import_module("tinyheads")
    for module in pkgutil.walk_packages(package.__path__, "tinyheads."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)


def find_function(request: dict):
    """Import the submission and take the function out of it."""
    spec = importlib.util.spec_from_file_location("submission", request["submission"])
    module = importlib.util.module_from_spec(spec)
    sys.modules["submission"] = module
    spec.loader.exec_module(module)
    function = getattr(module, request["function"], None)
    if not callable(function):
        names = sorted(name for name, each in vars(module).items() if callable(each) and not name.startswith("_"))[:20]
        raise AttributeError(f"there is no function {request['function']!r} in it; it has {', '.join(names) or 'none'}")
    return function


def call(values, function, number: int, request: dict) -> None:
    """One call: arguments from a file, the answer into a file, or the error that came in its place."""
    folder = request["folder"]
    try:
        with open(f"{folder}/in_{number}", "rb") as file:
            arguments = values.unpack(file.read(), load)
        before = [values.pack(each) for each in arguments]
        answer = function(*arguments)
        changed = [k for k, each in enumerate(arguments) if values.pack(each) != before[k]]
        data = values.pack({"value": answer, "changed": changed})
    except BaseException as error:  # as above: to be told, not to end the other calls
        data = values.pack(described(error, request))
    write(f"{folder}/out_{number}", data)


def load(kind: str, folder: str) -> object:
    """An argument that was handed over as a folder: a model, or a tokenizer."""
    import tinyheads as th
    return {"model": th.load, "tokenizer": th.load_tokenizer}[kind](folder)


def write(path: str, data: bytes) -> None:
    """What became of a call."""
    with open(path, "wb") as file:
        file.write(data)


def described(error: BaseException, request: dict, at: str = "") -> dict:
    """An error as its author should read it: where in his file, which kind, what it says."""
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
        resource.setrlimit(resource.RLIMIT_AS, (resource.getrlimit(resource.RLIMIT_AS)[1],) * 2)  # room to tell it
        limit = f"more than the {request['megabytes']} MB of memory that this exercise may use"
        return {"error": "memory", "text": limit}
    folder = os.path.dirname(request["submission"])
    places = [f"line {frame.lineno} of {os.path.basename(frame.filename)}, in {frame.name}: {(frame.line or '')[:120]}"
              for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith(folder)]
    if isinstance(error, SyntaxError):
        places = [f"line {error.lineno}: {(error.text or '').strip()[:120]}"]
    text = "\n".join([f"{type(error).__name__}{' ' + at if at else ''}: {str(error)[:800]}",
                      *(f"    {place}" for place in places[-3:])])
    kind = "not implemented" if isinstance(error, NotImplementedError) else type(error).__name__
    return {"error": kind, "text": text.replace(folder + "/", "")[:3000]}


if __name__ == "__main__":
    main(*sys.argv[1:])
