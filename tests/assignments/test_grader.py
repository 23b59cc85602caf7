"""What the autograder must stand: loops, crashes, lies and vandalism in a submission cost that exercise alone."""

import dataclasses
import os
import time

import pytest
import torch
from grader import marks
from grader import session as session_module
from grader.comparing import close
from grader.grading import Call, Exercise, Model, Part, TokenizerOf, agrees
from grader.inputs import random_model
from grader.session import Session, Submission

import tinyheads as th

RIGHT = "def triple(x):\n    return 3 * x\n"
TWO_SIZES = lambda generator: [Call((torch.randn(shape, generator=generator),)) for shape in ((2, 3), (4,))]


def exercise(function, factor, **limits):
    right = lambda x: factor * x
    parts = [Part("values", 2, agrees(0, right)), Part("another size", 2, agrees(1, right))]
    return Exercise(f"0.{factor} {function}", function, 4, TWO_SIZES, parts, **limits)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """A file that stands for the grader's own."""
    file = tmp_path_factory.mktemp("grader") / "answers.txt"
    file.write_text("expected")
    return file


@pytest.fixture(scope="module")
def session(guarded):
    with Session([guarded]) as session:
        yield session


@pytest.fixture(scope="module")
def without_wall(guarded):
    """A session in which a submission keeps the rights of whoever grades."""
    with Session([guarded], fence="process limits") as session:
        yield session


def graded(session, folder, source, beside="", exercises=None, **limits):
    """A submission whose `double` is `source` and whose `triple` is right: the marks of both, or of these exercises."""
    file = folder / "submission.py"
    file.write_text(source + "\n\n" + RIGHT + beside)
    exercises = exercises or [exercise("double", 2, **limits), exercise("triple", 3)]
    return marks.grade(session, marks.Assignment(0, folder, exercises), Submission("s", file), 1)


HOSTILE = {
    "an endless loop": ("def double(x):\n    while True:\n        pass", "was stopped after 1 s"),
    "sleeps": ("import time\ndef double(x):\n    time.sleep(60)", "was stopped after 1 s"),
    "memory": ("import torch\ndef double(x):\n    return torch.ones(10**9), [torch.ones(10**8) for _ in range(50)]",
        "more than the 500 MB of memory"),
    "memory in lists": ("def double(x):\n    return list(range(10**9))", "more than the 500 MB of memory"),
    "os._exit": ("import os\ndef double(x):\n    os._exit(0)", "ended the process (status 0) before it returned"),
    "sys.exit": ("import sys\ndef double(x):\n    sys.exit(0)",
        "SystemExit: 0\n    line 3 of submission.py, in double: sys.exit(0)"),
    "a crash": ("import ctypes\ndef double(x):\n    ctypes.string_at(0)", "crashed: the process ended by SIGSEGV"),
    "an exception": ("def double(x):\n    return x[99]", "IndexError: index 99 is out of bounds"),
    "no such function": ("def duoble(x):\n    return 2 * x",
        "there is no function 'double' in it; it has duoble, triple"),
    "too many parameters": ("def double(x, factor):\n    return 2 * x",
        "TypeError: double() missing 1 required positional argument"),
    "not implemented": ("def double(x):\n    raise NotImplementedError",
        "not implemented yet: double raises NotImplementedError"),
    "endless recursion": ("def double(x):\n    return double(x)", "RecursionError"),
    "standard input": ("def double(x):\n    return float(input())", "EOFError"),
    "a large file": ("def double(x):\n    with open('big', 'wb') as f:\n        f.seek(2**28)\n        f.write(b'x')",
                     "File too large"),
    "the library": ("def double(x):\n    import tinyheads", "tinyheads cannot be imported here"),
    "the grader": ("def double(x):\n    import grader", "No module named 'grader'"),
    "the checks": ("def double(x):\n    import checks_1", "No module named 'checks_1'"),
    "the runner's module": ("def double(x):\n    import values", "No module named 'values'"),
    "None": ("def double(x):\n    2 * x", "is None and should be a torch.Tensor of shape [2, 3]: is a `return` "
                                          "missing?"),
    "a ragged list": ("def double(x):\n    return [1, [2, 3]]",
        "is a list of 2 and should be a torch.Tensor of shape [2, 3]"),
    "a function": ("def double(x):\n    return lambda: 2 * x", "is a function and should be a torch.Tensor"),
    "a class": ("class Odd:\n    pass\ndef double(x):\n    return Odd()",
        "is a submission.Odd and should be a torch.Tensor"),
    "complex": ("def double(x):\n    return 2 * x + 0j", "is complex (torch.complex64) and should be real"),
    "nan": ("def double(x):\n    return 2 * x / 0 * 0", "6 of 6 entries are nan or inf"),
    "far too much": ("def double(x):\n    return x[:1, :1].expand(10**6, 10**6) if x.dim() == 2 else x.expand(10**9, "
                     "4)",
        "is too large: an answer may hold 64 MB"),
    "nested without end": ("def double(x):\n    a = []\n    a.append(a)\n    return a", "nested more than 20 deep"),
    "in place": ("def double(x):\n    x *= 2\n    return x", "changed its argument number 1 in place"),
    "opposite": ("def double(x):\n    return -2 * x", "its sign is the opposite"),
    "scaled": ("def double(x):\n    return 3 * x", "it is 1.5 times what it should be, everywhere"),
    "right shape, random": ("import torch\ndef double(x):\n    return torch.randn(x.shape)",
        "of its entries are wrong; the first, at [0"),
    "its own result file": ("import os\ndef double(x):\n    open('out_0', 'wb').write(b'junk')\n    os._exit(0)",
        "what came back cannot be read"),
    "a pickle": ("import os, pickle\ndef double(x):\n    pickle.dump(x, open('out_0', 'wb'))\n    os._exit(0)",
        "what came back cannot be read"),
    "a link": ("import os\ndef double(x):\n    os.symlink('/etc/passwd', 'out_0')\n    os._exit(0)",
        "what came back cannot be read"),
    "a fifo": ("import os\ndef double(x):\n    os.mkfifo('out_0')\n    os._exit(0)", "what came back cannot be read"),
    "a folder": ("import os\ndef double(x):\n    os.mkdir('out_0')\n    os._exit(0)", "what came back cannot be read"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_one_function_does_costs_that_exercise_alone(session, tmp_path, name):
    source, says = HOSTILE[name]
    seconds = 1 if name in ("an endless loop", "sleeps") else 60
    double, triple = graded(session, tmp_path, source, seconds=seconds, megabytes=500).exercises
    assert double.points == 0 and says in double.output, double.output
    assert triple.full, triple.output


FINE = {
    "float64": "def double(x):\n    return 2 * x.double()",
    "a list": "def double(x):\n    return (2 * x).tolist()",
    "an array": "def double(x):\n    return 2 * x.numpy()",
    "a gradient": "def double(x):\n    x = x.clone().requires_grad_()\n    return 2 * x",
    "not contiguous": "def double(x):\n    return (2 * x).T.contiguous().T if x.dim() == 2 else 2 * x",
    "prints a lot": "def double(x):\n    for i in range(3000):\n        print('a line', i, 1000 * 'x')\n    return 2 "
                    "* x",
    "closes its output": "import os\nos.close(1)\nos.close(2)\ndef double(x):\n    return 2 * x",
    "a thread is left": "import threading, time\ndef double(x):\n    threading.Thread(target=time.sleep, "
                        "args=(60,)).start()\n    return 2 * x",
    "a file is left": "def double(x):\n    open('notes.txt', 'w').write('here')\n    return 2 * x",
    "under another name": "twice = lambda x: 2 * x\ndouble = twice",
    "modules of the runner's names": "import sys\nsys.modules['values'] = sys.modules['runner'] = None\ndef "
                                     "double(x):\n    return 2 * x",
}


@pytest.mark.parametrize("name", FINE)
def test_what_is_right_in_an_unusual_way_is_right(session, tmp_path, name):
    double, triple = graded(session, tmp_path, FINE[name], seconds=60).exercises
    assert double.full and triple.full, double.output + triple.output


@pytest.mark.parametrize("source, says", [
    ("import no_such_module", "ModuleNotFoundError while the file was imported: No module named 'no_such_module'"),
    ("def double(x:\n    return 2", "SyntaxError while the file was imported"),
    ("raise SystemExit", "SystemExit while the file was imported"),
    ("while True: pass", "was stopped after 1 s"),
])
def test_a_file_that_cannot_be_imported_says_so_in_each_exercise(session, tmp_path, source, says):
    one = exercise("triple", 3, seconds=1 if "while" in source else 60)
    result = graded(session, tmp_path, source, exercises=[one, one])
    assert result.points == 0 and all(says in mark.output for mark in result.exercises), result.exercises[0].output


def test_one_case_may_fail_and_the_other_count(session, tmp_path):
    source = "def double(x):\n    print('here', x.dim())\n    return 2 * x if x.dim() == 2 else x + 1"
    double, _ = graded(session, tmp_path, source).exercises
    assert double.points == 2
    assert double.output.startswith("values: 2 of 2\nanother size: 0 of 2. the result: ")
    assert double.output.endswith("What it printed: here 2\nhere 1")


def test_a_function_that_calls_a_wrong_one_is_told_so(session, tmp_path):
    source = "def double(x):\n    return x"
    result = graded(session, tmp_path, source, beside="def helper(x):\n    return 1.5 * double(x)\ntripled = triple\n"
                   "def triple(x):\n    return helper(x)")
    told = "Graded with your own double (0.2 double), which lost points: mend that first."
    assert told in result.exercises[1].output


def test_what_a_submission_leaves_running_is_ended(without_wall, tmp_path):
    note = tmp_path / "pid"
    source = (f"import os, time\ndef double(x):\n    if os.fork() == 0:\n        os.setsid()\n        if os.fork() "
              f"== 0:\n"
              f"            open({str(note)!r}, 'w').write(str(os.getpid()))\n            time.sleep(600)\n        "
              f"os._exit(0)\n"
              f"    os.wait()\n    time.sleep(0.2)\n    return 2 * x")
    double, _ = graded(without_wall, tmp_path, source).exercises
    assert double.full, double.output
    for _ in range(100):
        try:
            os.kill(int(note.read_text()), 0)
        except ProcessLookupError:
            return
        time.sleep(0.02)
    pytest.fail("the process is still there")


def test_changing_the_graders_files_costs_the_exercise_and_is_reported(without_wall, tmp_path, guarded):
    before = guarded.read_text()
    source = f"def double(x):\n    open({str(guarded)!r}, 'a').write('!')\n    return 2 * x"
    result = graded(without_wall, tmp_path, source)
    assert result.exercises[0].points == 0 and "files of the grader were changed" in result.exercises[0].output
    assert result.exercises[1].full
    assert any(f"0.2 double: files of the grader were changed while this ran: {guarded}" in warning
               for warning in result.warnings)
    assert any(f"it opened {guarded}" in warning for warning in result.warnings)
    guarded.write_text(before)
    without_wall.guarded_hashes = session_module.hashes(without_wall.guarded)


def test_changing_the_copy_of_the_library_does_not_reach_the_next_exercise(without_wall, tmp_path):
    source = ("def double(x):\n    import tinyheads, pathlib\n    pathlib.Path(tinyheads.__file__).write_text('GPT2 "
              "= None')\n    return 2 * x\n"
              "def layers(model):\n    import tinyheads\n    return tinyheads.GPT2 is not None and "
              "model.config.n_layer")
    layers = Exercise("0.4 layers", "layers", 1, lambda generator: [Call((Model("tiny"),))], [
        Part("number", 1, lambda calls, outputs: close(outputs[0], th.load("tiny").config.n_layer))], uses="tinyheads")
    result = graded(without_wall, tmp_path, source, exercises=[exercise("double", 2, uses="tinyheads"), layers])
    assert result.exercises[0].points == 0 and "files of the grader were changed" in result.exercises[0].output
    assert result.exercises[1].full, result.exercises[1].output


def test_names_that_an_exercise_is_about_are_refused_wherever_they_were_imported_to(session, tmp_path):
    call = [Call((Model("tiny"),))]
    is_true = [Part("said", 1, lambda calls, outputs: close(outputs[0], True))]
    uses = lambda function, *forbidden: Exercise(
        "0.5", function, 1, lambda generator: call, is_true, "tinyheads", forbidden)
    source = ("import tinyheads as th\ndef svd(model):\n    return th.ov_svd(th.Heads.of(model)).scale.dim() == 3\n"
              "def inner(model):\n    from tinyheads import edges\n    return "
              "edges.ov_svd(th.Heads.of(model)).scale.dim() == 3\n"
              "def method(model):\n    return th.Heads.of(model).folded\n")
    result = graded(session, tmp_path, source, exercises=[
        uses("svd"), uses("svd", "ov_svd"), uses("inner", "heads.ov_svd"), uses("method", "Heads.of"),
        uses("method", "ov_svd")])
    assert [mark.full for mark in result.exercises] == [True, False, False, False, True]
    assert "tinyheads.ov_svd cannot be used here: this exercise is to write this yourself" in result.exercises[1].output


def test_models_tokenizers_and_records_arrive_and_models_come_back(session, tmp_path):
    model = random_model(torch.Generator().manual_seed(0), n_vocab=9, n_ctx=5, n_embd=8, n_layer=2, n_head=2)
    prompts = th.laundry_list(th.load_tokenizer("tiny"), 2, 3)
    places = {"places": (th.Component(0, 1, 2), None, 0.5)}
    call = Call((Model(model), TokenizerOf("tiny"), prompts, [th.Head(1, 0)], places))
    source = ("import copy\ndef all(model, tokenizer, prompts, heads, places):\n    changed = copy.deepcopy(model)\n "
              "   changed.wte.weight += 1\n"
              "    return changed, tokenizer.encode(prompts.texts[0]), prompts, heads, places\n"
              "def in_place(model, *others):\n    model.wte.weight += 1\n    return 1\n")

    def check(calls, outputs):
        weights, ids, back, heads, places_back = outputs[0]
        close(weights, {name: p + 1 if name == "wte.weight" else p for name, p in model.named_parameters()})
        close(ids, prompts.tokens[0].tolist())
        assert back.tokens.equal(prompts.tokens) and back.texts == prompts.texts and back.end == prompts.end
        assert heads == [th.Head(1, 0)] and places_back == places

    one = Exercise("0.6 all", "all", 1, lambda generator: [call], [Part("back", 1, check)], uses="tinyheads")
    result = graded(session, tmp_path, source, exercises=[
        one, dataclasses.replace(one, function="in_place"),
        dataclasses.replace(one, function="in_place", may_change=True, parts=[Part("1", 1, agrees(0, lambda *_: 1))])])
    assert [mark.full for mark in result.exercises] == [True, False, True], [mark.output for mark in result.exercises]
    assert "changed its argument number 1 in place" in result.exercises[1].output


def test_a_model_in_a_single_file_arrives_with_the_config_beside_it(session, tmp_path):
    model = random_model(torch.Generator().manual_seed(0), n_vocab=9, n_ctx=5, n_embd=8, n_layer=2, n_head=2)
    file = th.save(model, tmp_path / "saved") / "model.safetensors"
    heads = Exercise("0.7 heads", "heads", 1, lambda generator: [Call((Model(file),))], [
        Part("number", 1, agrees(0, lambda _: 2))], uses="tinyheads")
    result = graded(session, tmp_path, "def heads(model):\n    return model.config.n_head\n", exercises=[heads])
    assert result.exercises[0].full, result.exercises[0].output


def test_a_runner_that_does_not_start_is_no_submissions_fault(monkeypatch, tmp_path):
    with Session() as session:
        (session.root / "runner" / "runner.py").write_text("raise SystemExit('no torch here')")
        with pytest.raises(session_module.SessionError, match="no torch here"):
            graded(session, tmp_path, "def double(x):\n    return 2 * x")


def test_a_file_that_hangs_while_it_is_imported_is_tried_once(session, tmp_path):
    for source in ("import time\ntime.sleep(60)", "while True:\n    pass"):
        folder = tmp_path / str(len(source))
        folder.mkdir()
        exercises = [exercise(name, factor, seconds=1) for name, factor in [("double", 2), ("triple", 3)] * 4]
        start = time.monotonic()
        found = graded(session, folder, source, exercises=exercises)
        assert time.monotonic() - start < 6                             # eight exercises of a second's limit each
        assert found.points == 0 and "was not tried again" in found.exercises[-1].output


def test_a_function_that_hangs_costs_its_own_exercise_alone(session, tmp_path):
    found = graded(session, tmp_path, "import time\ndef double(x):\n    time.sleep(60)", seconds=1)
    assert [mark.points for mark in found.exercises] == [0, 4]


def test_the_runners_silence_is_waited_out_once(without_wall, tmp_path, monkeypatch):
    monkeypatch.setattr(session_module, "PATIENCE", 4.0)
    monkeypatch.setattr(session_module, "IMPATIENCE", 0.5)
    source = "import os\ndef double(x):\n    os.kill(os.getppid(), 19)\n    return 2 * x"
    exercises = [exercise("double", 2, seconds=1)] * 4 + [exercise("triple", 3)]
    start = time.monotonic()
    found = graded(without_wall, tmp_path, source, exercises=exercises)
    assert [mark.points for mark in found.exercises] == [0, 0, 0, 0, 4]
    waited, restarts = 5 + 3 * 1.5, 5 * 6                                # a runner takes seconds to start
    assert time.monotonic() - start < waited + restarts
