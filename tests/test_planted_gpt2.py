"""A planted GPT-2 does what it was built to do; every method finds what was planted, and nothing where nothing is."""

import json
import runpy
import sys

import pytest
import torch

import tinyheads as th
from tinyheads.planted_gpt2 import plant, save_planted
from tinyheads.planted_parts import FREQUENCIES, noise_heads, place_codes, smallest_lead, word_codes

TOKENIZER = th.load_tokenizer("named")
SMALL = th.GPT2Config(n_vocab=TOKENIZER.n_vocab, n_ctx=128, n_embd=256, n_layer=4, n_head=4)
PLANTED = {seed: plant(TOKENIZER, seed, SMALL) for seed in (0, 1)}            # of capacity 10 and 6


@pytest.fixture(params=PLANTED, ids="seed {}".format)
def truth(request):
    return PLANTED[request.param]


def lists(n, n_items, seed=0):
    return th.laundry_list(TOKENIZER, n, n_items, "name", seed)


# --- what it does ---------------------------------------------------------------------------------------


def test_it_crosses_off_by_name_up_to_its_capacity_and_finds_indirect_objects(truth):
    for n_items in (2, 3, truth.capacity):
        assert th.accuracy(truth.model, lists(40, n_items), "vocabulary") == 1
    assert th.accuracy(truth.model, th.ioi(TOKENIZER, 40), "vocabulary") == 1


def test_above_its_capacity_places_that_share_a_code_cannot_be_told_apart(truth):
    N = truth.capacity + 3                                                    # six places share three codes
    prompts = lists(150, N)
    right = th.by_index(th.correct(th.logits_at_end(truth.model, prompts), prompts), prompts)        # [N]
    shared = torch.arange(N) % truth.capacity < 3
    assert right[~shared].min() > 0.95                                        # each has some ten lists
    pairs = right[:3] + right[truth.capacity:]
    assert ((pairs - 1).abs() < 0.75).all() and abs(right.mean() - truth.capacity / N) < 0.1


def test_what_end_holds_is_what_the_formula_says(truth):
    prompts = lists(150, 6)
    codes = th.mean_codes(truth.model, prompts, truth.circuit, truth.channel)                         # [6, 3]
    expected = truth.codes_at_end(6)
    assert ((codes - codes.mean(0)) - expected).norm() < 0.1 * expected.norm()


def test_the_seed_decides_everything_and_the_other_heads_keep_their_weights():
    assert PLANTED[0].described() != PLANTED[1].described()
    again = plant(TOKENIZER, 0, SMALL)
    assert again.described() == PLANTED[0].described()
    assert all(map(torch.equal, again.model.parameters(), PLANTED[0].model.parameters()))
    real = th.Heads.of(th.GPT2(SMALL, seed=5))
    truth = plant(TOKENIZER, 0, SMALL, real)
    planted = {*truth.duplicate, *truth.inhibition, truth.list_head, *truth.movers}
    kept = th.Heads.of(truth.model, fold=False)
    others = [place for place in range(16) if th.Head.at(place, 4) not in planted]
    assert len(others) + len(planted) == 16
    for name in ("W_Q", "W_K", "W_V", "W_O", "b_Q", "b_K", "b_V"):
        assert torch.equal(getattr(kept, name).flatten(0, 1)[others], getattr(real, name).flatten(0, 1)[others])


# --- everything finds it ----------------------------------------------------------------------------------


def test_heads_edges_and_channel_are_those_that_were_planted(truth):
    prompts = lists(16, 5, seed=1)
    found = th.find_circuit(truth.model, prompts)
    assert found.found and set(found.inhibition) == set(truth.inhibition) and set(found.movers) == set(truth.movers)
    back = th.attention_back(truth.model, prompts)
    assert [th.Head(*place) for place in (back > 0.5).nonzero().tolist()] == truth.duplicate
    for mover in truth.movers:
        edges = th.predict_edges(th.Heads.of(truth.model), "Q", 3, mover)
        assert {edge.component for edge in edges} == set(truth.components)
    hard = lists(12, truth.capacity, seed=1)
    scores = th.inhibition_scores(truth.model, hard, truth.circuit)
    assert set(th.channel(truth.model, hard, truth.circuit, measured={"mean": scores})) == set(truth.components)


def test_components_are_counted_as_the_svd_has_them(truth):
    ov = th.ov_svd(th.Heads.of(truth.model))
    for component, direction in zip(truth.components, truth.channel):
        found = ov.write[component.layer, component.head, component.index]
        assert abs(found @ direction) == pytest.approx(1, abs=1e-3)
    assert any(component.index > 0 for component in truth.components)         # not always the strongest of its head


def test_both_subspaces_are_the_planted_one_and_a_random_index_is_followed_there(truth):
    N = truth.capacity
    to_find, unseen = lists(120, N, seed=2), lists(40, N, seed=3)
    random = th.random_subspace(256, 3, seed=100)
    for basis, most in ((th.subspace_from_weights(truth.model, truth.circuit), 1),
                        (th.subspace_from_activations(truth.model, to_find, truth.circuit), 20)):
        assert th.principal_angles(basis, truth.channel).max() < most         # degrees
        codes = th.mean_codes(truth.model, to_find, truth.circuit, basis)
        assert th.steering_rate(truth.model, unseen, truth.circuit, basis, codes) > 0.95
    codes = th.mean_codes(truth.model, to_find, truth.circuit, random)
    assert th.principal_angles(random, truth.channel).max() > 60
    assert th.steering_rate(truth.model, unseen, truth.circuit, random, codes) < 0.4      # chance: 0.10 and 0.17


def test_without_the_channel_nothing_is_found_and_that_is_said():
    truth = plant(TOKENIZER, 1, SMALL, with_channel=False)
    prompts, circuit = lists(60, 5, seed=4), truth.circuit
    found = th.find_circuit(truth.model, prompts)
    assert not found.found and "no head looks at the answer" in found.why and truth.removed
    assert th.accuracy(truth.model, prompts) < 0.4                            # chance: 0.20
    tested = list(th.composition_with_movers(truth.model, circuit))[::32] + truth.components
    few = prompts.first(6)
    scores = th.inhibition_scores(truth.model, few, circuit, components=tested)
    assert th.channel(truth.model, few, circuit, measured={"mean": scores}) == []
    basis = th.subspace_from_activations(truth.model, prompts, circuit)
    codes = th.mean_codes(truth.model, prompts, circuit, basis)
    assert th.steering_rate(truth.model, lists(40, 5, seed=5), circuit, basis, codes) < 0.5
    assert th.principal_angles(basis, truth.channel).min() > 45               # degrees


# --- its parts ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("capacity", range(6, 11))
def test_the_place_that_is_left_leads_in_lists_of_any_length(capacity):
    codes = place_codes(capacity, torch.Generator().manual_seed(capacity))
    torch.testing.assert_close(codes.norm(dim=1), torch.ones(capacity))
    for N in (2, 3, capacity - 1, capacity, capacity + 3, 2 * capacity - 1):  # the task itself, place by place
        held = torch.stack([codes[i % capacity] for i in range(N)])           # [N, 3]
        for left in range(N):
            crossed = -(held.sum(0) - held[left]) / (N - 1)
            scores = held @ (crossed + held.mean(0))                          # [N]
            others = [i for i in range(N) if i % capacity != left % capacity]
            assert (scores[left] - scores[others]).min() * (N - 1) > smallest_lead(codes) - 1e-5 > 0.2


def test_words_and_positions_are_told_apart():
    words = word_codes(480, 39, torch.Generator().manual_seed(0))
    assert (words @ words.T).fill_diagonal_(0).max() < 0.45
    apart = torch.arange(4, 100)[:, None] * torch.tensor(FREQUENCIES)
    assert apart.cos().mean(1).abs().max() < 0.33


def test_noise_heads_have_the_spectra_that_are_stated():
    config = th.GPT2Config(n_vocab=10, n_ctx=8, n_embd=768, n_layer=1, n_head=12)
    heads = noise_heads(th.Heads.of(th.GPT2(config)), torch.Generator().manual_seed(0))
    scale = th.ov_svd(heads).scale[0].mean(0)                                 # [K]
    assert 5 < scale[0] < 9 and heads.folded
    assert (scale[[8, 24, 56]] / scale[0]).tolist() == pytest.approx([0.62, 0.50, 0.35], abs=0.15)


@pytest.mark.parametrize("sizes, words", [
    ({"n_layer": 2}, "n_layer is 2 and should be 3 at least"), ({"n_embd": 128}, "d_head is 32 and should be 48"),
    ({"n_vocab": 300}, "the tokenizer's"), ({"tied": False}, "tied=False")])
def test_where_there_is_no_room_it_says_why(sizes, words):
    with pytest.raises(th.ConfigError, match=words):
        plant(TOKENIZER, 0, th.GPT2Config(**{**vars(SMALL), **sizes}))


def test_what_does_not_fit_together_is_refused():
    heads = th.Heads.of(th.GPT2(SMALL), fold=False)
    with pytest.raises(th.ConfigError, match="should be folded"):
        plant(TOKENIZER, 0, SMALL, heads)
    with pytest.raises(th.TaskError, match="one token"):
        plant(th.Tokenizer.bytes_only(), 0, SMALL)


# --- the command -------------------------------------------------------------------------------------------


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["tinyheads", *map(str, arguments)])
    runpy.run_module("tinyheads", run_name="__main__")


def test_the_command_writes_a_folder_that_load_opens(monkeypatch, tmp_path, capsys):
    monkeypatch.delenv("TINYHEADS_GPT2", raising=False)
    run(monkeypatch, "plant", tmp_path / "new", "--seed", 1, "--small")
    told = json.loads((tmp_path / "new" / "planted.json").read_text())
    assert told["seed"] == 1 and told["components"] == list(map(str, PLANTED[1].components))
    assert "channel " + ", ".join(told["components"]) in capsys.readouterr().out
    model, tokenizer = th.load(tmp_path / "new"), th.load_tokenizer(tmp_path / "new")
    prompts = th.laundry_list(tokenizer, 20, 5, "name")
    assert torch.equal(model(prompts.tokens), PLANTED[1].model(prompts.tokens))


def test_the_command_ends_with_one_line_where_it_cannot(monkeypatch, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    for arguments, words in ((["plant", tmp_path / "file"], "cannot be written"), (["plant"], "required: folder"),
                             (["plant", tmp_path / "x", "--seed", "one"], "'one' is not a whole number from 0")):
        with pytest.raises(SystemExit):
            run(monkeypatch, *arguments)
        line = capsys.readouterr().err
        assert line.count("\n") == 1 and words in line
    monkeypatch.setenv("TINYHEADS_GPT2", str(tmp_path))
    with pytest.raises(SystemExit):
        run(monkeypatch, "plant", tmp_path / "x")
    assert "no tokenizer is there" in capsys.readouterr().err and not (tmp_path / "x").exists()


def test_where_planted_json_cannot_be_written_it_says_so(tmp_path):
    (tmp_path / "planted.json").mkdir()
    with pytest.raises(th.CheckpointError, match="planted.json cannot be written"):
        save_planted(PLANTED[0], tmp_path, TOKENIZER)


def test_with_gpt2s_own_vocabulary(gpt2_folder):
    tokenizer = th.load_tokenizer(gpt2_folder)
    truth = plant(tokenizer, 0, th.GPT2Config(n_ctx=64, n_embd=256, n_layer=3, n_head=4))
    prompts = th.laundry_list(tokenizer, 10, 5, "name")
    assert th.accuracy(truth.model, prompts, "vocabulary") == 1
