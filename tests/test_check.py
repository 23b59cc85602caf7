"""`python -m tinyheads check`: the real attention weights pass, damaged ones do not, and each row can fail by itself.

OpenAI's whole model is at no developer's hand. So the rows that need one are tried on the bundled model, with facts
measured on it in another way (full matrices, attention written out), and on the same model with one slip at a time.
"""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import tinyheads as th
from tinyheads import published
from tinyheads.check import attention_weights, check, continuation, facts_of, indirect_objects, singular_values
from tinyheads.published import Attention, Continuation, Facts, values, weights

REAL = os.environ.get("TINYHEADS_GPT2")
needs_real = pytest.mark.skipif(not REAL, reason="TINYHEADS_GPT2 names no folder with OpenAI's attention weights")


@pytest.fixture(scope="module")
def tiny():
    return th.load("tiny"), th.load_tokenizer("tiny")


@pytest.fixture(scope="module")
def facts(tiny):
    """Facts of the bundled model: singular values of [D, D] matrices, and attention from queries and keys."""
    model, tokenizer = tiny
    config, heads = model.config, th.Heads.of(model)
    largest = tuple(tuple(torch.linalg.svdvals(heads.W_Q[layer, head] @ heads.W_K[layer, head].T)[0].item()
                          for head in range(config.n_head)) for layer in range(config.n_layer))
    ids = [tokenizer.end_of_text, *tokenizer.encode(published.IOI_PROMPT)]
    words = [tokenizer.decode([token]) for token in ids]
    stream = th.Stream(record=True)
    model(torch.tensor([ids]), stream)
    x = stream.reads["L1.attn"][0]                                     # [T, D]
    attention = model.h[1].attn
    q, k, _ = (x @ attention.c_attn.weight + attention.c_attn.bias).split(config.n_embd, dim=-1)
    q, k = q[:, :config.d_head], k[:, :config.d_head]                  # [T, K], of L1.H0
    row = (q[-1] @ k.T / config.d_head ** 0.5).softmax(-1)             # [T]: the last position sees all
    most = int(row.argmax())
    key = words[most] + (" (1)" if words[most] in words[:most] else "") if most else "start"
    text = tokenizer.decode(model.generate(ids[1:], 6, temperature=0, use_cache=False)[len(ids) - 1:])
    prompts = th.ioi(tokenizer, 100, seed=3)
    lead = []
    for b in range(100):
        logits = model(prompts.tokens[b:b + 1])[0, -1]
        names = prompts.candidates[b].tolist()
        lead.append((logits[names.pop(int(prompts.index[b]))] - logits[names[0]]).item())
    return Facts("tiny", (config.n_layer, config.n_head, config.n_embd, config.n_vocab), largest,
                 (Attention(th.Head(1, 0), " to (1)", key, row[most].item()),), "this test",
                 (Continuation(published.IOI_PROMPT, text, "this test"),),
                 (sum(lead) / 100, sum(each > 0 for each in lead) / 100), "this test")


def swapped(model):
    """The same model with the queries of two of layer 1's heads exchanged: what a wrong split of QKV does."""
    other = th.GPT2(model.config)
    other.load_state_dict(model.state_dict())
    K, W = model.config.d_head, other.h[1].attn.c_attn.weight
    with torch.no_grad():
        W[:, :2 * K] = W[:, :2 * K].roll(K, dims=1)
    return other.requires_grad_(False)


def test_a_model_agrees_with_what_was_measured_on_it_in_another_way(facts, monkeypatch):
    _, rows, left_out = check("tiny", n=100, seed=3, known=(facts,))
    assert [row.passed for row in rows] == [True] * 4 and left_out == "", rows
    assert rows[3].published.split(", ")[0] == rows[3].here.split(", ")[0]         # the same mean lead, to two digits


def test_heads_that_were_exchanged_are_seen(tiny, facts):
    model, tokenizer = swapped(tiny[0]), tiny[1]
    row = singular_values(th.Heads.of(model), facts)
    assert not row.passed and "L1.H" in row.what
    assert not attention_weights(model, tokenizer, facts).passed


def test_another_text_fails_and_says_how_far_it_is_the_same(tiny):
    model, tokenizer = tiny
    ids = tokenizer.encode(published.IOI_PROMPT)
    text = tokenizer.decode(model.generate(ids, 3, temperature=0)[len(ids):])
    row = continuation(model, tokenizer, Continuation(published.IOI_PROMPT, text[:-1] + "#", "a slip"))
    assert not row.passed and f"the same for {len(text) - 1} characters" in row.here


def test_a_model_that_does_not_know_the_names_fails_on_ioi(tiny, facts):
    model, tokenizer = tiny
    random = th.GPT2(model.config, seed=1).requires_grad_(False)
    assert not indirect_objects(random, tokenizer, facts, 100, 3).passed
    better = dataclasses.replace(facts, ioi=(facts.ioi[0] + 2, 1.0))               # a lead of two logits more
    assert not indirect_objects(model, tokenizer, better, 100, 3).passed


def test_published_tables_have_a_number_for_every_head():
    for facts in published.KNOWN:
        assert [len(row) for row in facts.largest_qk] == [facts.shape[1]] * facts.shape[0]
        assert all(0 < each.weight <= 1 for each in facts.attention)
    assert [len(facts.attention) for facts in published.KNOWN] == [34, 30]
    assert values("1 2\n3 4") == ((1.0, 2.0), (3.0, 4.0))
    assert weights("L9.H9| to (1)|start|0.5") == (Attention(th.Head(9, 9), " to (1)", "start", 0.5),)


def test_a_model_of_another_shape_is_refused():
    with pytest.raises(th.InputError, match="2 layers of 4 heads, width 32.*GPT-2 124M"):
        facts_of(th.load("tiny").config)


@needs_real
def test_openai_s_attention_weights_pass_alone():
    facts, rows, left_out = check(Path(REAL) / "model-attention.safetensors")
    assert facts.name == "GPT-2 124M" and [row.passed for row in rows] == [True] and "(144 agree)" in rows[0].here
    assert "wte.weight" in left_out


@needs_real
def test_one_changed_head_of_openai_s_fails():
    heads = th.load_heads(Path(REAL) / "model-attention.safetensors")
    heads.W_K[8, 10] *= 1.001
    row = singular_values(heads, published.GPT2_124M)
    assert not row.passed and "L8.H10 is furthest" in row.what and "(143 agree)" in row.here


@pytest.mark.parametrize("name, status, told", [("tiny", 1, "nothing published is known"),
                                                ("no-such-model", 1, "no weights")])
def test_the_command_ends_with_one_line_where_it_cannot_compare(name, status, told):
    ran = subprocess.run([sys.executable, "-m", "tinyheads", "check", name], capture_output=True, text=True)
    assert ran.returncode == status and told in ran.stderr and ran.stderr.count("\n") == 1
