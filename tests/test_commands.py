"""Commands refuse what they do not know; where they cannot go on they end with one line and leave nothing half done."""

import argparse
import importlib
import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import tinyheads as th
from tinyheads.files.command import Parser, folder_to_write, number, numbers, one_line_errors

DEMOS = Path(__file__).parents[1] / "demos"


@pytest.fixture
def demos(monkeypatch):
    """Import one of the scripts in demos/ that are modules too."""
    monkeypatch.syspath_prepend(str(DEMOS))
    return importlib.import_module


def ended(run, capsys, *arguments):
    """What a command that ends itself says on stderr, which must be one line, and its exit status."""
    with pytest.raises(SystemExit) as exit:
        run(*arguments)
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and line.endswith("\n")
    return line, exit.value.code


@pytest.mark.parametrize("argv, words", [
    (["--modle", "124M"], "unrecognized arguments: --modle 124M (usage: prog [-h] [--model MODEL] [--steps STEPS])"),
    (["--mod", "tiny"], "unrecognized arguments: --mod tiny"),          # no option is guessed from its first letters
    (["tiny"], "unrecognized arguments: tiny"),
    (["--model"], "argument --model: expected one argument"),
    (["--steps", "0"], "argument --steps: '0' is not a whole number from 1 to 9"),
    (["--steps", "10"], "'10' is not a whole number from 1 to 9"),
    (["--steps", "2.0"], "'2.0' is not a whole number"),
])
def test_an_option_that_is_not_there_or_out_of_range_is_an_error(capsys, argv, words):
    parser = Parser(prog="prog")
    parser.add_argument("--model")
    parser.add_argument("--steps", type=number(int, 1, 9))
    line, status = ended(parser.parse_args, capsys, argv)
    assert status == 2 and line.startswith("prog: error: ") and words in line


def test_numbers_are_finite_and_their_ends_belong_to_the_range():
    assert number(int, 1, 9)("9") == 9 and number(float, 0, 1)("1e-3") == 1e-3 and number(float, 2)("1e300") == 1e300
    for text in ["nan", "inf", "-inf", "1e400", "-1e-9", "", "one", "1.1"]:
        with pytest.raises(argparse.ArgumentTypeError, match="is not a number from 0"):
            number(float, 0, 1)(text)
    with pytest.raises(argparse.ArgumentTypeError, match="'inf' is not a number from 2$"):
        number(float, 2)("inf")


def test_a_list_of_numbers_has_each_once_and_none_that_is_out_of_range():
    assert numbers(int, 1, 9)("3,8,3") == [3, 8] and numbers(float, 0)("0.5") == [0.5]
    for text in ["", "3,", "3;8", "3,0", "3,10"]:
        with pytest.raises(argparse.ArgumentTypeError, match="is not a whole number from 1 to 9"):
            numbers(int, 1, 9)(text)


def test_a_folder_to_write_is_looked_at_and_not_made(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert folder_to_write("~/a/b") == tmp_path / "a" / "b" and list(tmp_path.iterdir()) == []
    file = tmp_path / "file"
    file.write_text("")
    for text, words in [(str(file), "not a folder"), (str(file / "in" / "it"), "not a folder"), ("", "no name"),
                        ("x" * 5000, "too long"), ("~nobody-of-this-name/x", "home")]:
        with pytest.raises(argparse.ArgumentTypeError, match=f"cannot be written: .*{words}"):
            folder_to_write(text)


@pytest.mark.parametrize("error, line, status", [
    (th.HeadError("there is no L9.H9:\nit ends at L1.H3"), "error: there is no L9.H9: it ends at L1.H3", 1),
    (PermissionError(13, "Permission denied", "/x/out"), "error: [Errno 13] Permission denied: '/x/out'", 1),
    (KeyboardInterrupt(), "interrupted", 130),
])
def test_what_cannot_go_on_ends_with_one_line(capsys, error, line, status):
    def run():
        with one_line_errors("prog"):
            raise error
    assert ended(run, capsys) == (f"prog: {line}\n", status)


def test_a_mistake_of_the_program_keeps_its_traceback_and_a_good_end_goes_on():
    with pytest.raises(ZeroDivisionError), one_line_errors("prog"):
        1 / 0
    with one_line_errors("prog"):
        done = True
    assert done


def test_a_reader_that_has_gone_ends_a_command_without_a_word():
    code = ("from tinyheads.files.command import one_line_errors\n"
            "with one_line_errors('prog'):\n    print('first', flush=True)\n    input()\n    print('second')")
    command = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": ""})
    assert command.stdout.readline() == "first\n"
    command.stdout.close()                                              # as head -1 does
    command.stdin.write("\n")
    command.stdin.close()
    assert (command.stderr.read(), command.wait()) == ("", 141)


@pytest.mark.parametrize("argv, words, status", [
    (["download", "1.5B"], "no model '1.5B' can be", 1), (["downlaod", "124M"], "invalid choice: 'downlaod'", 2),
    ([], "download", 2), (["download", "124M", "--fold", "x"], "unrecognized arguments: --fold x", 2)])
def test_the_package_as_a_command(capsys, monkeypatch, argv, words, status):
    monkeypatch.setattr(sys, "argv", ["tinyheads", *argv])
    line, code = ended(lambda: runpy.run_module("tinyheads", run_name="__main__"), capsys)
    assert line.startswith("python -m tinyheads") and words in line and code == status


@pytest.mark.parametrize("argv, model", [
    (["/x/ipykernel_launcher.py", "-f", "kernel.json"], None), (["/x/colab_kernel_launcher.py", "-f", "k.json"], None),
    (["01_residual_stream.py", "--model", "tiny"], "tiny")])            # as the first cell of a notebook sets it
def test_a_notebooks_own_arguments_are_not_ours(demos, monkeypatch, argv, model):
    monkeypatch.setattr(sys, "argv", argv)
    assert demos("common").options("A chapter.").model == model


def test_a_chapter_that_fails_leaves_no_table_and_all_else_as_it_was(demos, monkeypatch, capsys, tmp_path):
    reproduce = demos("reproduce")
    good, bad = tmp_path / "01_good.py", tmp_path / "02_bad.py"
    good.write_text("import torch\nfrom common import Result, options, report, spare_threads, th\n"
                    "out = options('Good.').out\nspare_threads(th.GPT2(th.GPT2Config(9, 4, 8, 1, 2), seed=0))\n"
                    "print(torch.get_num_threads(), 'thread')\nreport(out, [Result('1 good', 'm', 'tiny', 's')])\n")
    bad.write_text("from common import options, th\noptions('Bad.')\nraise th.TaskError('nothing to measure')\n")
    monkeypatch.setattr(reproduce, "CHAPTERS", {"1": good, "2": bad})
    argv = ["reproduce.py", "--out", str(tmp_path / "out"), "--only", "21"]
    monkeypatch.setattr(sys, "argv", argv)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(SystemExit) as exit:
            reproduce.main()
        assert torch.get_num_threads() == 2 and sys.argv is argv
    finally:
        torch.set_num_threads(before)
    said = capsys.readouterr()
    assert exit.value.code == 1 and said.err == "02_bad.py: error: nothing to measure\n"
    assert "1 thread\n" in said.out
    left = sorted(file.name for file in (tmp_path / "out").iterdir())
    assert left == ["progress.json", "results_1.json"]                                 # the first chapter's own


def test_an_interrupted_run_goes_on_with_the_chapters_that_are_left(demos, monkeypatch, capsys, tmp_path):
    reproduce = demos("reproduce")
    for number in "12":
        (tmp_path / f"0{number}_x.py").write_text(
            "import pathlib, sys\nfrom common import Result, options, report, th\nout = options('A chapter.').out\n"
            f"print('ran {number}')\n"
            f"if {number} == 2 and not (out / 'go').exists():\n    raise th.TaskError('stopped')\n"
            f"from tinyheads import plots\nfigure, axes = plots.new_figure(2, 2)\n"
            f"saved = plots.save_figure(figure, out / '{number}.png')\n"
            f"report(out, [Result('{number} x', 'm', 'tiny', 's', str(saved))])\n")
    monkeypatch.setattr(reproduce, "CHAPTERS", {number: tmp_path / f"0{number}_x.py" for number in "12"})

    def run(*options):
        monkeypatch.setattr(sys, "argv", ["reproduce.py", "--out", str(tmp_path / "out"), "--only", "12", *options])
        try:
            reproduce.main()
        except SystemExit as end:
            assert end.code == 1
        return [line for line in capsys.readouterr().out.splitlines() if line.startswith(("ran", "not resumed"))]

    assert run() == ["ran 1", "ran 2"]
    (tmp_path / "out" / "go").touch()
    assert run("--resume", "--quick")[0].startswith("not resumed: the earlier run's options were --out")
    (tmp_path / "out" / "progress.json").write_text("{")
    with pytest.raises(th.TaskError, match="progress.json is not what reproduce.py wrote"):
        run("--resume")
    (tmp_path / "out" / "progress.json").unlink()
    (tmp_path / "out" / "go").unlink()
    assert run() == ["ran 1", "ran 2"]
    (tmp_path / "out" / "go").touch()
    assert run("--resume") == ["ran 2"]
    assert len(json.loads((tmp_path / "out" / "results.json").read_text())) == 2


def test_results_of_an_earlier_run_are_not_taken_for_this_ones(demos, monkeypatch, tmp_path):
    reproduce = demos("reproduce")
    (tmp_path / "01_silent.py").write_text("from common import options\noptions('Reports nothing.')\n")
    (tmp_path / "results_1.json").write_text("[]")
    monkeypatch.setattr(reproduce, "CHAPTERS", {"1": tmp_path / "01_silent.py"})
    monkeypatch.setattr(sys, "argv", ["reproduce.py", "--out", str(tmp_path), "--only", "1"])
    with pytest.raises(FileNotFoundError, match="results_1.json"):
        reproduce.main()
    assert not (tmp_path / "results.json").exists()


@pytest.mark.parametrize("only", ["9", "19", "", "1,2"])
def test_demos_that_are_not_there_are_refused(demos, monkeypatch, capsys, only):
    monkeypatch.setattr(sys, "argv", ["reproduce.py", "--only", only])
    line, status = ended(demos("reproduce").main, capsys)
    assert status == 2 and "must be numbers of chapters" in line


def test_no_chapter_changes_the_process_it_runs_in():
    chapters = sorted(DEMOS.glob("0[0-9]_*.py"))
    assert len(chapters) == 8
    for path in [*chapters, DEMOS / "reproduce.py"]:
        assert not re.search("excepthook|set_grad_enabled|set_num_threads|manual_seed_all", path.read_text()), path
