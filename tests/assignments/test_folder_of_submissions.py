"""A folder as an instructor gets it: nothing that was handed in is lost, whatever it is and however it is called."""

import csv
import os
import signal
import subprocess
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path

import grade
import pytest
from grader.checkout import ASSIGNMENTS
from grader.folder import at_once
from grader.handed_in import handed_in, student_of
from grader.reports import Lateness, feedback_file, harmless, read_csv

NORM = ("import torch\ndef layer_norm(x, gain, bias):\n"
        "    return torch.nn.functional.layer_norm(x, gain.shape, gain, bias)\n")


def entries(folder):
    return {entry.name: entry for entry in handed_in(folder, one=False)}


def rows_of(file):
    with open(file, encoding="utf-8", newline="") as opened:
        return list(csv.DictReader(opened))


def test_everything_that_is_found_is_a_row_with_its_reason(tmp_path):
    for name in ("right.py", "UPPER.PY", "note.ipynb", "all.zip", "._right.py", ".DS_Store", "essay.pdf"):
        (tmp_path / name).write_text("x = 1\n")
    (tmp_path / "wide.py").write_bytes("x = 'é'\n".encode("utf-16"))
    (tmp_path / "latin.py").write_bytes(b"x = '\xe9'\n")
    (tmp_path / "declared.py").write_bytes(b"# coding: latin-1\nx = '\xe9'\n")
    (tmp_path / "gone.py").symlink_to(tmp_path / "nowhere")
    (tmp_path / "__MACOSX").mkdir()
    (tmp_path / "two").mkdir()
    for name in ("a.py", "b.py"):
        (tmp_path / "two" / name).write_text("")
    found = entries(tmp_path)
    reasons = {name: entry.reason for name, entry in found.items()}
    assert {name for name, reason in reasons.items() if not reason} == {"right", "UPPER", "declared"}
    for name, says in {"note": "a notebook", "all": "an archive", "essay": "something else", "wide": "UTF-16",
                       "latin": "not in UTF-8", "gone": "a link to what is not there", "two": "2 .py files"}.items():
        assert says in reasons[name] and found[name].submission is None
    assert len(found) == 10


def test_names_of_any_bytes_and_names_that_are_alike_stay_apart(tmp_path):
    os.mkdir(os.fsencode(tmp_path) + b"/Jos\xe9")
    with open(os.fsencode(tmp_path) + b"/Jos\xe9/submission.py", "w") as file:
        file.write("")
    (tmp_path / "carol.py").write_text("")
    (tmp_path / "carol").mkdir()
    (tmp_path / "carol" / "starter.py").write_text("")
    (tmp_path / "=HYPERLINK(1).py").write_text("")
    found = entries(tmp_path)
    assert set(found) == {"carol", "carol.py", "Jos\ufffd", "=HYPERLINK(1)"}
    assert all(entry.submission for entry in found.values())
    assert harmless("=HYPERLINK(1)") == "'=HYPERLINK(1)" and harmless("-2") == "'-2" and harmless("ada") == "ada"
    files = {feedback_file(tmp_path, name).name for name in found} | {feedback_file(tmp_path, "_HYPERLINK_1_").name}
    assert len(files) == 5 and all(name.isprintable() and "/" not in name for name in files)


def test_what_lies_in_a_students_folder_travels_along(tmp_path):
    folder = tmp_path / "dora"
    (folder / "mine").mkdir(parents=True)
    (folder / "submission.py").write_text("from mine.norm import layer_norm\nTABLE = open(__file__.replace("
                                          "'submission.py', 'table.txt')).read()\n")
    (folder / "mine" / "norm.py").write_text(NORM)
    (folder / "table.txt").write_text("1 2")
    assert grade.main(["1", str(tmp_path), "--csv", str(tmp_path / "out.csv"), "--seed", "3"]) == 0
    assert [(row["submission"], row["1.1 LayerNorm"]) for row in rows_of(tmp_path / "out.csv")] == [("dora", "2")]


@pytest.mark.parametrize("name, student, late", [
    ("lovelaceada_LATE_1234_5678_submission.py", "lovelaceada", True),
    ("lovelaceada_1234_5678_submission-2.py", "lovelaceada", False),
    ("Ada Lovelace_98_assignsubmission_file", "Ada Lovelace", False), ("ada_lovelace.py", "ada_lovelace", False)])
def test_the_names_of_exports_are_understood(tmp_path, name, student, late):
    (tmp_path / name).write_text("")
    assert student_of(tmp_path / name) == (student, late)


def test_late_work_costs_what_was_said(tmp_path):
    deadline = datetime(2026, 3, 1, 18)
    rule = Lateness(deadline, 0.1)
    (tmp_path / "x.py").write_text("")
    for after, days in [(timedelta(0), 0), (timedelta(seconds=1), 1), (timedelta(days=1), 1),
                        (timedelta(days=2, hours=1), 3)]:
        when = (deadline + after).timestamp()
        os.utime(tmp_path / "x.py", (when, when))
        assert rule.days(entries(tmp_path)["x"]) == days
    assert rule.after(20, 3) == pytest.approx(14) and rule.after(20, 30) == 0
    assert Lateness().days(entries(tmp_path)["x"]) == 0
    (tmp_path / "x.py").rename(tmp_path / "x_LATE_1_2_hw.py")
    os.utime(tmp_path / "x_LATE_1_2_hw.py", (0, 0))
    assert rule.days(entries(tmp_path)["x"]) == 1                      # a copy's own date says nothing


def test_a_run_that_broke_off_is_gone_on_with(tmp_path, capsys):
    folder, file = tmp_path / "class", tmp_path / "marks.csv"
    folder.mkdir()
    for name in ("ada", "bob"):
        (folder / f"{name}.py").write_text(NORM)
    arguments = ["1", str(folder), "--csv", str(file), "--feedback", str(tmp_path / "told")]
    assert grade.main([*arguments, "--seed", "5"]) == 0
    told = (tmp_path / "told" / "ada.txt").read_text()
    assert "1.1 LayerNorm" in told and "2 of 2" in told
    file.write_text("\n".join(file.read_text().splitlines()[:2]) + "\n")             # bob's row was never written
    (folder / "ada.py").write_text("")                                               # and ada's is not made again
    capsys.readouterr()
    assert grade.main([*arguments, "--resume"]) == 0
    assert [(row["submission"], row["total"], row["seed"]) for row in rows_of(file)] == [("ada", "2", "5"),
                                                                                         ("bob", "2", "5")]
    assert "bob" in capsys.readouterr().out
    file.write_text("other,columns\n")
    assert grade.main([*arguments, "--resume"]) == 2 and "not a CSV of this assignment" in capsys.readouterr().err
    with pytest.raises(ValueError, match="its columns are none"):
        (tmp_path / "none.csv").write_text("")
        read_csv(tmp_path / "none.csv", ["submission"])


def test_near_equal_submissions_are_reported(tmp_path):
    folder, file = tmp_path / "class", tmp_path / "near.txt"
    folder.mkdir()
    reference = (Path(__file__).parent / "reference_1.py").read_text()
    (folder / "ada.py").write_text(reference)
    (folder / "bob.py").write_text(reference.replace("gain", "g"))
    asked = grade.options(["1", str(folder), "--similar", str(file)])
    text = grade.similarity(grade.load_assignment(asked.assignment), handed_in(folder, one=False))
    assert "ada  and  bob" in text and text.count("the worked solution") == 2


def descendants(pid):
    """The processes that a process started, and those that these did."""
    found = []
    for parent in [pid]:
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            for child in task.read_text().split():
                found += [int(child), *descendants(int(child))]
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="the processes are counted in /proc")
def test_an_interrupt_loses_no_row_and_leaves_no_process(tmp_path):
    folder, file = tmp_path / "class", tmp_path / "marks.csv"
    folder.mkdir()
    (folder / "ada.py").write_text(NORM)
    (folder / "zoe.py").write_text("import time\ntime.sleep(300)")
    command = [sys.executable, str(ASSIGNMENTS / "grade.py"), "1", str(folder), "--csv", str(file), "--seconds", "300"]
    heard = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)       # a shell's background job is born deaf to it
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, preexec_fn=heard)
    end, alive = time.monotonic() + 180, []
    while not (file.exists() and len(alive) >= 2) and time.monotonic() < end:
        time.sleep(0.2)
        try:
            alive = descendants(running.pid)                           # a runner, and zoe's process
        except OSError:
            pass  # one ended while it was looked at
    running.send_signal(signal.SIGINT)
    assert running.wait(60) == 130, running.stderr.read()
    running.stderr.close()
    assert [row["submission"] for row in rows_of(file)] == ["ada"] and len(alive) >= 2
    while any(os.path.exists(f"/proc/{pid}") for pid in alive) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any(os.path.exists(f"/proc/{pid}") for pid in alive)


def test_two_at_once_and_the_rows_stay_in_order(tmp_path, capsys):
    folder, file = tmp_path / "class", tmp_path / "marks.csv"
    folder.mkdir()
    (folder / "a_slow.py").write_text("import time\ntime.sleep(4)\n" + NORM)
    for name in ("b", "c"):
        (folder / f"{name}.py").write_text(NORM)
    (folder / "d.txt").write_text("")
    assert grade.main(["1", str(folder), "--csv", str(file), "--jobs", "2"]) == 0
    assert [(row["submission"], row["total"]) for row in rows_of(file)] == [
        ("a_slow", "2"), ("b", "2"), ("c", "2"), ("d", "0")]
    assert len({row["fence"] for row in rows_of(file)} - {""}) == 1
    told = capsys.readouterr().out
    assert told.index("   b   ") < told.index("   a_slow   ")          # told as they end, written as they lie


def test_what_one_worker_raises_ends_all_of_them():
    sessions = []

    class Quiet:
        def __init__(self):
            self.states = []
            sessions.append(self)

        def interrupt(self):
            self.states.append("interrupted")

        def close(self):
            self.states.append("closed")

    def work(session, number):
        if number == 3:
            raise OSError("the disk is full")
        return 10 * number

    assert sorted(at_once(3, Quiet, work, [0, 1, 2])) == [(0, 0), (1, 10), (2, 20)]
    with pytest.raises(OSError, match="the disk is full"):
        list(at_once(2, Quiet, work, [1, 2, 3, 4]))
    assert len(sessions) == 5 and all(each.states == ["interrupted", "closed"] for each in sessions)


@pytest.mark.parametrize("more, says", [
    (["--resume"], "it goes on with a CSV"), (["--penalty", "0.1"], "needs a --deadline"),
    (["--deadline", "tomorrow"], "no time such as"), (["--penalty", "2", "--deadline", "2026-01-01"], "--penalty")])
def test_wrong_options_end_in_one_line(tmp_path, more, says, capsys):
    with pytest.raises(SystemExit) as ended:
        grade.main(["1", str(tmp_path), *more])
    error = capsys.readouterr().err
    assert ended.value.code == 2 and says in error and error.count("\n") == 1
