"""Pythia's forward pass, stream, cache and attention scores: held to transformers' logits, and to its formulas."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import tinyheads as th
from helpers import random_tokens
from tinyheads.attention import queries_and_keys
from tinyheads.pythia import rotate
from tinyheads.stream import read_behind_heads

NAMES = ["wide", "deep", "tied", "wide_bf16_shards", "wide_f16"]


@pytest.fixture(scope="module")
def theirs(golden):
    """transformers' numbers: see golden/make_pythia.py."""
    return dict(np.load(golden / "pythia.npz"))


def loaded(golden, name="deep"):
    return th.load(golden / "pythia" / name)


# --- against transformers ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_logits_are_those_of_transformers(golden, theirs, name):
    model, tokens = loaded(golden, name), torch.tensor(theirs[f"{name}.tokens"])
    assert isinstance(model, th.Pythia)
    np.testing.assert_allclose(model(tokens).numpy(), theirs[f"{name}.logits"], atol=1e-4, rtol=0)
    stream = th.Stream(record=True)                                     # with patterns made explicitly
    np.testing.assert_allclose(model(tokens, stream).numpy(), theirs[f"{name}.logits"], atol=1e-4, rtol=0)
    first = sum(write for write_name, write in stream.writes.items() if not write_name.startswith(("L1", "L2", "L3")))
    if model.config.n_layer > 1:                    # transformers gives the last layer's behind the final LayerNorm
        np.testing.assert_allclose(first.numpy(), theirs[f"{name}.hidden_1"], atol=1e-4, rtol=0)


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_greedy_generation_is_that_of_transformers_with_and_without_the_cache(golden, theirs, name, use_cache):
    model, tokens = loaded(golden, name), torch.tensor(theirs[f"{name}.tokens"])
    ids = model.generate(tokens[:1, :4], model.config.n_ctx - 4, temperature=0, use_cache=use_cache)
    np.testing.assert_array_equal(ids.numpy(), theirs[f"{name}.greedy"])


def test_the_cache_in_steps_of_any_length_gives_the_logits_of_one_pass(golden, theirs):
    model, tokens = loaded(golden), torch.tensor(theirs["deep.tokens"])
    cache = th.Cache()
    pieces = [model(piece, cache=cache) for piece in tokens.split([5, 1, 19, 7], dim=1)]
    np.testing.assert_allclose(torch.cat(pieces, dim=1).numpy(), theirs["deep.logits"], atol=1e-4, rtol=0)


# --- the rotation -------------------------------------------------------------------------------------


def test_the_rotation_is_that_of_an_independent_implementation(gpt2_folder):
    """shared/README.md: R(t) of a head of the real Pythia-160m at t = 0 to 7, for column vectors."""
    file = gpt2_folder.parent / "peers" / "pythia_rotation_matrices.npy"
    if not file.exists():
        pytest.skip(f"{file} is not here")
    R = torch.from_numpy(np.load(file))                                                     # [8, 64, 64]
    ours = rotate(torch.eye(64)[:, None].expand(-1, 8, -1), torch.arange(8), th.PYTHIA_SIZES["pythia-160m"])
    torch.testing.assert_close(ours.permute(1, 2, 0), R, rtol=0, atol=1e-6)


def test_the_rotation_turns_each_pair_by_its_own_speed_and_leaves_the_rest():
    config = th.PythiaConfig(n_embd=32, n_layer=1, n_head=2, rotary_pct=0.25, rotary_base=100.0)      # K = 16, r = 4
    x = torch.randn(3, 7, 16, generator=torch.Generator().manual_seed(0)).double()
    turned = rotate(x, torch.arange(7), config)
    for t in range(7):
        for pair, speed in ((0, 1.0), (1, 0.1)):
            z = torch.complex(x[:, t, pair], x[:, t, pair + 2]) * np.exp(1j * speed * t)
            torch.testing.assert_close(torch.complex(turned[:, t, pair], turned[:, t, pair + 2]), z)
    assert torch.equal(turned[..., 4:], x[..., 4:])
    torch.testing.assert_close(rotate(rotate(x, 5, config), -5, config), x)
    assert rotate(x, 5, th.GPT2Config()) is x


def test_a_prompt_behind_others_has_the_same_scores_for_only_distance_counts(golden):
    """One-layer attention scores of the same tokens 9 places later: the same numbers."""
    model = loaded(golden)
    tokens = random_tokens(model.config, B=1, T=20)
    stream, later = th.Stream(record=True), th.Stream(record=True)
    model(tokens[:, :11], stream)
    model(torch.cat([tokens[:, 11:], tokens[:, :11]], dim=1), later)
    for head in (th.Head(0, 0), th.Head(0, 1)):
        (q, k), (q_later, k_later) = queries_and_keys(model, stream, head), queries_and_keys(model, later, head)
        torch.testing.assert_close(q @ k.mT, (q_later @ k_later.mT)[:, 9:, 9:], rtol=1e-4, atol=1e-4)


# --- the stream ---------------------------------------------------------------------------------------


def test_writes_sum_to_the_stream_and_both_reads_of_a_layer_are_of_the_same_sum(golden):
    model = loaded(golden)
    stream = th.Stream(record=True)
    logits = model(random_tokens(model.config), stream)
    torch.testing.assert_close(sum(stream.writes.values()), stream.value)
    running = stream.writes["embed"]
    for layer, block in enumerate(model.h):
        for part, norm in (("attn", block.ln_1), ("mlp", block.ln_2)):
            wanted = F.layer_norm(running, (16,), norm.weight, norm.bias)
            torch.testing.assert_close(stream.reads[f"L{layer}.{part}"], wanted, rtol=1e-4, atol=1e-5)
        running = running + sum(stream.writes[name] for name in stream.writes if name.startswith(f"L{layer}."))
    torch.testing.assert_close(stream.reads["unembed"] @ model.lm_head.weight.T, logits)
    assert th.write_names(model.config) == list(stream.writes) and th.read_names(model.config) == list(stream.reads)


def test_an_edit_before_a_layers_mlp_reaches_it_and_what_follows_but_not_its_attention(golden):
    model = loaded(golden)
    tokens = random_tokens(model.config)
    plain, edited = th.Stream(record=True), th.Stream(record=True, edits=[("L1.mlp", lambda x: 2 * x, "stream")])
    model(tokens, plain), model(tokens, edited)
    assert torch.equal(plain.patterns["L1"], edited.patterns["L1"])
    assert torch.equal(plain.writes["L1.H0"], edited.writes["L1.H0"])
    assert not torch.allclose(plain.reads["L2.attn"], edited.reads["L2.attn"], atol=1e-2)
    torch.testing.assert_close(sum(edited.writes.values()), edited.value)


def test_the_read_behind_a_layers_heads_is_the_first_that_a_change_of_their_write_reaches(golden):
    for folder in (golden / "deep", golden / "pythia" / "deep"):
        model = th.load(folder)
        tokens = random_tokens(model.config)
        plain = th.Stream(record=True)
        model(tokens, plain)
        for layer in range(4):
            edited = th.Stream(record=True, edits=[(f"L{layer}.H1", torch.zeros_like)])
            model(tokens, edited)
            changed = [name for name in plain.reads if not torch.equal(plain.reads[name], edited.reads[name])]
            assert changed[0] == read_behind_heads(model.config, layer)


@pytest.mark.parametrize("side", ["query", "key"])
@pytest.mark.parametrize("edited", [None, "L1.mlp", "L2.attn", "L2.mlp"])
def test_the_parts_of_an_attention_score_sum_to_it(golden, side, edited):
    model = loaded(golden)
    stream = th.Stream(record=True, edits=[(edited, lambda x: 2 * x, "stream")] if edited else [])
    model(random_tokens(model.config), stream)
    query, key = torch.tensor([20, 31]), torch.tensor([3, 30])
    parts = th.attention_attribution(model, stream, "L2.H1", query, key, side, th.ov_svd(th.Heads.of(model)))
    pattern = stream.patterns["L2"][:, 1]                                                   # [B, T, T]
    other = th.attention_attribution(model, stream, "L2.H1", query, 0, side)
    ratio = torch.stack([pattern[b, q, k] / pattern[b, q, 0] for b, (q, k) in enumerate(zip(query, key))])
    torch.testing.assert_close(sum(parts.values()) - sum(other.values()), ratio.log(), rtol=1e-3, atol=1e-4)
    assert [name for name in parts if "edit" in name] == (
        [f"edit before {edited}"] if edited in ("L1.mlp", "L2.attn") else [])


def test_the_logit_is_the_sum_of_its_parts_by_the_models_own_unembedding(golden):
    model = loaded(golden)
    tokens, stream = random_tokens(model.config), th.Stream(record=True)
    logits = model(tokens, stream)
    parts = th.logit_attribution(model, stream, 7)
    torch.testing.assert_close(sum(parts.values()), logits[..., 7], rtol=1e-4, atol=1e-4)


def test_a_new_model_follows_its_seed_and_the_global_generator_does_not_move():
    before = torch.random.get_rng_state()
    first, again = (th.Pythia(th.PythiaConfig(50, 8, 16, 2, 2), seed=3) for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters()))
    shapes = {name: tuple(x.shape) for name, x in first.named_parameters()}
    assert shapes == first.config.tensor_shapes() and "wpe.weight" not in shapes
