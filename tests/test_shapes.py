"""Axes that equal sizes could confuse: each public function refuses what it can tell, one line each."""

import dataclasses
import math

import pytest
import torch

import tinyheads as th
from tinyheads.planted import laundry_prompts, planted
from helpers import circuit_of, random_model, scores_of_head
from tinyheads import basis, steering
from tinyheads.circuit import attention_to
from tinyheads.heads import heads_from

BASIS = th.random_subspace(64, 3, seed=2)
X = torch.randn(6, 5, 64, generator=torch.Generator().manual_seed(0))
BUILT, PROMPTS = planted(), laundry_prompts(30, seed=4)                # B = 30, T = 12, N = 6
MODEL = BUILT.model
HEADS = th.Heads.of(MODEL)
NARROW_OV = th.ov_svd(th.Heads.of(random_model(dict(n_vocab=19, n_ctx=12, n_embd=32, n_layer=3, n_head=4))))
CIRCUIT = circuit_of(BUILT)
nan, ints = torch.tensor(math.nan), torch.arange(6)
set_, codes = th.set_coordinates, th.mean_codes(MODEL, PROMPTS, CIRCUIT, BASIS)               # [6, 3]
change = lambda function: function(X)
fields = lambda **new: dataclasses.replace(PROMPTS, **new)
traverse = lambda points: th.traverse(MODEL, PROMPTS, CIRCUIT, BASIS, points)
rate = lambda values: th.steering_rate(MODEL, PROMPTS, CIRCUIT, BASIS, values)
attend = lambda places: th.attention_on(MODEL, PROMPTS, places)
tensors = {name: value for name, value in MODEL.state_dict().items()}
transposed = {**tensors, "h.1.attn.c_attn.weight": tensors["h.1.attn.c_attn.weight"].T}


@pytest.mark.parametrize("call, error, words", [
    # edits of coordinates: values [k] or [B, k], finite; order [B]; basis [k, D], orthonormal, of floats
    (lambda: change(set_(BASIS, torch.zeros(6), 0)), th.SubspaceError, r"\[3\] or \[6, 3\].*not \[6\]"),
    (lambda: change(set_(BASIS, torch.zeros(3, 6), 0)), th.SubspaceError, r"not \[3, 6\]"),
    (lambda: change(set_(BASIS, torch.zeros(1), 0)), th.SubspaceError, r"not \[1\]"),
    (lambda: change(set_(BASIS, torch.zeros(1, 3), 0)), th.SubspaceError, r"not \[1, 3\]"),
    (lambda: change(th.add_coordinates(BASIS, torch.tensor(1.0), 0)), th.SubspaceError, r"not \[\]"),
    (lambda: change(th.add_coordinates(BASIS, torch.zeros(6, 1, 3), 0)), th.SubspaceError, r"not \[6, 1, 3\]"),
    (lambda: change(set_(BASIS, nan.expand(3), 0)), th.SubspaceError, "nan"),
    (lambda: change(set_(BASIS.T, torch.zeros(3), 0)), th.SubspaceError, r"\[64, 3\]; it should be \[k, 64\]"),
    (lambda: change(set_(torch.eye(64, dtype=torch.int64)[:3], torch.zeros(3), 0)), th.SubspaceError, "torch.int64"),
    (lambda: change(set_(nan.expand(3, 64), torch.zeros(3), 0)), th.SubspaceError, "orthonormal"),
    (lambda: change(set_(BASIS[:0], torch.zeros(0), 0)), th.SubspaceError, r"\[0, 64\]"),
    # removing and restricting: silently wrong for directions that are not orthonormal
    (lambda: change(th.remove(2 * BASIS, "L0.H0").change), th.SubspaceError, "orthonormal"),
    (lambda: change(th.remove(torch.cat([BASIS, BASIS[:1]]), "L0.H0").change), th.SubspaceError, "orthonormal"),
    (lambda: change(th.remove(BASIS.T, "L0.H0").change), th.SubspaceError, "as wide as the stream"),
    (lambda: change(th.restrict(2 * BASIS, "L0.H0", 0).change), th.SubspaceError, "orthonormal"),
    (lambda: change(th.restrict(BASIS.T, "L0.H0", 0).change), th.SubspaceError, "as wide as the stream"),
    (lambda: th.restrict(BASIS, "L0.H0", 0).change(X[:1]), th.InputError, "two at least"),
    (lambda: th.remove(BASIS, "L0.H0", "mean").change(X[:1]), th.InputError, "two at least"),
    # steering and weights
    (lambda: rate(codes.T), th.SubspaceError, r"\[6, 3\], not \[3, 6\]"),
    (lambda: rate(codes[:5]), th.SubspaceError, r"not \[5, 3\]"),
    (lambda: traverse(codes[0]), th.SubspaceError, r"\[G, 3\], not \[3\]"),
    (lambda: traverse(codes.T), th.SubspaceError, r"not \[3, 6\]"),
    (lambda: th.edit_output(MODEL, BUILT.inhibition, BASIS, torch.eye(64)), th.SubspaceError, r"\[3, 3\].*\[64, 64\]"),
    # subspaces
    (lambda: th.Circuit(CIRCUIT.movers, CIRCUIT.inhibition), th.HeadError, "not in a later layer"),
    (lambda: basis.span(nan.expand(2, 8)), th.SubspaceError, "not finite"),
    (lambda: th.by_index(X[0], PROMPTS), th.TaskError, r"\[30\] or \[30, D\], not \[5, 64\]"),
    (lambda: steering.separation(X[:, 0].T, PROMPTS), th.TaskError, r"not \[64, 6\]"),
    (lambda: basis.principal_components(X, 2), th.SubspaceError, r"not \[6, 5, 64\]"),
    (lambda: basis.principal_components(X[:, 0] * nan, 2), th.SubspaceError, "nan"),
    (lambda: basis.principal_components(X[0, :1].expand(6, 64), 1), th.SubspaceError, "along 0 directions only"),
    (lambda: th.grid(codes[0], codes[0, :2], 2), th.SubspaceError, r"\[3\] and \[2\]"),
    (lambda: th.grid(codes[0], codes[1], 0), th.SubspaceError, "0 steps"),
    (lambda: th.shares(ints, 5), th.SubspaceError, "from 0 to 4"),
    (lambda: th.shares(ints - 1, 6), th.SubspaceError, "from 0 to 5"),
    # looking and measuring
    (lambda: attention_to(torch.zeros(31, 12), PROMPTS.positions), th.InputError, r"\[31, M\].*not \[30, 6\]"),
    (lambda: attend(PROMPTS.index), th.InputError, r"\[30, M\].*not \[30\]"),
    (lambda: attend(PROMPTS.mentions[:1]), th.InputError, r"not \[1, 5\]"),
    (lambda: attend(PROMPTS.mentions.T), th.InputError, r"not \[5, 30\]"),
    (lambda: attend(PROMPTS.mentions + 5), th.InputError, "from 0 to 11"),
    (lambda: th.preference(MODEL, PROMPTS, [th.Head(2, -1)]), th.HeadError, "L2.H-1"),
    (lambda: th.rank_correlation(torch.zeros(3), torch.zeros(4)), th.InputError, r"\[3\] and \[4\]"),
    (lambda: th.rank_correlation(codes, codes), th.InputError, r"\[6, 3\]"),
    (lambda: th.rank_correlation(codes[0], codes[1] * nan), th.InputError, "nan"),
    (lambda: th.component_scores(HEADS, "Q", NARROW_OV), th.HeadError, r"\[3, 4, 8, 32\].*\[3, 4, 16, 64\]"),
    (lambda: heads_from(MODEL.config, transposed, True), th.HeadError, r"h.1.*\[64, 192\], not \[192, 64\]"),
    # prompts, and what is measured of them
    (lambda: fields(tokens=PROMPTS.tokens.T), th.TaskError, r"tokens \[B, T\].*'tokens': \[12, 30\]"),
    (lambda: fields(tokens=PROMPTS.tokens[0]), th.TaskError, r"'tokens': \[12\]"),
    (lambda: fields(candidates=PROMPTS.candidates.T), th.TaskError, r"'candidates': \[6, 30\]"),
    (lambda: fields(index=PROMPTS.index[:, None]), th.TaskError, r"'index': \[30, 1\]"),
    (lambda: fields(mentions=PROMPTS.mentions[:, 0]), th.TaskError, r"'mentions': \[30\]"),
    (lambda: fields(end=12), th.TaskError, "position 12 is outside the prompt, 0 to 11"),
    (lambda: fields(end=torch.zeros(12, dtype=torch.int64)), th.TaskError, "the 30 prompts, not 12"),
    (lambda: th.correct(torch.zeros(12, 30, 19), PROMPTS), th.TaskError, r"not \[12, 30, 19\]"),
    (lambda: th.correct(torch.zeros(30, 11), PROMPTS), th.TaskError, r"not \[30, 11\]"),
    (lambda: th.by_index(torch.zeros(30, 1, 1), PROMPTS), th.TaskError, r"\[30, D\], not \[30, 1, 1\]"),
    (lambda: th.by_index(torch.zeros(6), PROMPTS), th.TaskError, r"not \[6\]"),
    (lambda: th.run_end(MODEL, laundry_prompts(3, 1), th.before_end(MODEL, PROMPTS)), th.TaskError,
     "3 prompts"),
    (lambda: th.before_end(MODEL, fields(end=10)), th.TaskError, "unequal length"),
    (lambda: th.fit_repair(MODEL, CIRCUIT, BUILT.channel, PROMPTS), th.TaskError, "a list"),
    (lambda: th.fit_repair(MODEL, CIRCUIT, BUILT.channel, [PROMPTS], PROMPTS.tokens), th.TaskError,
     "a list of batches"),
    (lambda: th.perplexity(MODEL, PROMPTS.tokens[:, :1]), th.TaskError, "one token"),
])
def test_what_could_be_mistaken_is_refused(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_nothing_is_refused_that_is_right():
    W_O = MODEL.h[1].attn.c_proj.weight
    kept = W_O[16:32].clone()
    W_O[16:32] = 0                                                                  # a head that writes nothing
    silent = scores_of_head(MODEL, PROMPTS, BUILT.inhibition, BUILT.mover)
    W_O[16:32] = kept
    assert silent.abs().max() < 1e-6
    nothing = th.restrict(BASIS[:0], "L0.H0", 2).change(X)
    torch.testing.assert_close(nothing[:, 2], X[:, 2].mean(0).expand(6, 64))
    assert torch.equal(th.restrict(BASIS[:0], "L0.H0", 2, keep=False).change(X), X)


@pytest.mark.parametrize("L, H", [(3, 3), (3, 4)])
@pytest.mark.parametrize("outside", [0.0, -torch.inf, torch.nan])
def test_circuit_scores_in_another_order_of_axes_are_refused(L, H, outside):
    circuit = {"Q": type(th.IOI_CIRCUIT["Q"])((th.Head(0, 1),), (th.Head(2, 2),))}
    scores = torch.rand(L, H, L, H, generator=torch.Generator().manual_seed(0)) - 0.5
    right = th.circuit_auc(scores, "Q", circuit)
    layers = torch.arange(L)
    scores = scores.masked_fill((layers[:, None] >= layers)[:, None, :, None], outside)
    assert th.circuit_auc(scores, "Q", circuit) == right
    for order, words in [((2, 3, 0, 1), "are reader by writer; "), ((1, 0, 3, 2), "are head before layer"),
                         ((3, 2, 1, 0), "are reader by writer and head before layer")]:
        with pytest.raises(th.HeadError, match=words):
            th.circuit_auc(scores.permute(order), "Q", circuit)
