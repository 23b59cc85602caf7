"""The residual stream: its invariants, its names, and what edits do."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import tinyheads as th
from helpers import random_model, random_tokens

SIZES = [dict(n_vocab=50, n_ctx=16, n_embd=24, n_layer=2, n_head=3),
         dict(n_vocab=30, n_ctx=9, n_embd=16, n_layer=3, n_head=1),
         dict(n_vocab=20, n_ctx=5, n_embd=8, n_layer=1, n_head=8)]


@pytest.fixture(params=SIZES, ids=["3 heads", "1 head", "1 layer"])
def run(request):
    """A model, tokens, and the recorded stream of one run."""
    model = random_model(request.param)
    tokens = random_tokens(model.config)
    stream = th.Stream(record=True)
    logits = model(tokens, stream)
    return model, tokens, stream, logits


def test_the_writes_sum_to_the_stream(run):
    model, tokens, stream, _ = run
    torch.testing.assert_close(sum(stream.writes.values()), stream.value, rtol=1e-5, atol=1e-5)
    assert list(stream.writes) == th.write_names(model.config)
    assert all(write.shape == stream.value.shape for write in stream.writes.values())


def test_each_read_is_the_layernorm_of_the_writes_before_it(run):
    model, tokens, stream, _ = run
    D = model.config.n_embd
    norms = {"unembed": model.ln_f}
    for layer, block in enumerate(model.h):
        norms.update({f"L{layer}.attn": block.ln_1, f"L{layer}.mlp": block.ln_2})
    assert list(stream.reads) == th.read_names(model.config) and set(norms) == set(stream.reads)
    names = th.write_names(model.config)
    for read, norm in norms.items():
        layer = int(read[1:].split(".")[0]) if read != "unembed" else None
        stop = {"unembed": len(names)}.get(read) or names.index(
            f"L{layer}.H0" if read.endswith("attn") else f"L{layer}.mlp")
        running = sum(stream.writes[name] for name in names[:stop])
        expected = F.layer_norm(running, (D,), norm.weight, norm.bias, 1e-5)
        torch.testing.assert_close(stream.reads[read], expected, rtol=1e-4, atol=1e-4)


def test_recording_changes_no_logit_and_patterns_are_causal_distributions(run):
    model, tokens, stream, logits = run
    torch.testing.assert_close(model(tokens), logits, rtol=1e-5, atol=1e-5)
    T = tokens.shape[1]
    for name in th.pattern_names(model.config):
        pattern = stream.patterns[name]
        assert pattern.shape == (2, model.config.n_head, T, T)
        torch.testing.assert_close(pattern.sum(-1), torch.ones(2, model.config.n_head, T))
        assert pattern.triu(1).abs().max() == 0


def test_a_heads_write_is_its_pattern_times_its_ov_circuit(run):
    """L0.H0 from the pattern, the read and the weights, one matrix at a time."""
    model, tokens, stream, _ = run
    D, K = model.config.n_embd, model.config.d_head
    W_V = model.h[0].attn.c_attn.weight[:, 2 * D:2 * D + K]
    b_V = model.h[0].attn.c_attn.bias[2 * D:2 * D + K]
    W_O = model.h[0].attn.c_proj.weight[:K]
    expected = stream.patterns["L0"][:, 0] @ (stream.reads["L0.attn"] @ W_V + b_V) @ W_O
    torch.testing.assert_close(stream.writes["L0.H0"], expected, rtol=1e-4, atol=1e-5)


def test_the_stream_after_a_layer_is_transformers_hidden_state(golden, expected):
    model = th.load(golden / "wide")
    stream = th.Stream(record=True)
    model(torch.tensor(expected["wide.tokens"]), stream)
    names = th.write_names(model.config)
    after_layer_0 = sum(stream.writes[name] for name in names[:names.index("L0.mlp") + 1])
    np.testing.assert_allclose(after_layer_0.numpy(), expected["wide.hidden_1"], atol=1e-5)


def test_direct_logit_attribution_sums_to_the_logit(run):
    model, tokens, stream, logits = run
    parts = th.logit_attribution(model, stream, 7)
    assert list(parts) == [*th.write_names(model.config), "ln_f.bias"]
    torch.testing.assert_close(sum(parts.values()), logits[..., 7], rtol=1e-5, atol=1e-5)
    each = th.logit_attribution(model, stream, tokens)  # another token at every position
    torch.testing.assert_close(sum(each.values()), logits.gather(-1, tokens[..., None])[..., 0], rtol=1e-5, atol=1e-5)


def test_attribution_of_a_write_is_how_the_logit_grows_with_it_at_frozen_scale(run):
    """The derivative of the logit by a factor on one write, LayerNorm's scale held fixed."""
    model, tokens, stream, _ = run
    parts = th.logit_attribution(model, stream, 3)
    write = stream.writes["L0.mlp"].double()
    x = stream.value.double()
    std = (x.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
    logit = lambda value: (((value - value.mean(-1, keepdim=True)) / std * model.ln_f.weight + model.ln_f.bias)
                           @ model.wte.weight[3].double())
    growth = logit(x + write) - logit(x)
    torch.testing.assert_close(parts["L0.mlp"].double(), growth, rtol=1e-4, atol=1e-4)


# --- edits -----------------------------------------------------------------------------------


def test_zeroing_a_heads_write_equals_zeroing_its_output_weights(run):
    model, tokens, stream, logits = run
    name, K = f"L0.H{model.config.n_head - 1}", model.config.d_head
    edited_stream = th.Stream(record=True, edits=[th.Edit(name, torch.zeros_like)])
    edited = model(tokens, edited_stream)
    assert edited_stream.writes[name].abs().max() == 0
    torch.testing.assert_close(sum(edited_stream.writes.values()), edited_stream.value, rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        model.h[0].attn.c_proj.weight[-K:] = 0
    torch.testing.assert_close(edited, model(tokens), rtol=1e-4, atol=1e-4)
    assert (edited - logits).abs().max() > 1e-2


@pytest.mark.parametrize("name", ["embed", "L0.attn.bias", "L0.mlp", "L1.H2"])
def test_every_write_can_be_moved_and_the_record_shows_the_new_value(name):
    model = random_model(SIZES[0])
    tokens = random_tokens(model.config)
    plain, edited = th.Stream(record=True), th.Stream(record=True, edits=[(name, lambda x: x + 1.5)])
    model(tokens, plain)
    model(tokens, edited)
    torch.testing.assert_close(edited.writes[name], plain.writes[name] + 1.5)
    torch.testing.assert_close(sum(edited.writes.values()), edited.value, rtol=1e-5, atol=1e-5)
    # A constant on every axis is what LayerNorm takes out: moving any write by it changes no read.
    torch.testing.assert_close(edited.reads["unembed"], plain.reads["unembed"], rtol=1e-4, atol=1e-4)


def test_replacing_embed_by_another_prompts_runs_that_prompt():
    model = random_model(SIZES[0])
    one, two = random_tokens(model.config, seed=1), random_tokens(model.config, seed=2)
    stream = th.Stream(record=True)
    logits_two = model(two, stream)
    patched = model(one, th.Stream(edits=[th.Edit("embed", lambda _: stream.writes["embed"])]))
    torch.testing.assert_close(patched, logits_two)


def test_an_edited_read_reaches_its_sublayer_alone():
    model = random_model(SIZES[0])
    tokens = random_tokens(model.config)
    plain, edited = th.Stream(record=True), th.Stream(record=True,
                                                      edits=[th.Edit("L1.mlp", torch.zeros_like, of="reads")])
    model(tokens, plain)
    model(tokens, edited)
    assert edited.reads["L1.mlp"].abs().max() == 0
    torch.testing.assert_close(edited.reads["L1.attn"], plain.reads["L1.attn"])
    mlp = model.h[1].mlp
    nothing_in = F.gelu(mlp.c_fc.bias, approximate="tanh") @ mlp.c_proj.weight + mlp.c_proj.bias
    torch.testing.assert_close(edited.writes["L1.mlp"], nothing_in.expand_as(edited.value), rtol=1e-5, atol=1e-5)


def test_an_edited_pattern_moves_what_the_head_moves():
    """A head made to attend to itself alone writes what its OV circuit makes of its own position."""
    model = random_model(SIZES[0])
    tokens = random_tokens(model.config)
    T, D, K = tokens.shape[1], model.config.n_embd, model.config.d_head

    def to_self(pattern):
        pattern = pattern.clone()
        pattern[:, 1] = torch.eye(T)
        return pattern

    stream = th.Stream(record=True, edits=[th.Edit("L0", to_self, of="patterns")])
    model(tokens, stream)
    attention = model.h[0].attn
    v = (stream.reads["L0.attn"] @ attention.c_attn.weight + attention.c_attn.bias)[..., 2 * D + K:2 * D + 2 * K]
    torch.testing.assert_close(stream.writes["L0.H1"], v @ attention.c_proj.weight[K:2 * K], rtol=1e-4, atol=1e-5)
    unrecorded = model(tokens, th.Stream(edits=[th.Edit("L0", to_self, of="patterns")]))
    torch.testing.assert_close(unrecorded, model(tokens, stream))


def test_an_edit_of_the_stream_itself_is_one_more_write_and_all_later_reads_see_it():
    model = random_model(SIZES[0])
    tokens = random_tokens(model.config)
    push = torch.randn(24, generator=torch.Generator().manual_seed(4))
    plain = th.Stream(record=True)
    stream = th.Stream(record=True, edits=[th.Edit("L1.attn", lambda value: value + push, of="stream")])
    model(tokens, plain)
    logits = model(tokens, stream)
    torch.testing.assert_close(stream.writes["edit before L1.attn"], push.expand_as(stream.value), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(sum(stream.writes.values()), stream.value, rtol=1e-5, atol=1e-5)
    before = sum(plain.writes[name] for name in list(plain.writes)[:list(plain.writes).index("L1.H0")])
    torch.testing.assert_close(stream.reads["L1.attn"], model.h[1].ln_1(before + push), rtol=1e-4, atol=1e-4)
    # Pushing the last write before it does the same.
    other = model(tokens, th.Stream(edits=[("L0.mlp", lambda write: write + push)]))
    torch.testing.assert_close(other, logits, rtol=1e-4, atol=1e-4)


def test_edits_of_one_name_apply_in_order():
    model = random_model(SIZES[2])
    tokens = random_tokens(model.config)
    stream = th.Stream(record=True, edits=[("L0.mlp", torch.zeros_like), ("L0.mlp", lambda x: x + 2)])
    model(tokens, stream)
    assert (stream.writes["L0.mlp"] == 2).all()


# --- errors ------------------------------------------------------------------------------------


@pytest.mark.parametrize("edit, words", [
    (("L0.H3", torch.zeros_like), "L0.H2"), (("L9.mlp", torch.zeros_like), "L1.mlp"),
    (("L0.attn", torch.zeros_like), "L0.attn.bias"), (("L0.H0", torch.zeros_like, "reads"), "L0.attn"),
    (("L2", torch.zeros_like, "patterns"), "L1"), (("L0.H0", torch.zeros_like, "stream"), "L0.attn")])
def test_an_edit_of_a_name_the_model_lacks_is_refused_with_the_nearest(edit, words):
    model = random_model(SIZES[0])
    with pytest.raises(th.StreamError, match=words):
        model(random_tokens(model.config), th.Stream(edits=[edit]))


def test_an_edit_must_return_the_same_shape():
    model = random_model(SIZES[0])
    with pytest.raises(th.StreamError, match=r"'L0.mlp'.*\[2, 16, 24\].*\[2, 16\]"):
        model(random_tokens(model.config), th.Stream(edits=[("L0.mlp", lambda x: x[..., 0])]))
    with pytest.raises(th.StreamError, match="NoneType"):
        model(random_tokens(model.config), th.Stream(edits=[("L0.H1", lambda x: None)]))


def test_edits_of_an_unknown_kind_or_that_are_no_function_are_refused():
    with pytest.raises(th.StreamError, match="writes"):
        th.Stream(edits=[th.Edit("L0.H0", torch.zeros_like, of="heads")])
    with pytest.raises(th.StreamError, match="function"):
        th.Stream(edits=[("L0.H0", 0.0)])


def test_looking_up_an_unknown_or_unrecorded_name_says_what_there_is(run):
    model, tokens, stream, _ = run
    with pytest.raises(th.StreamError, match="nearest valid: L0.H"):
        stream.writes["L0.H99"]
    with pytest.raises(th.StreamError, match="L0.mlp"):
        stream.reads["L0.mpl"]
    unrecorded = th.Stream()
    model(tokens, unrecorded)
    with pytest.raises(th.StreamError, match="record=True"):
        unrecorded.writes["embed"]
    with pytest.raises(th.StreamError, match="record=True"):
        th.logit_attribution(model, unrecorded, 0)


def test_attribution_of_a_token_outside_the_vocabulary_is_refused(run):
    model, _, stream, _ = run
    with pytest.raises(th.InputError, match="ids from 0"):
        th.logit_attribution(model, stream, model.config.n_vocab)


def test_a_stream_can_be_used_again_and_holds_the_last_run(run):
    model, tokens, stream, logits = run
    other = random_tokens(model.config, seed=9)
    again = model(other, stream)
    torch.testing.assert_close(sum(stream.writes.values()), stream.value, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(again, model(other), rtol=1e-5, atol=1e-5)


def test_recording_works_in_inference_mode_and_with_gradients():
    model = random_model(SIZES[0])
    tokens = random_tokens(model.config)
    with torch.inference_mode():
        stream = th.Stream(record=True)
        model(tokens, stream)
        torch.testing.assert_close(sum(stream.writes.values()), stream.value, rtol=1e-5, atol=1e-5)
    model.requires_grad_(True)
    stream = th.Stream(record=True)
    model(tokens, stream)
    stream.writes["L1.H0"].sum().backward()
    assert model.wte.weight.grad.abs().max() > 0


# --- arguments ---------------------------------------------------------------------------------


@pytest.mark.parametrize("edits, words", [
    (th.Edit("L0.H1", torch.zeros_like), "a list, .*not Edit"), (None, "not NoneType"), ({"L0.H1": abs}, "not dict"),
    (("L0.H1", torch.zeros_like), "an edit is Edit"), ([("L0.H1",)], "an edit is Edit"), ("L0.H1", "not str"),
    ([abs], "an edit is Edit"), (torch.zeros(3), "not Tensor")])
def test_edits_that_are_no_list_of_edits_are_refused(edits, words):
    with pytest.raises(th.StreamError, match=words):
        th.Stream(edits=edits)


def test_a_streams_arguments_have_names_and_the_model_takes_nothing_else_for_a_stream():
    model = random_model(SIZES[0])
    tokens = random_tokens(model.config, B=1)
    edit = th.Edit("L0.H1", torch.zeros_like)
    with pytest.raises(TypeError):
        th.Stream([edit])
    with pytest.raises(th.StreamError, match="edits go into"):
        th.Stream(record=[edit])
    with pytest.raises(th.StreamError, match="second argument is a Stream"):
        model(tokens, [edit])
    with pytest.raises(th.StreamError, match="dtype torch.float32, not torch.float64"):
        model(tokens, th.Stream(edits=[th.Edit("L0.H1", lambda x: x.double())]))
    with pytest.raises(th.InputError, match="this cache holds"):
        cache = th.Cache()
        model(tokens, cache=cache)
        model(tokens.expand(2, -1), cache=cache)
