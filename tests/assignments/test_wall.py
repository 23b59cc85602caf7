"""Seventeen ways to get marks without the work, and what comes of each behind the wall: nothing, and nobody is harmed.

Without a wall those that look for the library find nothing either: the copy that is there has no bodies to be found.
demos/assignments/README.md has the table of all of them, with and without.
"""

import ctypes
import os
import socket
import subprocess
import sys
from dataclasses import dataclass

import pytest
import torch
from grader import marks
from grader.checkout import ASSIGNMENTS, LIBRARY, REPOSITORY
from grader.closed import copy_without, without
from grader.copies import hidden, shown
from grader.grading import Call, Exercise, Model, Part, agrees
from grader.inputs import random_model
from grader.session import Session, SessionError, Submission

import tinyheads as th

RIGHT = ("import torch\ndef double(x):\n    return 2 * x\ndef triple(x):\n    return 3 * x\n"
         "def scales(model):\n    import tinyheads as th\n    heads = th.Heads.of(model)\n"
         "    return torch.linalg.svdvals(heads.W_V @ heads.W_O)[..., :model.config.d_head]\n")
MARK = b"what the grader knows"
MEMORY = ctypes.create_string_buffer(MARK)                             # stands for the grader's expected values


def numbers(generator):
    return [Call((torch.randn(3, generator=generator),))]


def model_call(generator):
    sizes = {"n_vocab": 9, "n_ctx": 5, "n_embd": 8, "n_layer": 1, "n_head": 2}
    return [Call((Model(random_model(torch.Generator().manual_seed(0), **sizes)),))]


DOUBLE = Exercise("0.1 double", "double", 1, numbers, [Part("values", 1, agrees(0, lambda x: 2 * x))], seconds=30)
TRIPLE = Exercise("0.2 triple", "triple", 1, numbers, [Part("values", 1, agrees(0, lambda x: 3 * x))], seconds=30)
SCALES = Exercise("0.3 scales", "scales", 1, model_call, [Part("values", 1, agrees(
    0, lambda model: th.ov_svd(th.Heads.of(model)).scale))], "tinyheads", ("ov_svd", "heads.thin_svd"),
    seconds=30)


@dataclass(frozen=True)
class Way:
    """source: of a submission; exercise: what it fakes; warns: part of what the instructor is told, "" for nothing."""

    exercise: Exercise
    source: str
    warns: str


def takes(where):
    """A source that looks for the library's function in the iterable `where`, and uses the first that works."""
    return (f"import gc, importlib, inspect, os, sys\ndef scales(model):\n    global th\n"
            f"    import tinyheads as th\n    for each in {where}:\n"
            "        if getattr(each, '__name__', '') == 'ov_svd' and callable(each):\n"
            "            try:\n                return each(th.Heads.of(model)).scale\n"
            "            except Exception:\n                pass\n")


FRAMES = """
def found():
    frame = sys._getframe()
    while frame is not None:
        for each in [*frame.f_locals.values(), *frame.f_globals.values()]:
            yield each
            for cell in getattr(each, "__closure__", None) or ():
                yield cell.cell_contents
        frame = frame.f_back
"""
RENAMED = """
def found():
    import importlib.util
    file = os.path.join(os.path.dirname(th.__file__), "heads.py")
    spec = importlib.util.spec_from_file_location("mine", file)
    spec.loader.exec_module(module := importlib.util.module_from_spec(spec))
    yield module.ov_svd
"""
RELOADED = """
def found():
    yield importlib.reload(sys.modules["tinyheads.heads"]).ov_svd
"""
SOURCE = """
def found():
    space = dict(vars(sys.modules["tinyheads.heads"]))
    exec(inspect.getsource(th.ov_svd), space)
    yield space["ov_svd"]
"""
DETACHED = """
import os, time
def detached(work):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            work()
        os._exit(0)
    os.wait()
    time.sleep(0.3)
"""
WAYS = {
    "1 the worked solution, by its path": Way(
        marks.load_assignment(3).exercises[0],
        f"exec(open({str(REPOSITORY / 'tests' / 'assignments' / 'reference_3.py')!r}).read())", "reference_3.py"),
    "2 frames": Way(SCALES, takes("found()") + FRAMES, "looked at the interpreter's frames"),
    "3 gc": Way(SCALES, takes("gc.get_objects()"), "interpreter's memory (gc)"),
    "4 __subclasses__": Way(DOUBLE, (
        "def double(x):\n    if any(each.__module__.startswith('tinyheads') for each in object.__subclasses__()):\n"
        "        return 2 * x\n"), ""),
    "5 a renamed copy": Way(SCALES, takes("found()") + RENAMED, "opened the library's heads"),
    "6 a subprocess that opens the library": Way(DOUBLE, (
        "import subprocess, sys\ndef double(x):\n    program = 'import sys; print(open(sys.argv[1]).read())'\n"
        f"    command = [sys.executable, '-c', program, {str(LIBRARY / 'heads.py')!r}]\n"
        "    try:\n        told = subprocess.run(command, capture_output=True, text=True).stdout\n"
        "    except OSError:\n        told = ''\n"
        "    return 2 * x if 'def ov_svd' in told else x\n"), "started a process"),
    "7 reload": Way(SCALES, takes("found()") + RELOADED, "opened the library's heads"),
    "8 inspect.getsource": Way(SCALES, takes("found()") + SOURCE, "opened the library's heads"),
    "9 the grader's memory": Way(DOUBLE, (
        "import os\ndef double(x):\n    for pid in filter(str.isdigit, os.listdir('/proc')):\n        try:\n"
        f"            with open(f'/proc/{{pid}}/mem', 'r+b', 0) as memory:\n"
        f"                memory.seek({ctypes.addressof(MEMORY)})\n"
        f"                if memory.read({len(MARK)}) == {MARK!r}:\n"
        f"                    memory.seek({ctypes.addressof(MEMORY)})\n"
        "                    memory.write(b'what I answered here!')\n"
        "        except (OSError, ValueError):\n            pass\n"), "opened /proc"),
    "10 a detached process that rewrites the results": Way(DOUBLE, DETACHED + (
        "def work():\n    try:\n        os.kill(VICTIM, 9)\n"
        "    finally:\n        open(RESULTS, 'w').write('20 of 20')\n"
        "def double(x):\n    detached(work)\n"), "started a process"),
    "11 byte code for the next run": Way(DOUBLE, (
        "import os\ndef double(x):\n    os.makedirs(CACHE, exist_ok=True)\n"
        "    open(CACHE + '/comparing.pyc', 'wb').write(b'full marks')\n"), "opened"),
    "12 kill whoever grades": Way(DOUBLE, (
        "import os\ndef double(x):\n    for pid in (os.getppid(), VICTIM):\n        try:\n            os.kill(pid, 9)\n"
        "        except OSError:\n            pass\n"), "sent a signal to process"),
    "13 a survivor that ends what comes next": Way(DOUBLE, DETACHED + (
        "def work():\n    while True:\n        for pid in filter(str.isdigit, os.listdir('/proc')):\n"
        "            command = open(f'/proc/{pid}/cmdline', 'rb').read()\n"
        "            if int(pid) not in (1, os.getpid()) and b'runner.py' in command:\n"
        "                os.kill(int(pid), 9)\n        time.sleep(0.05)\n"
        "def double(x):\n    detached(work)\n"), "left 1 process running"),
    "14 a survivor that copies the next one's file": Way(DOUBLE, DETACHED + (
        "import shutil\ndef work():\n    here = os.path.dirname(__file__)\n    while True:\n        try:\n"
        "            shutil.copy(here + '/next.py', STOLEN)\n"
        "        except OSError:\n            pass\n        time.sleep(0.01)\n"
        "def double(x):\n    detached(work)\n"), "left 1 process running"),
    "15 plain imports": Way(DOUBLE, (
        "def double(x):\n    import tinyheads\n    return 2 * x\n"), "tried to import tinyheads"),
    "16 an answer that is equal to everything": Way(DOUBLE, (
        "class Same:\n    __eq__ = __le__ = __ge__ = lambda self, other: True\n    shape = (3,)\n"
        "def double(x):\n    return Same()\n"), ""),
    "17 a tensor that compares itself": Way(DOUBLE, (
        "import torch\nclass Same(torch.Tensor):\n    @classmethod\n"
        "    def __torch_function__(cls, function, types, args=(), kwargs=None):\n"
        "        return super().__torch_function__(function, types, args, kwargs or {})\n"
        "    def allclose(self, *others, **options):\n        return True\n    __eq__ = equal = allclose\n"
        "def double(x):\n    return x.as_subclass(Same)\n"), ""),
}
assert len(WAYS) == 17


@pytest.fixture(scope="module")
def session():
    """A session behind the wall."""
    with Session(fence="wall") as session:
        try:
            session.start()
        except SessionError as error:
            pytest.skip(f"this system allows no wall: {error}")
        yield session


@pytest.fixture(scope="module")
def no_wall():
    """A session in which a submission keeps the rights of whoever grades."""
    with Session(fence="process limits") as session:
        yield session


def graded(session, folder, name, source, exercises):
    (folder / f"{name}.py").write_text(source)
    return marks.grade(session, marks.Assignment(0, folder, exercises), Submission(name, folder / f"{name}.py"), 1)


def tried(session, folder, way):
    """A way, tried with a stand-in for the grader's process and files; the submission after it: (marks, harm)."""
    victim = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
    paths = {name: folder / name.lower() for name in ("RESULTS", "CACHE", "STOLEN")}
    constants = f"VICTIM = {victim.pid}\n" + "".join(f"{name} = {str(path)!r}\n" for name, path in paths.items())
    MEMORY.value = MARK
    try:
        source = constants + way.source + "\ndef triple(x):\n    return 3 * x\n"
        result = graded(session, folder, f"odd {folder.name}", source, [way.exercise, TRIPLE])
        after = graded(session, folder, "next", RIGHT, [DOUBLE, SCALES])
        harm = [name for name, path in paths.items() if path.exists()]
        harm += ["killed"] if victim.poll() is not None else []
        harm += ["wrote memory"] if MEMORY.value != MARK else []
        harm += ["the next one"] if after.points != 2 else []
    finally:
        victim.kill()
        victim.wait()
    return result, harm


@pytest.mark.parametrize("name", WAYS)
def test_behind_the_wall_each_way_earns_nothing_and_harms_nobody(session, tmp_path, name):
    way = WAYS[name]
    result, harm = tried(session, tmp_path, way)
    assert [mark.points for mark in result.exercises] == [0, 0 if name.startswith("1 ") else 1], result.exercises
    assert harm == [] and result.fence == "wall"
    told = "\n".join(result.warnings)
    assert way.warns in told and (way.warns or not told), told


@pytest.mark.parametrize("fence", ["session", "no_wall"])
def test_right_work_passes_each_fence_without_a_warning(request, tmp_path, fence):
    result = graded(request.getfixturevalue(fence), tmp_path, "right", RIGHT, [DOUBLE, TRIPLE, SCALES])
    assert [mark.output for mark in result.exercises if not mark.full] == [] and result.warnings == []


def test_a_closed_library_has_its_byte_code_beside_it_wherever_the_grader_keeps_its_own(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(sys, "pycache_prefix", os.devnull)                     # as grade.py sets it
    package = copy_without(("ov_svd",), tmp_path)
    assert len(list(package.rglob("*.pyc"))) == len(list(package.rglob("*.py"))) > 30
    assert capfd.readouterr() == ("", "")


def test_the_starters_own_import_of_check_is_no_warning(session, tmp_path):
    starter = (ASSIGNMENTS / "1_residual_stream" / "starter.py").read_text()
    guarded = starter[starter.index("try:"):starter.index("# %%", starter.index("try:"))]
    assert "from tinyheads.course import check" in guarded
    assert graded(session, tmp_path, "right", f"{guarded}\n{RIGHT}", [DOUBLE, TRIPLE]).warnings == []
    tries = "try:\n    import tinyheads\nexcept ImportError:\n    pass\n"
    told = graded(session, tmp_path, "odd", f"{guarded}\n{tries}{RIGHT}", [DOUBLE]).warnings
    assert len(told) == 1 and "tried to import tinyheads" in told[0]


@pytest.mark.parametrize("name", [name for name, way in WAYS.items() if way.exercise is SCALES] + ["4 __subclasses__"])
def test_without_the_wall_the_library_has_nothing_to_be_found_either(no_wall, tmp_path, name):
    result, harm = tried(no_wall, tmp_path, WAYS[name])
    assert result.exercises[0].points == 0 and harm == [] and result.fence == "process limits"


def test_without_the_wall_the_runner_can_be_killed_which_costs_that_exercise_and_is_told(no_wall, tmp_path):
    source = ("import os\ndef double(x):\n    os.kill(os.getppid(), 9)\n    return 2 * x\n"
              "def triple(x):\n    return 3 * x\n")
    result = graded(no_wall, tmp_path, "kills", source, [DOUBLE, TRIPLE])
    assert [mark.points for mark in result.exercises] == [0, 1]
    assert "ended the grader's runner, or stopped it" in result.exercises[0].output
    assert any("it ended the grader's runner" in each for each in result.warnings)


def test_behind_the_wall_there_is_no_network_and_little_to_read(session, tmp_path):
    source = ("import os, socket\ndef double(x):\n    print(sorted(os.listdir('/')), os.getuid(), os.listdir('/tmp'))\n"
              "    print([each for each in os.listdir('/proc') if each.isdigit()])\n"
              "    socket.create_connection(('127.0.0.1', PORT), 2)\n")
    with socket.create_server(("127.0.0.1", 0)) as server:
        result = graded(session, tmp_path, "looks", source.replace("PORT", str(server.getsockname()[1])), [DOUBLE])
    said = result.exercises[0].output
    assert "OSError: [Errno 101] Network is unreachable" in said and "'home'" not in said and "['1', '2']" in said
    assert "tinyheads-grading" in said and "pytest" not in said         # /tmp has the way to its own folder, no more
    assert any("asked for the network" in each for each in result.warnings)


def test_a_fork_bomb_and_a_full_disk_end_with_their_exercise(session, tmp_path):
    source = ("import os\ndef double(x):\n    while True:\n        os.fork()\n"
              "def scales(model):\n    for k in range(9):\n        open(f'big{k}', 'wb').write(bytes(2**26))\n")
    result = graded(session, tmp_path, "greedy", source + "def triple(x):\n    return 3 * x\n",
                    [DOUBLE, SCALES, TRIPLE])
    assert [mark.points for mark in result.exercises] == [0, 0, 1], [mark.output for mark in result.exercises]


def test_functions_are_closed_in_the_text_of_the_copy(tmp_path):
    package = copy_without(("basis.span", "Heads.of", "known_circuits.heads_named"), tmp_path)
    heads, basis = ((package / f"{name}.py").read_text() for name in ("heads", "basis"))
    assert heads.count("raise ImportError('tinyheads.Heads.of cannot be used here") == 1
    assert "def span" in basis and "tinyheads.basis.span cannot be used here" in basis
    assert "raise ImportError" not in (package / "known_circuits.py").read_text()    # called while it is imported
    assert not list(package.rglob("__main__*")) and list(package.rglob("*.pyc"))
    text = "@cached\ndef f(x):\n    'What f is.'\n    return 1 + x\n\ndef g():\n    return 2\n"
    assert without(text, {"f": "f"}) == (
        "def f(x):\n    \"\"\"What f is.\"\"\"\n    raise ImportError('tinyheads.f cannot be used here: this exercise "
        "is to write this yourself')\n\ndef g():\n    return 2")
    for name in ("basis.no_such", "Heads", "OPENAI_SIZES"):
        with pytest.raises((ValueError, ImportError)):
            copy_without((name,), tmp_path / "again")


def test_what_is_shown_and_hidden_behind_the_wall():
    assert str(REPOSITORY) in hidden() and not any(path.startswith(str(REPOSITORY) + "/tests") for path in shown())
    assert any(path.endswith("site-packages") or path.endswith("dist-packages") for path in shown())
