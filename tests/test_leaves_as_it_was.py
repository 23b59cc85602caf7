"""Grad modes, errors and threads: everything works in each mode, and leaves mode, model and threads as they were."""

import copy
import threading
from contextlib import nullcontext

import pytest
import torch

import tinyheads as th
from tinyheads.planted import laundry_prompts, planted
from helpers import circuit_of, scores_of_head
from tinyheads.heads import one_thread

MODES = {"as it is": nullcontext, "no_grad": torch.no_grad, "enable_grad": torch.enable_grad,
         "inference_mode": torch.inference_mode}
TURN = torch.tensor([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 2.0]])


def mode():
    return torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.get_num_threads()


def everything(built):
    """What every public function gives, on prompts made here."""
    prompts, model, basis = laundry_prompts(24, seed=4), built.model, built.channel.clone()
    heads = th.Heads.of(model)
    ov = th.ov_svd(heads)
    scores = th.component_scores(heads, "Q", ov)
    codes = th.mean_codes(model, prompts, circuit_of(built), basis)
    edited = copy.deepcopy(model)
    report = th.edit_output(edited, built.inhibition, basis, TURN)
    found = th.fit_repair(model, circuit_of(built), basis, [prompts], [prompts.tokens[:4], prompts], steps=2)
    earlier = th.before_end(model, prompts)
    return [ov.scale, scores, th.composition_scores(heads, "K"), codes, edited.h[1].attn.c_proj.weight,
            torch.tensor(report.factors), found.matrices[built.inhibition], torch.tensor(found.loss),
            th.run_end(model, prompts, earlier)[0], th.attention_on(model, prompts, prompts.mentions),
            scores_of_head(model, prompts, built.inhibition, built.mover),
            th.traverse(model, prompts, circuit_of(built), basis, codes[:2])[1],
            th.steered_answers(model, prompts, circuit_of(built), basis, codes[prompts.index]),
            th.logits_at_end(model, prompts), torch.tensor(th.perplexity(model, prompts.tokens)),
            th.subspace_from_weights(model, circuit_of(built)),
            model(prompts.tokens, th.Stream(edits=[th.restrict(basis, "L1.H1", prompts.end),
                                                   th.remove(basis[:1], "L1.H1")]))]


@pytest.fixture(scope="module")
def expected():
    return [value.detach().clone() for value in everything(planted())]


@pytest.mark.parametrize("name, requires_grad", [("as it is", True), ("no_grad", False), ("enable_grad", True),
                                                 ("inference_mode", False), ("inference_mode", True)])
def test_every_mode_gives_the_same_and_stays(expected, name, requires_grad):
    built = planted()
    built.model.requires_grad_(requires_grad)
    with MODES[name]():
        before = mode()
        got = everything(built)
        assert mode() == before
    for value, right in zip(got, expected, strict=True):
        torch.testing.assert_close(value.detach(), right, rtol=1e-4, atol=1e-5)
    assert all(p.grad is None and p.requires_grad == requires_grad for p in built.model.parameters())


def test_a_model_of_inference_mode_can_be_edited_and_is_not_fitted():
    with torch.inference_mode():
        built = planted()
    with pytest.raises(th.InputError, match="inside torch.inference_mode"):
        th.fit_repair(built.model, circuit_of(built), built.channel, [laundry_prompts(4, 1)], steps=1)
    before = built.model.h[1].attn.c_proj.weight.clone()
    th.edit_output(built.model, built.inhibition, built.channel, TURN)
    assert not torch.equal(built.model.h[1].attn.c_proj.weight, before)


class Stop(Exception):
    """Raised in the middle of a fit, as Ctrl-C would be."""


@pytest.mark.parametrize("error", [KeyboardInterrupt, Stop, None])
def test_a_fit_that_ends_early_leaves_the_model_its_gradients_and_torch_alone(monkeypatch, error):
    built, prompts = planted(), laundry_prompts(20, seed=4)
    model = built.model.requires_grad_(True)
    model.wte.weight.requires_grad_(False)
    model.ln_f.bias.grad = torch.ones(64)
    kept = {name: (p.clone(), p.requires_grad, p.grad, p._version) for name, p in model.named_parameters()}
    if error:
        step, steps = torch.optim.Adam.step, []

        def stopping(self, *rest):
            steps.append(step(self, *rest))
            if len(steps) == 2:
                raise error()

        monkeypatch.setattr(torch.optim.Adam, "step", stopping)
    before, generator = mode(), torch.get_rng_state()
    with torch.inference_mode(), pytest.raises(error or th.SubspaceError, match=None if error else "diverged"):
        th.fit_repair(model, circuit_of(built), built.channel, [prompts], steps=3, rate=1e30)
    assert mode() == before and torch.equal(torch.get_rng_state(), generator)
    for name, p in model.named_parameters():
        value, requires_grad, gradient, version = kept[name]
        assert torch.equal(p, value) and p._version == version
        assert p.requires_grad == requires_grad and p.grad is gradient
    assert torch.equal(model.ln_f.bias.grad, torch.ones(64))


def test_an_edit_of_the_weights_that_is_refused_changes_nothing():
    built = planted()
    before = built.model.h[1].attn.c_proj.weight.clone()
    for M in (torch.eye(3), torch.full((3, 3), torch.nan), torch.eye(2), torch.eye(3, dtype=torch.int64), 1e39 * TURN):
        with pytest.raises(th.SubspaceError):
            th.edit_output(built.model, built.inhibition, built.channel, M)
    assert torch.equal(built.model.h[1].attn.c_proj.weight, before)


# --- torch's number of threads ------------------------------------------------------------------------------


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_the_number_of_threads_is_put_back_after_an_error_too(two_threads):
    with one_thread():
        with one_thread():
            assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2
    with pytest.raises(Stop):
        with one_thread():
            raise Stop()
    assert torch.get_num_threads() == 2


def test_two_at_once_put_back_what_was_before_the_first(two_threads):
    """The second would else take the first's one thread for what was there before, and leave it so."""
    inside, seen = threading.Event(), []

    def first():
        with one_thread():
            inside.set()
            started.wait(5)
            second.join(0.1)                                                   # it waits for this one to leave

    def other():
        started.set()
        with one_thread():
            seen.append(torch.get_num_threads())
        seen.append(torch.get_num_threads())

    started, second = threading.Event(), threading.Thread(target=other)
    holder = threading.Thread(target=first)
    holder.start()
    inside.wait(5)
    second.start()
    holder.join()
    second.join()
    assert seen == [1, 2]
