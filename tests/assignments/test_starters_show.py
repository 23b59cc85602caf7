"""What a student sees: each starter's own `main`, run with the reference's functions, has the README's figures.

On fewer lists than the README's, so that two figures agree where their 95 % intervals (Wilson) meet.
"""

import importlib
import importlib.util
import re
from pathlib import Path

import pytest
import torch

import tinyheads as th

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def starter(monkeypatch, tmp_path):
    """Gives a function: an assignment's starter, its exercises answered by the reference."""
    monkeypatch.chdir(tmp_path)                                      # figures are saved there
    grad = torch.is_grad_enabled()

    def answered(number):
        file = next((ROOT / "demos" / "assignments").glob(f"{number}_*/starter.py"))
        spec = importlib.util.spec_from_file_location(f"starter_{number}", file)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        reference = importlib.import_module(f"reference_{number}")
        functions = [name for name, each in vars(reference).items() if callable(each) and name in vars(module)]
        assert len(functions) >= 5
        for name in functions:
            monkeypatch.setattr(module, name, getattr(reference, name))
        return module

    yield answered
    torch.set_grad_enabled(grad)


def row(claim):
    """A row of the README's table of numbers: its figures and its control's of training seed 11, and its n."""
    found = re.search(rf"^\| {re.escape(claim)}[^|]*\|([^|]*)\|([^|]*)\|([^|]*)\|", README, re.MULTILINE)
    assert found, f"README.md has no row {claim!r}"
    figures, control, n = found.groups()
    first = lambda text: [float(each) for each in re.findall(r"(?<![\d.])(\d\.\d\d)(?:, \d\.\d\d)*", text)]
    return first(figures), first(control), int(n.replace(",", ""))


def agrees(seen, n, told, n_told):
    """Whether two rates can be one: their intervals meet. told: rounded to two digits."""
    ends = [th.wilson_interval(rate, size) for rate, size in ((seen, n), (told, n_told))]
    return max(low for low, _ in ends) <= min(high for _, high in ends) + 0.005


def numbers_behind(text, beginning):
    """The numbers in the line of a text that begins so."""
    line = next(each for each in text.splitlines() if each.strip().startswith(beginning))
    return [float(each) for each in re.findall(r"-?\d+\.\d+", line.strip().removeprefix(beginning))]


def test_the_readmes_table_is_read():
    assert row("the same by name, 8 items") == ([0.99], [0.11, 0.13], 1000)
    assert not agrees(0.6, 60, 0.98, 400) and agrees(0.95, 60, 0.98, 400)


@pytest.mark.long
def test_4_shows_three_components_that_carry_the_answer(starter, capsys):
    n = 60
    starter(4).main(n)
    text = capsys.readouterr().out
    on_mentions, on_answer = (numbers_behind(text, f"layer {layer}: on the mentions") for layer in (0, 1))
    assert min(on_mentions[:3]) > 0.9 and max(on_mentions[3:]) < 0.1            # the free head does not
    assert min(on_answer[4:7]) > 0.9 and max(on_answer[:4] + on_answer[7:]) < 0.1
    chosen = re.search(r"^channel: ([^:]*):", text, re.MULTILINE)[1].split()
    assert sorted(chosen) == ["L0.H0.C0", "L0.H1.C0", "L0.H2.C0"]
    (with_all, without), (without_others,), n_told = row("three components carry it: 8 items without them")
    for what, told in (("nothing", with_all), ("the channel", without), ("as many others", without_others)):
        seen, = numbers_behind(text, f"accuracy, lists of 8, without {what}:")
        assert agrees(seen, n, told, n_told), (what, seen, told)


@pytest.mark.long
def test_5_shows_that_a_random_index_is_followed_and_where_it_is_not(starter, capsys):
    n = 150
    starter(5).main(n, steps=7)
    text = capsys.readouterr().out
    (followed, *_), (by_chance, *_), n_told = row("a random index is followed, 3 dimensions, 8 items")
    by_k = [numbers_behind(text, f"random index, 8 items, k = {k}:")[:2] for k in (1, 2, 3, 4)]
    assert agrees(by_k[2][0], n, followed, n_told) and agrees(by_k[3][0], n, followed, n_told)
    assert by_k[0][0] < by_k[1][0] < by_k[2][0]                     # one and two dimensions are too few
    assert all(agrees(control, n, by_chance, n_told) for _, control in by_k)
    _, (unfollowed, _), n_told = row("the same by name, 8 items")
    right, looks, rate = numbers_behind(text, "content, crossed off by name: right")
    assert right > 0.9 and looks > 0.9 and agrees(rate, n, unfollowed, n_told)


@pytest.mark.long
def test_6_shows_a_repair_in_the_stream_and_hardly_one_in_the_weights(starter, capsys, monkeypatch):
    n, module = 100, starter(6)
    monkeypatch.setattr(module, "HOLDS", (1.0,))
    module.main(n, (10, 12))
    text = capsys.readouterr().out
    (before, after), (random, *_), n_told = row("END at the right index's place: 12 items")
    untouched, mean, _, walked, by_random = numbers_behind(text, f"given {12:29}")
    for seen, told in ((untouched, before), (mean, before), (walked, after), (by_random, random)):
        assert agrees(seen, n, told, n_told), (seen, told)
    (before, after), _, n_told = row("the weights edited along it, no answer given: 10 items")
    for seen, told in zip(numbers_behind(text, "lists of 10"), (before, after)):
        assert agrees(seen, n, told, n_told), (seen, told)
    for kept in ("recall of 12", "IOI"):
        seen = numbers_behind(text, kept)
        assert abs(seen[0] - seen[1]) <= 0.01 and seen[0] > 0.95
