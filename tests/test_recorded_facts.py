"""What a stream records is a fact: held to a plain implementation, over random small models, each name and `of`."""

import copy
import itertools
import math
import threading

import pytest
import torch
import torch.nn.functional as F

import tinyheads as th
from helpers import random_model, random_tokens

# Layers, heads, d_head, prompts, tokens, and how many of the tokens are in a cache.
SHAPES = [(1, 1, 5, 1, 4, 0), (2, 3, 4, 2, 5, 0), (2, 3, 4, 2, 5, 2), (3, 1, 3, 2, 6, 3), (1, 4, 2, 3, 6, 0)]


def make(shape, seed):
    n_layer, n_head, d_head, B, T, _ = shape
    sizes = dict(n_vocab=17, n_ctx=12, n_embd=n_head * d_head, n_layer=n_layer, n_head=n_head)
    model = random_model(sizes, seed).double()  # float64: a difference is a mistake, not rounding
    return model, random_tokens(model.config, B, T, seed)


def plain(model, tokens, edits=(), past=0):
    """GPT-2, one head at a time, every value a node of its own: logits from position `past` on, and all values by (of,
    name). `edits`: (name, change, of). With a cache only the tokens behind `past` are edited and seen, in one pass."""
    seen, (H, K, T) = {}, (model.config.n_head, model.config.d_head, tokens.shape[1])

    def value(of, name, x):
        for edited, change, kind in edits:
            if (kind, edited) == (of, name):
                x = torch.cat([x[..., :past, :], change(x[..., past:, :].clone())], dim=-2)
        seen[of, name] = x
        return x

    def read(name, norm, x):
        if any((kind, edited) == ("stream", name) for edited, _, kind in edits):
            difference = value("stream", name, x) - x
            x = x + value("writes", f"edit before {name}", difference)
        y = (x - x.mean(-1, keepdim=True)) / (x.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
        return x, value("reads", name, y * norm.weight + norm.bias)

    x = value("writes", "embed", model.wte.weight[tokens] + model.wpe.weight[:T])
    for l, block in enumerate(model.h):
        x, read_x = read(f"L{l}.attn", block.ln_1, x)
        qkv = (read_x @ block.attn.c_attn.weight + block.attn.c_attn.bias).view(*tokens.shape, 3, H, K)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)                                       # each [B, H, T, K]
        scores = (q @ k.mT / math.sqrt(K)).masked_fill(torch.ones(T, T).triu(1).bool(), -math.inf)
        pattern = value("patterns", f"L{l}", scores.softmax(-1))
        for h in range(H):
            W_O = block.attn.c_proj.weight[h * K:(h + 1) * K]
            x = x + value("writes", f"L{l}.H{h}", pattern[:, h] @ v[:, h] @ W_O)
        x = x + value("writes", f"L{l}.attn.bias", block.attn.c_proj.bias.expand_as(x).clone())
        x, read_x = read(f"L{l}.mlp", block.ln_2, x)
        hidden = F.gelu(read_x @ block.mlp.c_fc.weight + block.mlp.c_fc.bias, approximate="tanh")
        x = x + value("writes", f"L{l}.mlp", hidden @ block.mlp.c_proj.weight + block.mlp.c_proj.bias)
    x, read_x = read("unembed", model.ln_f, x)
    return (read_x @ model.wte.weight.T)[:, past:], seen


def all_names(config):
    reads = th.read_names(config)
    return [*(("writes", name) for name in th.write_names(config)), *(("reads", name) for name in reads),
            *(("patterns", name) for name in th.pattern_names(config)), *(("stream", name) for name in reads)]


def recorded(stream, of, name):
    return stream.writes[f"edit before {name}"] if of == "stream" else getattr(stream, of)[name]


def close(x, y):
    torch.testing.assert_close(x, y, rtol=1e-8, atol=1e-9)


def all_close(pairs):
    """Every pair at once, for that is several times faster; one by one where it fails, to name what differs."""
    ours, theirs = ([pair[side] for pair in pairs] for side in (0, 1))
    alike = [(x.shape, x.dtype) for x in ours] == [(x.shape, x.dtype) for x in theirs]
    if not (alike and torch.allclose(*(torch.cat([x.flatten() for x in side]) for side in (ours, theirs)),
                                     rtol=1e-8, atol=1e-9)):
        for pair in pairs:
            close(*pair)
        raise AssertionError("the pairs together differ, and none alone")


@pytest.mark.parametrize("shape", SHAPES)
def test_records_parameters_and_gradients_are_those_of_a_plain_implementation(shape):
    """Unedited, and with each value in turn edited out of place, in place, and kept by its edit."""
    (model, tokens), past = make(shape, seed=sum(shape)), shape[-1]
    parameters = copy.deepcopy(model.state_dict())
    for trains, (of, name) in itertools.product((False, True), [(None, None), *all_names(model.config)]):
        model.requires_grad_(trains)
        kept = {}

        def keep(x, into=kept):
            into["x"] = x
            x.retain_grad() if x.requires_grad and not x.is_leaf else x.requires_grad_()
            return x

        def halve_in_place(x):
            x *= 0.5
            return x

        for change, same in [(lambda x: x / 2 + 0.01, None), (halve_in_place, lambda x: x / 2), (keep, lambda x: x)]:
            edits = [th.Edit(name, change, of)] if of else []
            expected_edits = [(name, same or change, of)] if of else []
            if change is keep and not trains:  # a frozen model whose edit makes the value require gradients
                expected_edits = [(name, lambda x: x.detach().requires_grad_(), of)]
            logits, cache, stream = None, None, th.Stream(record=True, edits=edits)
            if past:
                cache = th.Cache()
                model(tokens[:, :past], cache=cache)
            logits = model(tokens[:, past:], stream, cache)
            expected, seen = plain(model, tokens, expected_edits if of else [], past)
            close(logits, expected)
            close(sum(stream.writes.values()), stream.value)
            places = {(kind, key): ("writes", f"edit before {key}") if kind == "stream" else (kind, key)
                      for kind, key in all_names(model.config)}
            nodes = {place: seen[where] for place, where in places.items() if where in seen}
            all_close([(recorded(stream, *place), value[..., past:, :]) for place, value in nodes.items()])
            if expected.requires_grad:
                assert logits.requires_grad
                weights = torch.randn(logits.shape, generator=torch.Generator().manual_seed(1)).double()
                theirs = {place: value for place, value in nodes.items() if value.requires_grad}
                ours = {place: recorded(stream, *place) for place in theirs}
                assert all(value.requires_grad for value in ours.values()), (of, name)
                wanted = torch.autograd.grad((expected * weights).sum(), list(theirs.values()), retain_graph=True,
                                             allow_unused=True)
                got = torch.autograd.grad((logits * weights).sum(), list(ours.values()), retain_graph=True,
                                          allow_unused=True)
                for place, g, w in zip(theirs, got, wanted):
                    assert (g is None) == (w is None), (of, name, place)
                all_close([(g, w[..., past:, :]) for g, w in zip(got, wanted) if g is not None])
                if change is keep and of:
                    kept["x"].grad = None  # retain_grad has gathered what torch.autograd.grad passed through
                    (logits * weights).sum().backward()
                    close(kept["x"].grad, dict(zip(theirs, wanted))[of, name][..., past:, :])
                    assert kept["x"].grad.abs().max() > 0
            else:
                assert not logits.requires_grad
            if not of:
                break
        model.zero_grad()
    assert all(torch.equal(value, parameters[key]) for key, value in model.state_dict().items())


# --- what was recorded does not change, and changes nothing ----------------------------------------------


@pytest.fixture
def run():
    """A model, tokens, and the recorded stream of one run."""
    model = random_model(dict(n_vocab=50, n_ctx=16, n_embd=24, n_layer=2, n_head=3))
    tokens, stream = random_tokens(model.config, B=1), th.Stream(record=True)
    model(tokens, stream)
    return model, tokens, stream


def snapshot(stream):
    return {(of, name): value.clone() for of in ("writes", "reads", "patterns")
            for name, value in getattr(stream, of).items()}


def assert_unchanged(stream, before):
    assert all(torch.equal(getattr(stream, of)[name], value) for (of, name), value in before.items())


def test_changing_what_a_stream_hands_out_changes_neither_the_model_nor_any_record(run):
    model, tokens, stream = run
    before, logits, parameters = snapshot(stream), model(tokens), copy.deepcopy(model.state_dict())
    for of, name in before:
        getattr(stream, of)[name][..., -1, :] = 7.0
        assert_unchanged(stream, before)
    stream.value[:] = 7.0
    assert_unchanged(stream, before)
    assert all(torch.equal(value, parameters[key]) for key, value in model.state_dict().items())
    assert torch.equal(model(tokens), logits)


def in_inference_mode(weight):
    with torch.inference_mode():
        weight.zero_()


def by_an_optimiser(weight):
    weight.requires_grad_().grad = torch.ones_like(weight)
    torch.optim.SGD([weight], lr=1.0).step()


@pytest.mark.parametrize("change", [lambda weight: weight.data.zero_(), lambda weight: weight.numpy().fill(0),
                                    in_inference_mode, by_an_optimiser], ids=["data", "numpy", "inference", "sgd"])
def test_nothing_done_to_the_weights_afterwards_changes_what_was_recorded(run, change):
    model, tokens, stream = run
    before = snapshot(stream)
    for parameter in model.parameters():
        change(parameter)
    assert_unchanged(stream, before)


def test_a_record_is_tied_neither_to_the_stream_it_was_patched_from_nor_to_what_an_edit_keeps(run):
    model, tokens, clean = run
    seen, source = [], torch.ones(1, 16, 24)
    patched = th.Stream(record=True, edits=[
        th.Edit("embed", lambda _: clean.writes["embed"]), th.Edit("L0.H1", lambda x: seen.append(x) or x),
        th.Edit("L1.mlp", lambda _: model.wpe.weight[None]), th.Edit("L1.attn", lambda _: source, "stream")])
    model(tokens, patched)
    before = [snapshot(clean), snapshot(patched)]
    for value in (seen[0], source, clean.writes["embed"], patched.writes["L1.mlp"], patched.value):
        value += 1
    assert_unchanged(clean, before[0])
    assert_unchanged(patched, before[1])
    assert torch.equal(model.wpe.weight.expand(1, -1, -1), before[1]["writes", "L1.mlp"])


def test_what_was_recorded_under_autocast_is_read_alike_everywhere(run):
    model, tokens, _ = run
    stream = th.Stream(record=True, edits=[th.Edit("L1.H0", lambda x: 2 * x)])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model(tokens, stream)
        inside = snapshot(stream)
    assert_unchanged(stream, inside)
    assert stream.writes["L0.H2"].dtype == stream.writes["L0.attn.bias"].dtype == torch.bfloat16
    torch.testing.assert_close(sum(stream.writes.values()), stream.value, rtol=3e-2, atol=3e-2)
    outside = th.Stream(record=True)
    model(tokens, outside)
    before = snapshot(outside)
    with torch.autocast("cpu", dtype=torch.bfloat16):  # a float32 record stays one
        assert_unchanged(outside, before)


# --- after an error all is as it was ---------------------------------------------------------------------


def interrupt(x):
    raise KeyboardInterrupt


@pytest.mark.parametrize("change, error", [(lambda x: x[..., :1], th.StreamError), (interrupt, KeyboardInterrupt)])
def test_a_run_that_fails_leaves_cache_and_stream_as_they_were(run, change, error):
    model, tokens, _ = run
    cache, stream, switched_on = th.Cache(), th.Stream(record=True), []
    stream.edits = [th.Edit("L1.attn", lambda x: change(x) if switched_on else x, "reads")]
    model(tokens[:, :9], stream, cache)
    before, kept, value = snapshot(stream), dict(cache.kept), stream.value.clone()
    switched_on.append(True)
    with pytest.raises(error):
        model(tokens[:, 9:], stream, cache)
    assert cache.length == 9 and all(cache.kept[layer] is pair for layer, pair in kept.items()) and len(kept) == 2
    assert_unchanged(stream, before)
    assert torch.equal(stream.value, value)
    switched_on.clear()
    torch.testing.assert_close(model(tokens[:, 9:], stream, cache), model(tokens)[:, 9:], rtol=1e-4, atol=1e-4)


def test_a_stream_in_two_runs_at_once_is_refused_by_name_and_fit_for_use_afterwards(run):
    model, tokens, _ = run
    entered, go_on, errors = threading.Event(), threading.Event(), []
    stream = th.Stream(record=True)

    def wait(x):
        entered.set()
        go_on.wait(10)
        return x

    stream.edits = [th.Edit("L0.mlp", wait)]
    other = threading.Thread(target=lambda: model(tokens, stream))
    other.start()
    entered.wait(10)
    with pytest.raises(th.StreamError, match="in use"):
        model(tokens, stream)
    go_on.set()
    other.join()
    torch.testing.assert_close(sum(stream.writes.values()), stream.value, rtol=1e-5, atol=1e-5)
    stream.edits = [th.Edit("L0.mlp", lambda x: model(tokens, stream) and x)]
    with pytest.raises(th.StreamError, match="in use"):
        model(tokens, stream)
    stream.edits = []
    model(tokens, stream)
