"""Components taken away, one at a time: what the verbs report, against the same removal written out by hand."""

import pytest
import torch

import tinyheads as th
from helpers import random_model
from tinyheads import ablation
from tinyheads.planted import CONFIG, laundry_prompts, planted

CHANNEL = [th.Component(1, 1, index) for index in range(3)]


@pytest.fixture(scope="module")
def built():
    return planted()


@pytest.fixture(scope="module")
def prompts():
    return laundry_prompts(100, seed=1)


@pytest.fixture(scope="module")
def circuit(built):
    return th.Circuit([built.inhibition], [built.mover])


def preference_by_hand(model, prompts, movers, edits=()):
    """END's attention on the answer less that on the other items, from a recorded stream: mean over all."""
    stream, values = th.Stream(record=True, edits=list(edits)), []
    model(prompts.tokens, stream)
    for mover in movers:
        pattern = stream.patterns[f"L{mover.layer}"][:, mover.head, prompts.end, :6]       # the list stands first
        sign = -torch.ones_like(pattern)
        sign[torch.arange(len(pattern)), prompts.index] = 1
        values.append((sign * pattern).sum(1).mean().item())
    return sum(values) / len(values)


def without(model, component, how):
    """An edit that takes a component's direction out of its head's write, its SVD from the full OV matrix."""
    heads = th.Heads.of(model)
    OV = heads.W_V[component.layer, component.head] @ heads.W_O[component.layer, component.head]
    v = torch.linalg.svd(OV.double()).Vh[component.index].float()                          # [D]

    def change(write):
        part = (write @ v)[..., None] * v                                                  # [B, T, D]
        return write - part + (part.mean(dim=0) if how == "mean" else 0)
    return th.Edit(str(component.of_head), change)


# --- inhibition scores -----------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["zero", "mean"])
@pytest.mark.parametrize("movers", [[th.Head(2, 2)], [th.Head(2, 2), th.Head(2, 0)]], ids=["one mover", "two"])
def test_an_inhibition_score_is_the_preference_lost_without_the_components_direction(built, prompts, how, movers):
    components = [*CHANNEL, th.Component(1, 0, 0), th.Component(0, 2, 1)]
    scores = th.inhibition_scores(built.model, prompts, th.Circuit([built.inhibition], movers), how,
                                  components=components)
    assert list(scores) == components
    whole = preference_by_hand(built.model, prompts, movers)
    assert th.preference(built.model, prompts, movers) == pytest.approx(whole, abs=1e-5)
    for component, score in scores.items():
        lost = whole - preference_by_hand(built.model, prompts, movers, [without(built.model, component, how)])
        assert score == pytest.approx(lost, abs=1e-4), component
    assert all(scores[component] > 0.15 for component in CHANNEL) and abs(scores[components[3]]) < 0.05


def test_resampled_values_come_from_other_prompts_by_seed(built, prompts, circuit):
    first, again, other = (th.inhibition_scores(built.model, prompts, circuit, "resample", seed, CHANNEL[:1])
                           for seed in (0, 0, 1))
    assert first == again and first != other
    v = th.ov_svd(th.Heads.of(built.model)).write[1, 1, 0]

    def change(write):
        part = (write @ v)[..., None] * v                                                  # [B, T, D]
        return write - part + part[ablation.derangement(len(write), seed=0)]
    lost = th.preference(built.model, prompts, circuit.movers) - preference_by_hand(
        built.model, prompts, circuit.movers, [th.Edit("L1.H1", change)])
    assert first[CHANNEL[0]] == pytest.approx(lost, abs=1e-5)


def test_preference_refuses_a_mover_that_the_model_lacks(built, prompts):
    with pytest.raises(th.HeadError, match="no L3.H0"):
        th.preference(built.model, prompts, [built.mover, th.Head(3, 0)])
    for head in (th.Head(1, 4), th.Head(0, 4)):
        with pytest.raises(th.HeadError, match=f"no {head}"):
            th.inhibition_scores(built.model, prompts, th.Circuit([head], [built.mover]))


# --- composition with the movers -------------------------------------------------------------------------


def test_composition_with_one_mover_is_its_column_of_the_component_scores(built, circuit):
    table = th.component_scores(th.Heads.of(built.model), "Q")                             # [L, H, K, L, H]
    found = th.composition_with_movers(built.model, circuit)
    assert len(found) == 2 * 4 * CONFIG.d_head and all(component.layer < 2 for component in found)
    for c, score in found.items():
        assert score == pytest.approx(table[c.layer, c.head, c.index, 2, 2].item(), abs=1e-6)
    assert set(sorted(found, key=found.get)[-3:]) == set(CHANNEL)


def test_composition_with_two_movers_is_the_root_of_the_mean_square(built):
    table = th.component_scores(th.Heads.of(built.model), "Q").double()
    movers = [th.Head(2, 2), th.Head(1, 3)]                             # the first in layer 1: writers in layer 0
    found = th.composition_with_movers(built.model, th.Circuit([th.Head(0, 0)], movers))
    assert len(found) == 4 * CONFIG.d_head and all(component.layer == 0 for component in found)
    for c, score in found.items():
        row = table[c.layer, c.head, c.index]
        assert score == pytest.approx(((row[2, 2] ** 2 + row[1, 3] ** 2) / 2).sqrt().item(), abs=1e-6)


# --- which components are tested -------------------------------------------------------------------------


def test_all_components_are_tested_where_they_are_few(built, circuit):
    assert th.components_to_test(built.model, circuit) == [th.Component(layer, head, index) for layer in range(2)
                                                           for head in range(4) for index in range(CONFIG.d_head)]


def test_of_many_components_the_16_strongest_and_16_others_are_tested():
    model = random_model(dict(n_vocab=5, n_ctx=4, n_embd=48, n_layer=5, n_head=6), seed=2)
    circuit = th.Circuit([th.Head(0, 0)], [th.Head(4, 1), th.Head(3, 2)])       # 3 layers of 6 heads of 8: 144
    composition = th.composition_with_movers(model, circuit)
    assert len(composition) == 144 > ablation.MOST_TESTED
    chosen = th.components_to_test(model, circuit)
    assert len(chosen) == len(set(chosen)) == 32
    strongest = sorted(composition.values(), reverse=True)
    assert [composition[component] for component in chosen[:16]] == strongest[:16]
    assert max(composition[component] for component in chosen[16:]) < strongest[15]
    assert chosen == th.components_to_test(model, circuit, seed=0)
    other = th.components_to_test(model, circuit, seed=1)
    assert other[:16] == chosen[:16] and set(other[16:]) != set(chosen[16:])
    for seed in range(6):                                               # none of the others is among the strongest
        assert len(set(th.components_to_test(model, circuit, seed))) == 32
    fewer = th.Circuit([th.Head(0, 0)], [th.Head(2, 1)])                        # 96 of them
    assert len(th.components_to_test(model, fewer)) == 96


# --- the channel -----------------------------------------------------------------------------------------


def measured_on(model, prompts, circuit, heads):
    """The inhibition scores of all components of some heads, in every way of removing them."""
    components = [th.Component.of(head, index) for head in heads for index in range(CONFIG.d_head)]
    return {how: th.inhibition_scores(model, prompts, circuit, how, components=components) for how in ablation.WAYS}


def test_the_channel_is_the_planted_one(built, circuit):
    prompts = laundry_prompts(40, seed=1)
    measured = measured_on(built.model, prompts, circuit, [th.Head(1, 0), th.Head(1, 1)])
    composition = th.composition_with_movers(built.model, circuit)
    found = th.channel(built.model, prompts, circuit, measured=measured)
    assert found == sorted(CHANNEL, key=lambda component: -composition[component])         # strongest by weights first
    assert th.channel(built.model, prompts, circuit, least=1.01, measured=measured) == []


def test_a_component_of_the_channel_is_named_by_weights_and_by_every_way_and_costs_enough(built, prompts, circuit):
    whole = th.preference(built.model, prompts, circuit.movers)
    composition = th.composition_with_movers(built.model, circuit)
    first, second, third = sorted(CHANNEL, key=lambda component: -composition[component])

    def found(top=3, **by_way):
        scores = {first: 0.5, second: 0.4, third: 0.3, th.Component(1, 0, 0): 0.0}
        measured = {how: {**scores, **by_way.get(how, {})} for how in ablation.WAYS}
        return th.channel(built.model, prompts, circuit, top, measured=measured)
    assert found() == [first, second, third]
    assert found(mean={second: 0.04 * whole}) == [first, third]         # costs too little in one way
    assert found(zero={second: 0.06 * whole}) == [first, second, third]
    assert found(top=2) == [first, second]
    assert found(top=2, resample={third: 0.9}) == [first]               # third drives second out in one way
    assert found(top=1, zero={second: 0.9}) == []                       # weights name one, a removal another


def test_the_ways_are_measured_where_they_are_left_out(monkeypatch):
    monkeypatch.setattr(ablation, "MOST_TESTED", 40)                    # 32 components are enough here
    built, prompts = planted(th.Head(0, 3), th.Head(1, 0)), laundry_prompts(20, seed=1)
    circuit = th.Circuit([built.inhibition], [built.mover])
    assert set(th.channel(built.model, prompts, circuit)) == {th.Component(0, 3, index) for index in range(3)}


def test_where_no_channel_was_planted_none_is_found():
    built, prompts = planted(with_channel=False), laundry_prompts(40, seed=1)
    circuit = th.Circuit([built.inhibition], [built.mover])
    measured = measured_on(built.model, prompts, circuit, [built.inhibition])
    assert th.channel(built.model, prompts, circuit, measured=measured) == []


# --- errors ----------------------------------------------------------------------------------------------


def test_components_are_removed_one_edit_each_from_their_own_head(built, prompts):
    ov = th.ov_svd(th.Heads.of(built.model))
    edits = th.remove_components(ov, [th.Component(1, 1, 2), th.Component(0, 3, 0)], "zero")
    assert [edit.name for edit in edits] == ["L1.H1", "L0.H3"]
    stream = th.Stream(record=True, edits=edits)
    built.model(prompts.tokens, stream)
    for name, v in [("L1.H1", ov.write[1, 1, 2]), ("L0.H3", ov.write[0, 3, 0])]:
        assert (stream.writes[name] @ v).abs().max() < 1e-5
    assert th.remove_components(ov, []) == []


@pytest.mark.parametrize("components, how, error, said", [
    ([th.Component(3, 0, 0)], "mean", th.HeadError, "no L3.H0: the model has L0.H0 to L2.H3"),
    ([th.Component(0, 4, 0)], "mean", th.HeadError, "no L0.H4"),
    ([th.Component(1, 1, 0), th.Component(1, 1, 16)], "mean", th.HeadError, "L1.H1.C16: a head has .* C0 to C15"),
    ([th.Component(1, 1, -1)], "mean", th.HeadError, "C0 to C15"),
    ([th.Component(1, 1, 0)], "median", th.InputError, "zero, mean, resample, not by 'median'"),
])
def test_components_that_cannot_be_removed_are_refused(built, prompts, circuit, components, how, error, said):
    with pytest.raises(error, match=said):
        th.remove_components(th.ov_svd(th.Heads.of(built.model)), components, how)
    with pytest.raises(error, match=said):
        th.inhibition_scores(built.model, prompts, circuit, how, components=components)


@pytest.mark.parametrize("how", ["mean", "resample"])
def test_a_batch_of_one_has_no_mean_and_no_other_prompt(built, circuit, how):
    with pytest.raises(th.InputError, match="a batch of two at least"):
        th.inhibition_scores(built.model, laundry_prompts(1, seed=0), circuit, how, components=CHANNEL[:1])


def test_the_bundled_models_channel_is_the_one_that_the_readme_tells():
    """Chapter 4, which takes longer, judges on 150 lists."""
    model, tokenizer = th.load("tiny"), th.load_tokenizer("tiny")
    circuit = th.find_circuit(model, th.laundry_list(tokenizer, 400, 5, seed=40))
    strongest = th.Circuit(circuit.inhibition, circuit.movers[:1])
    named = th.channel(model, th.laundry_list(tokenizer, 50, 8, seed=41), strongest)
    assert list(map(str, named)) == ["L0.H0.C0", "L0.H2.C0", "L0.H1.C0"]


# --- attributed on data --------------------------------------------------------------------------------------


def test_attributed_scores_are_the_score_of_the_answer_less_those_of_the_others(built, prompts, circuit):
    some = prompts.first(12)
    scores = th.attributed_scores(built.model, some, circuit)
    stream = th.Stream(record=True)
    built.model(some.tokens, stream)
    for head in (built.inhibition, th.Head(0, 2)):                          # component by component it is the head's
        expected = 0.0
        for b in range(12):
            for n, place in enumerate(some.positions[b].tolist()):
                part = th.attention_attribution(built.model, stream, built.mover, some.end, place)[str(head)][b].item()
                expected += part * (1.0 if n == some.index[b] else -1 / 5) / 12
        parts = [score for name, score in scores.items() if name.startswith(f"{head}.")]
        assert sum(parts) == pytest.approx(expected, rel=1e-3, abs=1e-4) and len(parts) == built.model.config.d_head
    planted_parts = {str(c): scores.pop(str(c)) for c in CHANNEL}           # what was planted speaks for the answer
    noise = max(abs(score) for name, score in scores.items() if ".C" in name)
    assert min(planted_parts.values()) > 10 * noise
    pattern = stream.patterns[f"L{built.mover.layer}"][:, built.mover.head, some.end]      # all together: the score
    weight = torch.full((12, 6), -1 / 5).scatter(1, some.index[:, None], 1.0)
    total = (pattern.gather(1, some.positions).log() * weight).sum(1).mean().item()        # the normaliser cancels
    assert sum(planted_parts.values()) + sum(scores.values()) == pytest.approx(total, rel=1e-3)
