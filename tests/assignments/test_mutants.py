"""A share of mutations.py (a tenth of the mutants of two worked solutions, one seed), and: is what is said true?"""

import re
import subprocess
import sys
from pathlib import Path

import equivalent
import mutations
import pytest
import torch
from grader.comparing import NEARLY, Wrong, agree, close
from grader.grading import common_cause

HERE = Path(__file__).parent


def test_mutants_are_caught_or_listed():
    """In a process of its own, which limits its memory: a slip may make a matrix of 6 GB."""
    share = ["2", "3", "--seeds", "1", "--share", "0.1"]
    command = [sys.executable, "-W", "ignore", str(HERE / "mutations.py"), *share]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    rows = [line.split() for line in done.stdout.splitlines()[1:] if line.split()[0].isdigit()]
    assert [row[0] for row in rows] == list("23")
    assert all(int(row[1]) >= 10 and int(row[1]) == int(row[2]) + int(row[3]) for row in rows)


def test_a_check_that_looks_at_nothing_is_found_out(monkeypatch):
    """The mutation test itself can fail."""
    monkeypatch.setattr(mutations, "messages", lambda *_: {})
    found = mutations.tried(2, range(1), 0.1, 0)
    assert len(found["missed"]) > 0.7 * len(found["mutants"]) > 10


def test_a_cause_that_comes_and_goes_is_found_out():
    said = {0: {"values": "the rate: the run was without an edit. See 5"}, 1: {"values": "it is 0.3 and should be 0.5"}}
    assert "the run was without an edit" in mutations.untrue(said)
    assert mutations.untrue({seed: said[0] for seed in range(3)}) == ""
    numbers = {0: {"values": "you averaged over the 4 mentions"}, 1: {"values": "you averaged over the 5 mentions"}}
    assert mutations.untrue(numbers) == ""


@pytest.mark.parametrize("number", range(1, 7))
def test_what_is_listed_as_equivalent_names_functions_and_reasons(number):
    source = (HERE / f"reference_{number}.py").read_text()
    for function, pattern, why in equivalent.EQUIVALENT[number]:
        assert all(f"def {name}(" in source for name in function.split("/") if name)
        assert re.compile(pattern) and len(why) > 10


def said_of(answer, wanted, tolerance=1e-4):
    with pytest.raises(Wrong) as caught:
        close(answer, wanted, tolerance)
    return str(caught.value)


@pytest.mark.parametrize("seed", range(20))
def test_factors_offsets_and_shares_that_are_told_are_those_of_the_answer(seed):
    """Random slips of many sizes, of a random tensor: whatever the message says is checked."""
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(shape, generator=generator)
    wanted = draw(3, 4) + draw(1)
    size = 10 ** (2 * draw(1).item() - 2)
    slips = [wanted * (1 + size), wanted + size, wanted + size * draw(3, 4), wanted * size, -wanted, wanted.flip(1),
             wanted.roll(1, 1), wanted * torch.where(draw(3, 4) > 1, 1 + size, 1)]
    for answer in slips:
        if agree(answer, wanted, 1e-4):
            continue
        text, off = said_of(answer, wanted), (answer - wanted).abs().max() / wanted.abs().max()
        if match := re.search(r"it is (\S+) times what it should be, everywhere", text):
            largest = max(answer.abs().max().item(), wanted.abs().max().item())
            assert torch.allclose(answer, float(match[1]) * wanted, atol=2e-3 * largest)
            assert match[1] != "1" and off >= NEARLY
        elif match := re.search(r"it is (\S+) off, everywhere alike", text):
            told = torch.tensor(float(match[1]))                             # with four digits
            atol = 2e-3 * wanted.abs().max().item() + 1e-3 * told.abs().item()
            assert torch.allclose(answer - wanted, told, atol=atol)
        elif match := re.search(r"the largest difference is (\S+) of the largest entry", text):
            assert abs(float(match[1]) / off - 1) < 0.5 and off < NEARLY
        elif match := re.search(r"(\d+)% of its entries are wrong", text):
            wrong = ((answer - wanted).abs() > 1e-4 * wanted.abs().max()).double().mean()
            assert abs(int(match[1]) / 100 - wrong) < 0.01
        elif "sign is the opposite" in text:
            assert torch.allclose(answer, -wanted, atol=2e-3)
        else:
            assert re.search(r"shifted by one along axis 1|the order along axis 1", text), text


def test_half_precision_is_not_called_a_factor_of_one():
    wanted = torch.linspace(1, 2, 50)
    assert "is it rounded (float16?)" in said_of(wanted.half(), wanted).lower()
    assert "is it rounded" in said_of(1.0004 * wanted, wanted).lower()


def test_few_wrong_entries_are_not_called_none():
    wanted = torch.randn(40, 40, generator=torch.Generator().manual_seed(0))
    answer = wanted.clone()
    answer[3, 5] += 1
    assert "less than 1% of its entries are wrong; the first, at [3, 5]" in said_of(answer, wanted)


def test_a_cause_must_give_all_the_answers():
    """A share of 40 prompts agrees with some mistake's by chance; with another call's as well it hardly does."""
    known = lambda n: [(0.5, "chance"), ([0.5, 0.25][n], "cause")]
    assert common_cause(0, [0.5, 0.25], known) == [(0.5, "cause")]
    assert common_cause(1, [0.5, 0.25], known) == [(0.25, "cause")]
    assert common_cause(0, [0.5, 0.3], known) == []
