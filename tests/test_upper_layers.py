"""A run that begins in a layer is the whole run, from there on: with edits, patterns and gradients."""

import pytest
import torch

import tinyheads as th
from helpers import random_model, random_tokens
from tinyheads.upper_layers import first_layer, run_above, run_below

SIZES = dict(n_vocab=40, n_ctx=12, n_embd=24, n_layer=4, n_head=3)


@pytest.fixture(scope="module")
def model():
    return random_model(SIZES, seed=5)


def double(x):
    return 2 * x


@pytest.mark.parametrize("layer", [0, 1, 3])
def test_it_gives_what_the_whole_run_gives(model, layer):
    tokens = random_tokens(model.config)
    edits = [th.Edit("L3.H1", double), th.Edit("L3.mlp", double, of="stream"),
             th.Edit("L3", lambda pattern: pattern.roll(1, 1), of="patterns")]
    whole = model.final(tokens, th.Stream(edits=edits))
    torch.testing.assert_close(run_above(model, run_below(model, tokens, layer), th.Stream(edits=edits)), whole)


def test_it_ends_with_the_layer_that_is_asked_for(model):
    seen, whole = [], th.Stream(record=True)
    tokens = random_tokens(model.config)
    model(tokens, whole)
    look = lambda name: th.Edit(name, lambda x: seen.append((name, x)) or x, of="patterns")
    assert run_above(model, run_below(model, tokens, 1), th.Stream(edits=[look("L2"), look("L3")]), last=2) is None
    (name, pattern), = seen
    assert name == "L2"
    torch.testing.assert_close(pattern, whole.patterns["L2"])


def test_gradients_pass_from_the_end_to_an_edit(model):
    tokens, scale = random_tokens(model.config), torch.ones((), requires_grad=True)
    stream = lambda: th.Stream(edits=[th.Edit("L2.H0", lambda write: scale * write)])
    whole, = torch.autograd.grad(model(tokens, stream()).square().sum(), scale)
    x = run_above(model, run_below(model, tokens, 2), stream())
    part, = torch.autograd.grad((x @ model.unembedding.T).square().sum(), scale)
    torch.testing.assert_close(part, whole)


def test_an_edit_below_what_was_kept_is_refused(model):
    below = run_below(model, random_tokens(model.config), 2)
    with pytest.raises(th.StreamError, match="an edit in layer 1 .* before layer 2"):
        run_above(model, below, th.Stream(edits=[th.Edit("L1.mlp", double)]))
    with pytest.raises(th.StreamError, match="L4.attn"):
        run_below(model, random_tokens(model.config), 4)


def test_the_first_layer_of_edits():
    edit = lambda name, of: th.Edit(name, double, of=of)
    assert first_layer([edit("L10.H2", "writes"), edit("L9", "patterns")], 12) == 9
    assert first_layer([edit("embed", "writes"), edit("L9.mlp", "stream")], 12) == 0
    assert first_layer([edit("unembed", "reads")], 12) == first_layer([], 12) == 12
