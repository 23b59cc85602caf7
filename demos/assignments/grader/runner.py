"""The process that runs submissions: it imports torch once, then forks a child for every exercise.

Requests come as lines of JSON on standard input; answers go back the same way on standard output. A child takes
its arguments from files, calls the submission's function, and writes what it returned to files. It gets a limit of
memory, of processor time and of time on the clock, a folder of its own, no standard input, and no pipe to anybody.

This file and values.py are copied into a temporary folder and run from there (python -I), beside a copy of the
library. No expected value is ever here. A fence, not a sandbox: whoever runs this runs the submission's code with
his own rights.
"""

import ctypes
import gc
import importlib
import importlib.util
import json
import os
import random
import resource
import select
import signal
import sys
import time
import traceback

HERE = os.path.dirname(os.path.abspath(__file__))
MOST_OUTPUT = 20_000             # characters of what a submission prints that are kept: the first of them
MAY_NOT_IMPORT = {"torch": ("tinyheads", "transformers", "transformer_lens"),
                  "tinyheads": ("transformers", "transformer_lens")}


def main(library: str, *site_folders: str) -> None:
    """Serve requests until standard input closes. library: the folder that holds the copy of tinyheads."""
    sys.path[:0] = [library, HERE]
    sys.path += [folder for folder in site_folders if folder not in sys.path]
    import torch
    for name in ("tinyheads", "values"):                              # here, so that no child has to: those that may
        importlib.import_module(name)                                 # not use the library lose it
    torch.set_num_threads(1)
    torch.linalg.svd(torch.eye(3) @ torch.eye(3))                     # what is set up at first use is set up once
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)                       # PR_SET_CHILD_SUBREAPER: orphans come to us
    gc.freeze()                                                       # children need not copy what is there already
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    reply = lambda what: print(json.dumps(what), file=replies, flush=True)
    reply({"ready": True})
    for line in sys.stdin:
        request = json.loads(line)
        read_end, write_end = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                child(request, write_end)
            finally:
                os._exit(70)
        os.close(write_end)
        reply({"pid": pid})
        reply(watch(pid, read_end, request["seconds"]))
        os.close(read_end)


# --- the runner's side --------------------------------------------------------------------------------


def watch(pid: int, pipe: int, seconds: float) -> dict:
    """Wait for a child, keep the beginning of what it prints, end it when its time is over, and all that it started."""
    os.set_blocking(pipe, False)
    start, kept, timed_out, status, pipe_open = time.monotonic(), b"", False, None, True
    while status is None:
        if time.monotonic() - start > seconds:
            timed_out = True
            kill_group(pid)
        if pipe_open and select.select([pipe], [], [], 0.003)[0]:
            pipe_open, kept = drain(pipe, kept)
        elif not pipe_open:
            time.sleep(0.003)
        done, exit_status = os.waitpid(pid, 0 if timed_out else os.WNOHANG)
        status = exit_status if done else None
    taken = time.monotonic() - start
    kill_group(pid)
    kill_orphans()
    if pipe_open:
        _, kept = drain(pipe, kept)
    return {"exit": os.waitstatus_to_exitcode(status), "timed_out": timed_out, "seconds": taken,
            "printed": kept.decode("utf-8", "replace")}


def drain(pipe: int, kept: bytes) -> tuple[bool, bytes]:
    """Read what is in the pipe, at most 1 MB at a time: (whether it is still open, what is kept)."""
    for _ in range(16):
        try:
            data = os.read(pipe, 65536)
        except BlockingIOError:
            return True, kept
        if not data:
            return False, kept
        kept = (kept + data)[:MOST_OUTPUT]
    return True, kept


def kill_group(pid: int) -> None:
    """End a child and all processes of its group."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass  # ended already, or has not made its group yet: then it is alone
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def kill_orphans() -> None:
    """End what a child left behind in another group (Linux: it has become a child of ours)."""
    me = os.getpid()
    while os.path.exists(f"/proc/{me}/task/{me}/children"):
        with open(f"/proc/{me}/task/{me}/children") as file:
            left = [int(each) for each in file.read().split()]
        if not left:
            return
        for pid in left:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


# --- the child's side ---------------------------------------------------------------------------------


def child(request: dict, pipe: int) -> None:
    """Run one exercise of one submission, and end. Never returns."""
    os.setsid()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(pipe, 1)
    os.dup2(pipe, 2)
    os.closerange(3, 1024)
    sys.stdin = open(os.devnull)
    folder = request["folder"]
    os.chdir(folder)
    random.seed(0)
    set_limits(request)
    import numpy
    import torch
    import values
    for name in ("values", "runner"):
        sys.modules.pop(name, None)                                   # a submission may have modules of these names
    numpy.random.seed(0)
    torch.manual_seed(0)
    sys.path[:] = [os.path.dirname(request["submission"])] + [each for each in sys.path if each != HERE]
    fence(request["uses"], request["forbidden"])
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


def set_limits(request: dict) -> None:
    """Processor time, memory, size of files. What torch has mapped already does not count as the submission's."""
    with_torch = 0
    if os.path.exists("/proc/self/statm"):
        with open("/proc/self/statm") as file:
            with_torch = int(file.read().split()[0]) * resource.getpagesize()
    memory = with_torch + request["megabytes"] * 2**20
    seconds = int(request["seconds"]) + 2
    for what, soft, hard in [(resource.RLIMIT_CPU, seconds, seconds + 1), (resource.RLIMIT_CORE, 0, 0),
                             (resource.RLIMIT_FSIZE, 2**27, 2**27), (resource.RLIMIT_NOFILE, 256, 256),
                             (resource.RLIMIT_AS, memory, memory + 2**28)]:
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


def fence(uses: str, forbidden: list[str]) -> None:
    """Take away what an exercise is to do without: whole modules, or some of the library's public names."""
    sys.meta_path.insert(0, Fence(MAY_NOT_IMPORT[uses]))
    if uses == "torch":
        for name in [name for name in sys.modules if name.split(".")[0] == "tinyheads"]:
            del sys.modules[name]
        return
    for name in forbidden:
        owner_name, _, last = f"tinyheads.{name}".rpartition(".")
        owner = sys.modules["tinyheads"]
        for part in owner_name.split(".")[1:]:
            owner = getattr(owner, part, None) or importlib.import_module(f"tinyheads.{part}")
        original = getattr(owner, last)
        setattr(owner, last, refusing(name))
        for module_name, module in list(sys.modules.items()):         # wherever else it was imported to
            if module_name.split(".")[0] == "tinyheads":
                for attribute in [key for key, each in vars(module).items() if each is original]:
                    setattr(module, attribute, refusing(name))


def refusing(name: str):
    """A function that stands in the place of one that the exercise is about."""
    def write_this_yourself(*arguments, **options):
        raise NotHere(f"tinyheads.{name} cannot be used here: this exercise is to write this yourself")
    return write_this_yourself


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
