"""Checks of 1.6 and 1.7, the whole stream and its attribution: the library's own run, and what often goes wrong."""

import torch
from torch import Tensor

import tinyheads as th
from grader.comparing import close, same_shape
from grader.grading import Call, applied
from grader.inputs import random_int

from .layers import draw_models, draw_tokens, norm, weights_of

# --- 1.6 ------------------------------------------------------------------------------------------------


def stream_calls(generator: torch.Generator) -> list[Call]:
    return [Call((draw_tokens(generator, model), weights_of(model), model.config.n_head))
            for model in draw_models(generator)]


def rebuilt(weights: dict[str, Tensor], n_head: int) -> th.GPT2:
    """The library's model of these weights."""
    (V, D), T = weights["wte.weight"].shape, len(weights["wpe.weight"])
    model = th.GPT2(th.GPT2Config(V, T, D, sum(name.endswith("ln_1.weight") for name in weights), n_head), seed=None)
    model.load_state_dict(weights)
    return model.requires_grad_(False)


def stream_of(tokens: Tensor, weights: dict[str, Tensor], n_head: int) -> dict[str, Tensor]:
    """The library's writes."""
    stream = th.Stream(record=True)
    rebuilt(weights, n_head)(tokens, stream)
    return dict(stream.writes.items())


def changed_weights(change):
    """The library's writes with some weights changed: what a mistake amounts to."""
    return lambda tokens, weights, n_head: stream_of(
        tokens, {name: change(name, w) for name, w in weights.items()}, n_head)


def scaled_weights(name_ends: str, factor: float):
    return changed_weights(lambda name, w: factor * w if name.endswith(name_ends) else w)


def parallel(tokens: Tensor, weights: dict[str, Tensor], n_head: int) -> dict[str, Tensor]:
    """The writes where the MLP reads the stream from before its own layer's attention wrote."""
    model, stream = rebuilt(weights, n_head), th.Stream(record=True)
    stream.write("embed", model.wte.weight[tokens] + model.wpe.weight[:tokens.shape[1]])
    for layer, block in enumerate(model.h):
        n = block.ln_2(stream.value)
        block.attn(block.ln_1(stream.value), stream, None)
        stream.write(f"L{layer}.mlp", block.mlp(n))
    return dict(stream.writes.items())


STREAM_MISTAKES = [
    (parallel, "the MLP reads the stream as it was before the layer's attention wrote; it comes after it (part 1)"),
    (changed_weights(lambda name, w: w.roll(-1, 0) if name == "wpe.weight" else w),
     "positions are off by one: the first position has row 0 of wpe"),
    (scaled_weights("wpe.weight", 0.0), "the position's vector (wpe) is missing from embed"),
    (lambda *args: {name: w for name, w in stream_of(*args).items() if not name.endswith("attn.bias")},
     "the attention's output bias is missing: it is a write of its own, L0.attn.bias and so on"),
]


def embed_write(calls: list[Call], outputs) -> None:
    for number, call in enumerate(calls):
        tokens, weights, _ = call.args
        first = outputs[number]["embed"] if isinstance(outputs[number], dict) and "embed" in outputs[number] else None
        wanted = weights["wte.weight"][tokens] + weights["wpe.weight"][:tokens.shape[1]]
        close(first, wanted, what='the result["embed"]')


def names_and_shapes(calls: list[Call], outputs) -> None:
    for number, call in enumerate(calls):
        tokens, weights, n_head = call.args
        config = rebuilt(weights, n_head).config
        answer = outputs[number]
        names = {name: 0 for name in answer} if isinstance(answer, dict) else answer
        close(names, {name: 0 for name in th.stream.write_names(config)})
        for name, write in answer.items():
            same_shape(write, [*tokens.shape, config.n_embd], "batch position d_model", f"the result[{name!r}]")


def layer_0(calls: list[Call], outputs) -> None:
    """The first layer's writes: what the others build on."""
    for number, call in enumerate(calls[:2]):
        wanted = {name: w for name, w in stream_of(*call.args).items() if name == "embed" or name.startswith("L0.")}
        answer = outputs[number]
        if isinstance(answer, dict):
            answer = {name: answer[name] for name in wanted if name in answer}
        first_writes = lambda mistake, args: lambda: {name: w for name, w in mistake(*args).items() if name in wanted}
        wrong = [(first_writes(mistake, call.args), message) for mistake, message in STREAM_MISTAKES]
        close(answer, wanted, mistakes=wrong)


# --- 1.7 ------------------------------------------------------------------------------------------------


def attribution_calls(generator: torch.Generator) -> list[Call]:
    """Writes of three models; the last are the first one's made small, so that the variance is about epsilon."""
    calls = []
    for model in draw_models(generator):
        stream = th.Stream(record=True)
        model(draw_tokens(generator, model), stream)
        last = {name: w for name, w in weights_of(model).items() if name in ("ln_f.weight", "ln_f.bias", "wte.weight")}
        calls.append(Call((dict(stream.writes.items()), last, random_int(generator, 0, model.config.n_vocab - 1))))
    writes, last, token = calls[0].args
    size = torch.stack(list(writes.values())).sum(0).std().item()
    return [*calls, Call(({name: 0.003 / size * write for name, write in writes.items()}, last, token))]


def attribution(writes: dict[str, Tensor], weights: dict[str, Tensor], token: int) -> dict[str, Tensor]:
    """The library's parts."""
    V, D = weights["wte.weight"].shape
    model = th.GPT2(th.GPT2Config(V, 1, D, 1, 1), seed=0).requires_grad_(False)
    model.load_state_dict(weights, strict=False)
    stream = th.Stream(record=True)
    for name, write in writes.items():
        stream.write(name, write)
    stream.last_logits = (stream.read("unembed", model.ln_f) @ model.unembedding.T)[0, -1]      # as a run leaves them
    return th.logit_attribution(model, stream, token)


def logit(writes: dict[str, Tensor], weights: dict[str, Tensor], token: int) -> Tensor:
    x = torch.stack(list(writes.values())).sum(0)                                               # [B, T, D]
    return norm(x, weights["ln_f.weight"], weights["ln_f.bias"]) @ weights["wte.weight"][token]  # [B, T]


def wrong_parts(centre=True, gain=True, scale="stream", bias_in_each=False, eps=1e-5):
    """The parts made wrong in one way."""
    def wrong(writes, weights, token) -> dict[str, Tensor]:
        g, b, u = weights["ln_f.weight"], weights["ln_f.bias"], weights["wte.weight"][token]
        whole, parts, running = torch.stack(list(writes.values())).sum(0), {}, 0
        for name, write in writes.items():
            running = running + write
            by = {"stream": whole, "own": write, "running": running}[scale]
            s = (by.var(-1, correction=0) + eps).sqrt()
            w = write - write.mean(-1, keepdim=True) if centre else write
            parts[name] = (w * g if gain else w) @ u / s + (b @ u if bias_in_each else 0)
        return parts | {"ln_f.bias": (b @ u).expand(whole.shape[:2])}
    return wrong


def raw(writes, weights, token) -> dict[str, Tensor]:
    u = weights["wte.weight"][token]
    parts = {name: write @ u for name, write in writes.items()}
    return parts | {"ln_f.bias": (weights["ln_f.bias"] @ u).expand_as(next(iter(parts.values())))}


PARTS_MISTAKES = [
    (wrong_parts(scale="own"),
     "each write is divided by its own standard deviation; the scale is the whole stream's, frozen (equation 6)"),
    (wrong_parts(scale="running"),
     "each write is divided by the standard deviation of the stream so far; the scale is the whole final stream's "
     "(equation 6)"),
    (wrong_parts(centre=False), "the mean of each write is not taken away (equation 6: w - mean(w))"),
    (wrong_parts(eps=0.0), "epsilon (1e-5) is missing in s: on a stream of small variance it matters (equation 6)"),
    (wrong_parts(gain=False), "the last LayerNorm's gain is missing (equation 6)"),
    (raw,
     "the writes meet the token's row without the last LayerNorm: its mean, scale and gain are missing (equation "
     "6)"),
    (wrong_parts(bias_in_each=True),
     "the bias b is in every write's part; it is one part of its own, \"ln_f.bias\" (equation 6)"),
    (lambda *a: {name: part for name, part in attribution(*a).items() if name != "ln_f.bias"},
     "the part that no write makes, \"ln_f.bias\", is missing"),
]


def logit_check(calls: list[Call], outputs) -> None:
    for number, call in enumerate(calls):
        writes, weights, token = call.args
        close(two_things(outputs[number])[0], logit(*call.args), what="the logit", mistakes=[
            (torch.stack(list(writes.values())).sum(0) @ weights["wte.weight"][token], "the last LayerNorm is missing"),
            (logit(writes, {**weights,
             "ln_f.bias": 0 * weights["ln_f.bias"]}, token), "the last LayerNorm's bias is missing")])


def two_things(output: object) -> tuple:
    """The output, if it is two things."""
    close([0] * len(output) if isinstance(output, (tuple, list)) else output, (0, 0))
    return output


def parts_check(number: int):
    def check(calls: list[Call], outputs) -> None:
        args = calls[number].args
        close(two_things(outputs[number])[1], attribution(*args), mistakes=applied(PARTS_MISTAKES, args),
              what="the parts")
    return check
