"""The script that trains the bundled model: what it nudges towards, and that it starts and draws by its seed alone."""

import argparse
import math
from pathlib import Path

import pytest
import torch

import judge
import labour
import tinyheads as th
import train_tiny
from helpers import random_model
from tinyheads.files.tokenizer_files import tokenizer_files


@pytest.fixture(scope="module")
def tokenizer():
    return th.load_tokenizer("tiny")


def looking(prompts, places_of):
    """Patterns {"L0", "L1"} of 3 heads in which END looks at the given places alike, 1e-4 being left for the others."""
    B, T = prompts.tokens.shape
    patterns = {}
    for layer, places in places_of.items():
        pattern = torch.full((B, 3, T, T), 1e-4)
        rows = torch.full((B, T), 1e-4).scatter(1, places, 1 / places.shape[1])
        pattern[:, :, prompts.end] = rows[:, None]
        patterns[layer] = pattern
    return patterns


def test_the_division_of_labour_costs_nothing_where_it_is_kept(tokenizer):
    prompts = th.laundry_list(tokenizer, 6, 5, "ordinal", 1)
    kept = looking(prompts, {"L0": prompts.mentions, "L1": th.answer_places(prompts)})
    assert labour.division_of_labour(kept, prompts, crossed_off=True, nudged=3).item() == pytest.approx(0, abs=1e-2)


@pytest.mark.parametrize("layers, words", [({"L0": "one", "L1": "answer"}, "one mention"),
                                           ({"L0": "mentions", "L1": "mentions"}, "mentions in both layers"),
                                           ({"L0": "answer", "L1": "answer"}, "the answer in both layers")])
def test_each_departure_costs_its_closed_form(tokenizer, layers, words):
    prompts = th.laundry_list(tokenizer, 6, 5, "ordinal", 1)
    places = {"one": prompts.mentions[:, :1], "mentions": prompts.mentions, "answer": th.answer_places(prompts)}
    patterns = looking(prompts, {layer: places[at] for layer, at in layers.items()})
    loss = labour.division_of_labour(patterns, prompts, crossed_off=True, nudged=3)
    expected = {
        # Of four mentions three have 1e-4: the mean of -log over them, less log 4.
        "one mention": -0.75 * math.log(1e-4) - math.log(4),
        # The answer's place has 1e-4 in layer 1, and nearly nothing is left beside the mentions: clamped at 1e-6.
        "mentions in both layers": -math.log(1e-4) - 0.6 * math.log(1e-6),
        # All four mentions have 1e-4 in layer 0.
        "the answer in both layers": -math.log(1e-4) - math.log(4),
    }[words]
    assert loss.item() == pytest.approx(expected, abs=2e-2)


def test_in_recall_only_the_answer_s_place_is_asked_for(tokenizer):
    prompts = th.ordinal_recall(tokenizer, 6, 5, 1)
    kept = looking(prompts, {"L0": prompts.positions[:, :1], "L1": th.answer_places(prompts)})
    assert labour.division_of_labour(kept, prompts, crossed_off=False, nudged=3).item() == pytest.approx(0, abs=1e-3)
    elsewhere = looking(prompts, {"L0": th.answer_places(prompts), "L1": prompts.mentions})
    loss = labour.division_of_labour(elsewhere, prompts, crossed_off=False, nudged=3)
    assert loss.item() == pytest.approx(-math.log(1e-4), rel=1e-4)


def test_by_name_mentions_are_asked_to_look_back_at_their_item(tokenizer):
    prompts = th.laundry_list(tokenizer, 6, 4, "name", 2)
    B, T = prompts.tokens.shape
    pattern = torch.full((B, 2, T, T), 1e-4)
    assert labour.from_mentions_back(pattern, prompts).item() == pytest.approx(-math.log(1e-4), rel=1e-5)
    for b in range(B):                                              # each crossed-off word looks at where it stood
        for mention in prompts.mentions[b].tolist():
            pattern[b, :, mention, prompts.tokens[b].tolist().index(prompts.tokens[b, mention].item())] = 0.5
    assert labour.from_mentions_back(pattern, prompts).item() == pytest.approx(math.log(2), rel=1e-5)
    by_ordinal = th.laundry_list(tokenizer, 6, 4, "ordinal", 2)
    assert labour.from_mentions_back(pattern, by_ordinal).item() == 0


def test_the_nudge_is_added_to_the_loss_and_reaches_the_weights(tokenizer):
    prompts = th.laundry_list(tokenizer, 4, 3, "ordinal", 1)
    model = th.GPT2(th.GPT2Config(tokenizer.n_vocab, 128, 32, 2, 2), seed=0)
    plain, nudged = train_tiny.answer_loss(model, prompts), train_tiny.answer_loss(model, prompts, 0.5, 2)
    logits = model(prompts.tokens)[:, -1]
    assert plain.item() == pytest.approx(torch.nn.functional.cross_entropy(logits, prompts.answer).item(), rel=1e-5)
    stream = th.Stream(record=True)
    model(prompts.tokens, stream)
    distance = labour.division_of_labour(stream.patterns, prompts, True, 2)
    assert nudged.item() == pytest.approx(plain.item() + 0.5 * distance.item(), rel=1e-5)
    before = model.h[0].attn.c_attn.weight.clone()
    distance.backward()
    assert model.h[0].attn.c_attn.weight.grad.norm() > 1e-4 and torch.equal(before, model.h[0].attn.c_attn.weight)


def test_a_seed_gives_one_model_and_the_nudge_ends_after_three_quarters(tokenizer, monkeypatch):
    given = dict(width=16, layers=2, heads=2, nudged=1, positions=3.0, queries=6.0, device="cpu", steps=4, batch=8,
                 rate=1e-3, ratio=0.6, decay=0.01, nudge=0.5, by="mixed")
    asked = []
    answer_loss = train_tiny.answer_loss
    monkeypatch.setattr(train_tiny, "make_tokenizer", lambda: tokenizer)
    monkeypatch.setattr(train_tiny, "answer_loss", lambda model, prompts, nudge=0.0, *how, **more:
                        asked.append(nudge) or answer_loss(model, prompts, nudge, *how, **more))
    first, second, other = (train_tiny.train(argparse.Namespace(**given, seed=seed))[0] for seed in (1, 1, 2))
    assert asked[:12] == [0.5, 0.5, 0.0] * 3 + [0.0] * 3            # recall, laundry, IOI in each of four steps
    for a, b, c in zip(first.parameters(), second.parameters(), other.parameters()):
        assert torch.equal(a, b) and (a.dim() < 2 or not torch.equal(a, c))


def test_the_script_gives_the_vocabulary_that_is_bundled():
    made = train_tiny.make_tokenizer()
    folder = Path(__file__).parents[1] / "weights" / "tiny"
    assert tokenizer_files(made) == {name: (folder / name).read_bytes() for name in tokenizer_files(made)}


def test_heads_that_are_not_nudged_cost_nothing_wherever_they_look(tokenizer):
    prompts = th.laundry_list(tokenizer, 6, 5, "ordinal", 1)
    patterns = looking(prompts, {"L0": prompts.mentions, "L1": th.answer_places(prompts)})
    asked = labour.division_of_labour(patterns, prompts, True, 2).item()
    for pattern in patterns.values():
        pattern[:, 2] = 1 / pattern.shape[-1]
    assert labour.division_of_labour(patterns, prompts, True, 2).item() == asked
    assert labour.division_of_labour(patterns, prompts, True, 3).item() > asked + 0.5


def test_of_mixed_mentions_those_by_name_alone_look_back(tokenizer):
    prompts = th.laundry_list(tokenizer, 40, 4, "mixed", 5)
    B, T = prompts.tokens.shape
    pattern = torch.full((B, 2, T, T), 1e-4)
    for b in range(B):
        for mention in prompts.mentions[b].tolist():
            where = prompts.tokens[b].tolist().index(prompts.tokens[b, mention].item())
            if where < mention:                                     # a name, which stands in the list already
                pattern[b, :, mention, where] = 1.0
    assert labour.from_mentions_back(pattern, prompts).item() == pytest.approx(0, abs=1e-6)


def test_the_figures_are_those_that_the_library_gives(tokenizer, monkeypatch):
    monkeypatch.setattr(judge, "STEERED", [5])
    monkeypatch.setattr(judge, "LENGTHS", [2, 5])
    model = th.load("tiny")
    page = judge.figures(model, tokenizer, "ordinal", n=60)
    lists = judge.lists_of(tokenizer, "ordinal", judge.SEEDS["laundry"], 60)
    row = next(line for line in page.splitlines() if line.startswith("| Laundry List by ordinal"))
    for N, cell in zip(judge.LENGTHS, row.split("|")[2:-1]):
        rate, (low, high) = th.accuracy(model, lists(N)), th.wilson_interval(th.accuracy(model, lists(N)), 60)
        assert cell.strip() == f"{rate:.3f} ({low:.2f} to {high:.2f})"
    assert str(th.find_circuit(model, judge.lists_of(tokenizer, "ordinal", judge.SEEDS["heads"], 60)(8))) in page
    followed = [line for line in page.splitlines() if line.startswith("| followed")]
    assert len(followed) == 6 and all(line.count("(") == len(judge.STEERED) for line in followed)


@pytest.mark.parametrize("layers", [2, 3])
def test_the_last_layer_at_end_is_what_the_whole_model_computes_there(tokenizer, layers):
    model = random_model(dict(n_vocab=tokenizer.n_vocab, n_ctx=128, n_embd=32, n_layer=layers, n_head=4))
    prompts, stream = th.laundry_list(tokenizer, 5, 4, "mixed", 7), th.Stream(record=True)
    logits = model(prompts.tokens, stream)[:, -1]
    x, patterns = train_tiny.before_last_layer(model, prompts.tokens, keep=True)
    end, pattern = train_tiny.last_layer_at_end(model, x)
    torch.testing.assert_close(model.ln_f(end) @ model.unembedding.T, logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(pattern, stream.patterns[f"L{layers - 1}"][:, :, -1:])
    assert list(patterns) == [f"L{layer}" for layer in range(layers - 1)]
    for name, kept in patterns.items():
        torch.testing.assert_close(kept, stream.patterns[name])
