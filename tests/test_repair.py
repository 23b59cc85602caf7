"""A channel damaged by hand is mended by a fit, and by nothing else."""

import pytest
import torch

import tinyheads as th
from helpers import circuit_of
from tinyheads.planted import laundry_prompts, planted

TURN = torch.tensor([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])   # every code a quarter turn off


@pytest.fixture(scope="module")
def damaged():
    """The planted model, its codes turned away from where the mover looks for them."""
    built = planted()
    th.edit_output(built.model, built.inhibition, built.channel, TURN)
    return built


@pytest.fixture(scope="module")
def fitted(damaged):
    return th.fit_repair(damaged.model, circuit_of(damaged), damaged.channel, [laundry_prompts(60, seed=4)], steps=50,
                         rate=0.2)


def accuracy(model, prompts, edits=()):
    logits = model(prompts.tokens, th.Stream(edits=list(edits)))[:, prompts.end]
    return th.correct(logits, prompts).double().mean().item()


def test_a_fit_mends_the_damaged_channel_and_leaves_the_model_alone(damaged, fitted):
    unseen, before = laundry_prompts(300, seed=5), {k: v.clone() for k, v in damaged.model.state_dict().items()}
    assert accuracy(damaged.model, unseen) < 0.5
    assert accuracy(damaged.model, unseen, fitted.edits()) > 0.98
    assert fitted.loss[-1] < 0.1 * fitted.loss[0]
    assert all(torch.equal(v, before[k]) for k, v in damaged.model.state_dict().items())
    assert not any(parameter.requires_grad for parameter in damaged.model.parameters())


def test_in_the_weights_it_does_what_it_did_in_the_stream_and_survives_saving(fitted, tmp_path):
    built, prompts = planted(), laundry_prompts(100, seed=6)
    th.edit_output(built.model, built.inhibition, built.channel, TURN)
    expected = built.model(prompts.tokens, th.Stream(edits=fitted.edits()))
    report, = fitted.apply(built.model)
    torch.testing.assert_close(built.model(prompts.tokens), expected, rtol=1e-4, atol=1e-4)
    assert report.head == built.inhibition and report.rank == 3 and len(report.factors) == 3
    assert "L1.H1: rank 3" in str(report)
    th.save(built.model, tmp_path)
    assert torch.equal(th.load(tmp_path)(prompts.tokens), built.model(prompts.tokens))


def test_a_random_subspace_mends_nothing(damaged):
    control = th.random_subspace(64, 3, seed=2)
    found = th.fit_repair(damaged.model, circuit_of(damaged), control, [laundry_prompts(60, seed=4)], steps=30)
    assert accuracy(damaged.model, laundry_prompts(300, seed=5), found.edits()) < 0.6


def test_the_same_prompts_give_the_same_repair(damaged):
    again = [th.fit_repair(damaged.model, circuit_of(damaged), damaged.channel, [laundry_prompts(20, seed=4)], steps=3)
             for _ in range(2)]
    assert torch.equal(*(found.matrices[damaged.inhibition] for found in again)) and again[0].loss == again[1].loss


def test_what_is_to_be_kept_holds_the_fit_back(damaged):
    prompts = laundry_prompts(20, seed=7)
    free, held = (th.fit_repair(damaged.model, circuit_of(damaged), damaged.channel, [prompts],
                                [prompts.tokens, prompts], hold=hold, steps=20) for hold in (0.0, 1000.0))
    size = lambda found: (found.matrices[damaged.inhibition] - torch.eye(3)).norm()
    assert size(held) < 0.5 * size(free)


def test_perplexity_of_a_model_that_knows_nothing_is_the_size_of_its_vocabulary():
    model = th.GPT2(th.GPT2Config(n_vocab=11, n_ctx=8, n_embd=8, n_layer=1, n_head=2)).requires_grad_(False)
    model.wte.weight.zero_()
    assert th.perplexity(model, torch.randint(11, (4, 8))) == pytest.approx(11, rel=1e-5)


def test_a_fit_that_could_do_nothing_is_refused(damaged):
    model, channel, prompts = damaged.model, damaged.channel, [laundry_prompts(4, seed=1)]
    head, circuit = damaged.inhibition, circuit_of(damaged)
    with pytest.raises(th.HeadError, match="L0.H0 to L2.H3"):
        th.fit_repair(model, th.Circuit([th.Head(3, 0)], [th.Head(4, 0)]), channel, prompts)
    with pytest.raises(th.SubspaceError, match="wide"):
        th.fit_repair(model, circuit, channel[:, :60], prompts)
    with pytest.raises(th.SubspaceError, match="only once"):
        th.fit_repair(model, th.Circuit([head, head], circuit.movers), channel, prompts)
    with pytest.raises(th.TaskError, match="one batch"):
        th.fit_repair(model, circuit, channel, [])
    with pytest.raises(th.SubspaceError, match="writes nothing"):
        th.fit_repair(model, th.Circuit([damaged.mover], [th.Head(3, 0)]), channel, prompts)
    with pytest.raises(th.SubspaceError, match="steps"):
        th.fit_repair(model, circuit, channel, prompts, steps=0)
