"""Who inhibits and who moves: found where they were planted, and a plain statement of what is missing elsewhere."""

import pytest
import torch

import tinyheads as th
from helpers import random_tokens
from tinyheads import planted
from tinyheads.circuit import LEAST_INHIBITION, LEAST_MOVER, NEAREST, attention_to, strongest
from tinyheads.planted import N_WORDS, laundry_prompts

PLACES = [((1, 1), (2, 2)), ((0, 3), (1, 0)), ((0, 0), (2, 3))]


@pytest.fixture(scope="module")
def built():
    return planted.planted()


@pytest.fixture(scope="module")
def prompts():
    return laundry_prompts(100, seed=1)


@pytest.fixture(scope="module")
def plain():
    """A model of the planted one's sizes that has learnt nothing."""
    return th.GPT2(planted.CONFIG, seed=0).requires_grad_(False)


@pytest.fixture(scope="module")
def recorded(plain, prompts):
    """END's patterns from a recorded stream, one head after another: {Head: [B, T]}."""
    stream = th.Stream(record=True)
    plain(prompts.tokens, stream)
    return {th.Head(layer, head): stream.patterns[f"L{layer}"][:, head, prompts.end]
            for layer in range(3) for head in range(4)}


# --- find_circuit ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("inhibition, mover", PLACES)
def test_the_planted_heads_are_found_wherever_they_are(inhibition, mover, prompts):
    inhibition, mover = th.Head(*inhibition), th.Head(*mover)
    circuit = th.find_circuit(planted.planted(inhibition, mover).model, prompts)
    assert (circuit.inhibition, circuit.movers) == ([inhibition], [mover])
    assert circuit.found and circuit.why == "" and circuit.where == f"L{inhibition.layer}.mlp"
    assert circuit == th.Circuit([inhibition], [mover])
    assert str(circuit) == f"inhibition heads {inhibition}; mover heads {mover}"


def test_without_its_channel_the_mover_looks_at_no_answer_and_that_is_said(prompts):
    built = planted.planted(with_channel=False)
    circuit = th.find_circuit(built.model, prompts)
    assert not circuit.found and circuit.inhibition == [built.inhibition]
    assert "no head looks at the answer" in circuit.why and "crossed-off" not in circuit.why
    assert str(circuit).endswith(f"({circuit.why})")


def test_a_model_that_learnt_nothing_has_neither_and_the_nearest_heads_are_given(plain, prompts, recorded):
    circuit = th.find_circuit(plain, prompts)
    rows, answer = torch.arange(len(prompts.index)), prompts.positions.gather(1, prompts.index[:, None])[:, 0]
    on_answer = {head: pattern[rows, answer].mean().item() for head, pattern in recorded.items()}
    on_mentions = {head: pattern[:, 6:11].sum(1).mean().item() for head, pattern in recorded.items()}
    mover = max((head for head in recorded if head.layer), key=on_answer.get)
    nearest = sorted((head for head in recorded if head.layer < mover.layer), key=lambda head: -on_mentions[head])
    assert on_answer[mover] < LEAST_MOVER and on_mentions[nearest[0]] < LEAST_INHIBITION
    assert not circuit.found and circuit.movers == [mover] and circuit.inhibition == nearest[:NEAREST]
    no_mover, no_inhibition = circuit.why.split("; no ")
    assert no_mover.startswith("no head looks at the answer") and f"{mover} with {on_answer[mover]:.2f}" in no_mover
    assert f"head before {mover} looks at the crossed-off mentions" in no_inhibition
    assert f"{nearest[0]} with {on_mentions[nearest[0]]:.2f}" in no_inhibition


def look(model, head, query, key):
    """Make a head's attention 10 * (x . query) * (y . key), of the reads x and y: both [D]."""
    weight, start, D = model.h[head.layer].attn.c_attn.weight, head.head * model.config.d_head, model.config.n_embd
    for offset, direction in [(start, query), (D + start, key)]:
        weight[:, offset:offset + model.config.d_head] = 0
        weight[:, offset] = 10 ** 0.5 * direction / direction.norm()


def test_a_head_behind_the_movers_inhibits_nothing_however_much_it_looks_at_the_mentions(prompts):
    built = planted.planted(th.Head(0, 3), th.Head(1, 0))
    end, ordinals = built.model.wte.weight[-1], built.model.wte.weight[N_WORDS:-1].mean(0)      # [D], [D]
    look(built.model, th.Head(2, 1), end, ordinals - built.model.wte.weight[:N_WORDS].mean(0))
    assert th.attention_on(built.model, prompts, prompts.mentions)[2, 1] > 0.9
    circuit = th.find_circuit(built.model, prompts)
    assert circuit.found and circuit.inhibition == [built.inhibition] and circuit.movers == [built.mover]


def test_a_head_of_layer_0_moves_nothing_that_was_written_however_much_it_looks_at_the_answer(prompts):
    """It looks at the first place, and these are the prompts whose answer stands there."""
    built, first = planted.planted(), torch.where(prompts.index == 0)[0]
    fields = {name: x[first] if isinstance(x, torch.Tensor) else x for name, x in vars(prompts).items()}
    prompts = th.Prompts(**{**fields, "texts": [prompts.texts[i] for i in first]})
    look(built.model, th.Head(0, 0), built.model.wte.weight[-1], built.model.wpe.weight[0])
    assert th.attention_on(built.model, prompts, th.answer_places(prompts))[0, 0] > 0.9
    circuit = th.find_circuit(built.model, prompts)
    assert circuit.found and circuit.inhibition == [built.inhibition] and circuit.movers == [built.mover]


def test_a_model_of_one_layer_has_no_circuit(prompts):
    one = th.GPT2(th.GPT2Config(planted.CONFIG.n_vocab, 12, 8, n_layer=1, n_head=2), seed=0)
    with pytest.raises(th.HeadError, match="one layer"):
        th.find_circuit(one, prompts)


def test_the_bundled_models_circuit():
    try:
        model, tokenizer = th.load("tiny"), th.load_tokenizer("tiny")
    except th.TinyheadsError:
        pytest.skip("weights/tiny is not there; weights/train_tiny.py makes it")
    circuit = th.find_circuit(model, th.laundry_list(tokenizer, 400, 5, seed=40))
    assert circuit.found and circuit.where == "L0.mlp"
    assert sorted(circuit.inhibition) == [th.Head(0, head) for head in range(3)]
    assert sorted(circuit.movers) == [th.Head(1, head) for head in range(3)]       # H3 of each layer was left free


def test_the_strongest_heads_are_those_with_enough_in_descending_order():
    table = torch.tensor([[0.1, 0.5, 0.3], [0.75, 0.0, 0.5]])                              # [L, H]
    found = strongest(table, 0.5)
    assert found[0] == th.Head(1, 0) and set(found) == {th.Head(1, 0), th.Head(0, 1), th.Head(1, 2)}
    assert strongest(table, 0.25)[-1] == th.Head(0, 2) and strongest(table, 0.8) == []


# --- Circuit ---------------------------------------------------------------------------------------------


def test_where_is_just_behind_the_last_inhibition_head_unless_it_is_given():
    heads = [th.Head(1, 0), th.Head(3, 2), th.Head(0, 1)]
    assert th.Circuit(heads, [th.Head(5, 0)]).where == "L3.mlp"
    assert th.Circuit(heads, [th.Head(5, 0)], "L5.attn").where == "L5.attn"


@pytest.mark.parametrize("inhibition, movers, said", [
    ([], [th.Head(1, 0)], "one inhibition head and one mover head"),
    ([th.Head(0, 0)], [], "one inhibition head and one mover head"),
    ([th.Head(1, 0)], [th.Head(1, 1)], "L1.H1 cannot read what L1.H0 writes"),
    ([th.Head(0, 0), th.Head(2, 3)], [th.Head(4, 1), th.Head(1, 2)], "L1.H2 cannot read what L2.H3 writes"),
])
def test_heads_that_make_no_circuit_are_refused(inhibition, movers, said):
    with pytest.raises(th.HeadError, match=said):
        th.Circuit(inhibition, movers)


@pytest.mark.parametrize("inhibition, mover, missing", [((0, 4), (1, 0), "L0.H4"), ((0, 0), (3, 1), "L3.H1")])
def test_a_circuit_of_heads_that_the_model_lacks_is_refused(built, inhibition, mover, missing):
    circuit = th.Circuit([th.Head(*inhibition)], [th.Head(*mover)])
    with pytest.raises(th.HeadError, match=f"no {missing}: the model has L0.H0 to L2.H3"):
        circuit.check(built.model)
    th.Circuit([th.Head(0, 3)], [th.Head(2, 3)]).check(built.model)


# --- attention -------------------------------------------------------------------------------------------


def test_attention_on_places_is_summed_over_them_and_averaged_over_prompts(plain, prompts, recorded):
    table = th.attention_on(plain, prompts, prompts.positions[:, :2])
    assert table.shape == (3, 4)
    for head, pattern in recorded.items():
        by_hand = sum(pattern[b, place] for b in range(100) for place in (0, 1)) / 100
        assert table[head.layer, head.head].item() == pytest.approx(by_hand.item(), rel=1e-4), head
    everywhere = th.attention_on(plain, prompts, torch.arange(12).expand(100, 12))
    torch.testing.assert_close(everywhere, torch.ones(3, 4))


def test_attention_is_read_at_each_prompts_own_end(plain):
    """Prompts of unequal length, padded on the right: each is held to itself, run alone without its padding."""
    tokens, ends = random_tokens(planted.CONFIG, B=3, T=10, seed=4), torch.tensor([9, 6, 7])
    places = torch.tensor([[0, 5], [1, 2], [3, 4]])
    prompts = th.Prompts(tokens, tokens[:, 0], tokens[:, :2], places, torch.zeros(3, dtype=torch.long),
                         places[:, 1:], ends, ["", "", ""])
    table = th.attention_on(plain, prompts, places)
    alone = torch.zeros(3, 4)
    for row, end, at in zip(tokens, ends.tolist(), places):
        stream = th.Stream(record=True)
        plain(row[None, :end + 1], stream)
        alone += torch.stack([stream.patterns[f"L{layer}"][0, :, end, at].sum(-1) for layer in range(3)]) / 3
    torch.testing.assert_close(table, alone, rtol=1e-4, atol=1e-6)


def test_preference_is_the_answer_less_all_other_items(prompts, recorded):
    heads = list(recorded)
    found = th.preference_in(torch.stack([recorded[head] for head in heads]), prompts)     # [12, B, T] -> [12]
    for head, value in zip(heads, found.tolist()):
        by_hand = 0
        for b, place in enumerate(th.answer_places(prompts)[:, 0].tolist()):
            row = recorded[head][b].tolist()
            by_hand += (row[place] - sum(row[other] for other in range(6) if other != place)) / 100
        assert value == pytest.approx(by_hand, abs=1e-6), head


def test_the_best_and_the_worst_preference(prompts):
    B, places = 100, th.answer_places(prompts)
    assert places.tolist() == prompts.index[:, None].tolist()                   # a planted list begins at position 0
    best = torch.zeros(B, 12).scatter(1, places, 1.0)
    worst = torch.zeros(B, 12).scatter(1, (places + 1) % 6, 1.0)
    assert th.preference_in(best, prompts).item() == 1 and th.preference_in(worst, prompts).item() == -1
    torch.testing.assert_close(th.preference_in(torch.stack([best, worst, best + worst]), prompts),
                               torch.tensor([1.0, -1.0, 0.0]))


@pytest.mark.parametrize("places, said", [
    (torch.zeros(100, dtype=torch.long), r"positions \[100, M\]"), (torch.zeros(99, 2, dtype=torch.long), r"\[99, 2\]"),
    (torch.zeros(100, 2), "float32"), (torch.full((100, 1), 12), "from 0 to 11"),
    (torch.full((100, 1), -1), "from 0 to"),
])
def test_places_that_are_none_are_refused(plain, prompts, places, said):
    with pytest.raises(th.InputError, match=said):
        th.attention_on(plain, prompts, places)
    with pytest.raises(th.InputError, match=said):
        attention_to(torch.zeros(100, 12), places)


# --- where mentions look ---------------------------------------------------------------------------------


def test_attention_back_is_read_off_each_mention_of_an_item():
    tokenizer = th.load_tokenizer("tiny")
    model = th.GPT2(th.GPT2Config(tokenizer.n_vocab, 128, 16, 2, 2), seed=3).requires_grad_(False)
    prompts = th.laundry_list(tokenizer, 7, 4, "mixed", seed=2)
    stream = th.Stream(record=True)
    model(prompts.tokens, stream)
    seen = []                                                              # one entry a mention of a name: [L, H]
    for b, row in enumerate(prompts.tokens.tolist()):
        for mention in prompts.mentions[b].tolist():
            if row.index(row[mention]) < mention:                          # it stood in the list already
                key = row.index(row[mention])
                seen.append(torch.stack([stream.patterns[f"L{layer}"][b, :, mention, key] for layer in range(2)]))
    torch.testing.assert_close(th.attention_back(model, prompts), torch.stack(seen).mean(0))
    with pytest.raises(th.InputError, match="crossed off by name"):
        th.attention_back(model, th.laundry_list(tokenizer, 7, 4, "ordinal", seed=2))
