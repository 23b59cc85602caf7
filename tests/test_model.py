"""GPT-2's forward pass and generation, held to transformers' own logits, and its bad inputs."""

import numpy as np
import pytest
import torch

import tinyheads as th

SHAPES = ["wide", "deep", "one"]


@pytest.mark.parametrize("shape", SHAPES)
def test_logits_are_those_of_transformers(golden, expected, shape):
    logits = th.load(golden / shape)(torch.tensor(expected[f"{shape}.tokens"]))
    np.testing.assert_allclose(logits.numpy(), expected[f"{shape}.logits"], atol=1e-4, rtol=0)


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_greedy_generation_is_that_of_transformers_with_and_without_the_cache(golden, expected, shape, use_cache):
    model, tokens = th.load(golden / shape), torch.tensor(expected[f"{shape}.tokens"])
    ids = model.generate(tokens[:1, :4], model.config.n_ctx - 4, temperature=0, use_cache=use_cache)
    np.testing.assert_array_equal(ids.numpy(), expected[f"{shape}.greedy"])


def test_the_cache_in_steps_of_any_length_gives_the_logits_of_one_pass(golden, expected):
    model, tokens = th.load(golden / "deep"), torch.tensor(expected["deep.tokens"])
    cache, pieces = th.Cache(), []
    for piece in tokens.split([5, 1, 7, 3], dim=1):
        pieces.append(model(piece, cache=cache))
    np.testing.assert_allclose(torch.cat(pieces, dim=1).numpy(), expected["deep.logits"], atol=1e-4, rtol=0)
    cache = th.Cache()
    first = model(tokens[:, :9], cache=cache)
    stream = th.Stream(record=True)  # with patterns made explicitly
    second = model(tokens[:, 9:], stream, cache)
    np.testing.assert_allclose(torch.cat([first, second], dim=1).numpy(), expected["deep.logits"], atol=1e-4, rtol=0)
    assert stream.patterns["L3"].shape == (2, 4, 7, 16)


def test_a_later_token_changes_no_earlier_logit(golden):
    model = th.load(golden / "wide")
    tokens = torch.arange(20)[None]
    changed = tokens.clone()
    changed[0, 12] = 40
    before, after = model(tokens), model(changed)
    torch.testing.assert_close(before[:, :12], after[:, :12])
    assert (before[:, 12:] - after[:, 12:]).abs().amin(0).max() > 1e-3


def test_sampling_follows_the_models_distribution(golden):
    """4,000 draws against softmax(logits / temperature): chi-square over the tokens expected 5 times or more."""
    model, prompt, temperature = th.load(golden / "one"), [3, 1, 4, 1], 2.0
    p = (model(torch.tensor([prompt]))[0, -1] / temperature).softmax(-1)
    batch = torch.tensor([prompt] * 4000)
    drawn = model.generate(batch, 1, temperature=temperature, seed=5)[:, -1]
    counts, expected_counts = torch.bincount(drawn, minlength=33).float(), 4000 * p
    often = expected_counts >= 5
    chi2 = ((counts - expected_counts)[often] ** 2 / expected_counts[often]).sum().item()
    n = int(often.sum()) - 1
    assert chi2 < n + 5 * (2 * n) ** 0.5  # five standard deviations of a chi-square above its mean


def test_top_k_draws_only_from_the_k_likeliest(golden):
    model, prompt = th.load(golden / "one"), [3, 1, 4, 1]
    likeliest = set(model(torch.tensor([prompt]))[0, -1].topk(3).indices.tolist())
    drawn = set(model.generate(torch.tensor([prompt] * 500), 1, temperature=5.0, top_k=3)[:, -1].tolist())
    assert drawn == likeliest
    assert model.generate(prompt, 5, top_k=1) == model.generate(prompt, 5, temperature=0)
    assert len(model.generate(prompt, 2, top_k=1000)) == 6  # more than there are: all


def test_generation_depends_on_its_seed_alone(golden):
    model = th.load(golden / "wide")
    torch.manual_seed(1)
    one = model.generate([1, 2], 15, seed=3)
    state = torch.get_rng_state()
    two = model.generate([1, 2], 15, seed=3)
    assert one == two and one[:2] == [1, 2] and len(one) == 17
    assert torch.equal(state, torch.get_rng_state())
    assert one != model.generate([1, 2], 15, seed=4)
    assert model.generate([1, 2], 0) == [1, 2]


def test_a_new_model_is_gpt2s_initialisation_and_depends_on_its_seed_alone():
    config = th.GPT2Config(n_vocab=200, n_ctx=50, n_embd=64, n_layer=8, n_head=4)
    state = torch.get_rng_state()
    model, same, other = th.GPT2(config, seed=1), th.GPT2(config, seed=1), th.GPT2(config, seed=2)
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(model.wte.weight, same.wte.weight) and not torch.equal(model.wte.weight, other.wte.weight)
    assert model.wte.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert model.h[3].mlp.c_proj.weight.std().item() == pytest.approx(0.02 / 4, rel=0.05)  # 0.02 / sqrt(2 * 8)
    assert (model.h[0].ln_1.weight == 1).all() and (model.h[0].attn.c_attn.bias == 0).all()


def test_the_model_trains():
    """Gradients reach every parameter, and a few steps fit one sentence."""
    model = th.GPT2(th.GPT2Config(n_vocab=11, n_ctx=8, n_embd=16, n_layer=2, n_head=2), seed=0)
    tokens = torch.tensor([[1, 5, 2, 9, 3, 0, 7, 4]])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(60):
        loss = torch.nn.functional.cross_entropy(model(tokens)[0, :-1], tokens[0, 1:])
        optimizer.zero_grad()
        loss.backward()
        assert all(parameter.grad is not None for parameter in model.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > 2 and losses[-1] < 0.1


@pytest.mark.parametrize("tokens, words", [
    (torch.tensor([[0, 61]]), "token id 61 is outside the vocabulary, 0 to 60"),
    (torch.tensor([[-1, 3]]), "token id -1"),
    (torch.tensor([[0.5]]), "whole numbers"),
    (torch.tensor([[True]]), "whole numbers"),
    (torch.tensor([1, 2, 3]), r"\[B, T\].*\[3\]"),
    (torch.zeros(1, 0, dtype=torch.int64), "at least one token"),
    (torch.zeros(0, 4, dtype=torch.int64), "at least one token"),
    (torch.zeros(1, 25, dtype=torch.int64), "25 tokens.*n_ctx=24"),
    ("some text", "whole numbers"),
    ([["a"]], "whole numbers"),
    ([[1], [2, 3]], "whole numbers")])
def test_bad_tokens_are_refused(golden, tokens, words):
    with pytest.raises(th.InputError, match=words):
        th.load(golden / "wide")(tokens)


@pytest.mark.parametrize("arguments, words", [
    (dict(n_new=23), "n_ctx=24"), (dict(n_new=-1), "n_new=-1"), (dict(n_new=1.5), "n_new=1.5"),
    (dict(n_new=1, temperature=-1.0), "temperature"), (dict(n_new=1, temperature=float("nan")), "temperature"),
    (dict(n_new=1, top_k=0), "top_k"), (dict(n_new=1, ids=[]), "at least one token")])
def test_bad_settings_of_generate_are_refused(golden, arguments, words):
    with pytest.raises(th.InputError, match=words):
        th.load(golden / "wide").generate(**{"ids": [1, 2], **arguments})


def test_a_loaded_model_is_frozen_until_asked(golden):
    model = th.load(golden / "wide")
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert model(torch.tensor([[1, 2]])).numpy().shape == (1, 2, 61)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
def test_cuda_gives_the_logits_of_the_cpu(golden, expected):
    model = th.load(golden / "wide", device="cuda")
    stream = th.Stream(record=True)
    logits = model(torch.tensor(expected["wide.tokens"]), stream)
    np.testing.assert_allclose(logits.cpu().numpy(), expected["wide.logits"], atol=1e-4, rtol=0)
    torch.testing.assert_close(sum(stream.writes.values()), stream.value, rtol=1e-4, atol=1e-4)
    assert model.generate([1, 2], 10, temperature=0) == model.generate([1, 2], 10, temperature=0, use_cache=False)
    assert len(model.generate([1, 2], 10, seed=1)) == 12
