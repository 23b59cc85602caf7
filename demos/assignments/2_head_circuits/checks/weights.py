"""Checks of 2.1 to 2.3: splitting a layer's matrices, and folding LayerNorm into them; and what 2.4 to 2.7 use too."""

from functools import lru_cache

import torch
from torch import Tensor

import tinyheads as th
from grader.comparing import Wrong, close, kind_of, same_shape
from grader.grading import Call, Check, Exercise, Outputs, Part, all_of, applied
from grader.inputs import MODEL, random_int

TOLERANCE = 1e-3


@lru_cache
def model() -> th.GPT2:
    return th.load(MODEL).requires_grad_(False)


@lru_cache
def heads(fold: bool) -> th.Heads:
    return th.Heads.of(model(), fold)


def some_head(generator: torch.Generator) -> tuple[int, int]:
    """A layer and a head of the model."""
    return random_int(generator, 0, model().config.n_layer - 1), random_int(generator, 0, model().config.n_head - 1)


def entry_agrees(number: int, index: int, length: int, names: str, expected, mistakes=(), see: str = "") -> Check:
    """A part's check of one entry of the tuple that a call returned. expected, mistakes: of the call's arguments."""
    def check(calls: list[Call], outputs: Outputs) -> None:
        args, output = calls[number].args, outputs[number]
        if not isinstance(output, (tuple, list)) or len(output) != length:
            raise Wrong(f"{names} should be returned, a tuple of {length}, not {kind_of(output)}")
        close(output[index], expected(*args), TOLERANCE, applied(mistakes, args), names.split(", ")[index], see)
    return check


def check_shapes(number: int, names: str, wanted, axes: list[str]) -> Check:
    """A part's check of the shapes of a tuple. wanted: the shapes, of the call's arguments."""
    def check(calls: list[Call], outputs: Outputs) -> None:
        output = outputs[number]
        if not isinstance(output, (tuple, list)) or len(output) != len(axes):
            raise Wrong(f"{names} should be returned, a tuple of {len(axes)}, not {kind_of(output)}")
        for each, shape, axis, name in zip(output, wanted(*calls[number].args), axes, names.split(", ")):
            same_shape(each, shape, axis, name)
    return check


# --- 2.1 split the heads ------------------------------------------------------------------------------------

SPLIT = "W_Q, W_K, W_V, W_O"


def split_calls(generator: torch.Generator) -> list[Call]:
    calls = []
    for H, K in [(3, 4), (2, 5 + random_int(generator, 0, 2))]:
        c_attn, c_proj = torch.randn(H * K, 4 * H * K, generator=generator).split([3 * H * K, H * K], dim=1)
        calls.append(Call((c_attn.contiguous(), c_proj.contiguous(), H)))
    attn = model().h[some_head(generator)[0]].attn
    return [*calls, Call((attn.c_attn.weight.detach(), attn.c_proj.weight.detach(), model().config.n_head))]


def layer_of(c_attn: Tensor, c_proj: Tensor, n_head: int, gain=None, bias=None, b_attn=None, b_proj=None,
             fold: bool = False) -> th.Heads:
    """One layer's heads, by the library, from its matrices: axes L = 1 first."""
    config = th.GPT2Config(n_vocab=1, n_ctx=1, n_embd=len(c_proj), n_layer=1, n_head=n_head)
    built = th.GPT2(config).requires_grad_(False)
    attn, norm = built.h[0].attn, built.h[0].ln_1
    for parameter, value in [(attn.c_attn.weight, c_attn), (attn.c_attn.bias, b_attn), (norm.weight, gain),
                             (attn.c_proj.weight, c_proj), (attn.c_proj.bias, b_proj), (norm.bias, bias)]:
        if value is not None:
            parameter.copy_(value)
    return th.Heads.of(built, fold)


def split_right(mode: str):
    return lambda c_attn, c_proj, H: getattr(layer_of(c_attn, c_proj, H), f"W_{mode}")[0]


def split_wrong(which: int) -> list:
    """Ways to get W_Q, W_K or W_V (which: 0, 1, 2) wrong."""
    thirds = lambda c_attn: c_attn.split(c_attn.shape[0], dim=1)[which]
    by_head = lambda part, H: part.reshape(len(part), H, -1).transpose(0, 1)                        # [H, D, K]
    names = "QKV"
    return [
        (lambda c, p, H: c.reshape(len(c), H, 3, -1)[:, :, which].transpose(0, 1),
         "you read c_attn's columns head by head. First come the queries of ALL heads, then all keys, then all values"),
        (lambda c, p, H: thirds(c).reshape(len(c), -1, H).permute(2, 0, 1),
         "you gave head h every H-th column. A head's K columns lie side by side"),
        (lambda c, p, H: thirds(c).reshape(H, len(c), -1),
         "it has the right shape, but reshape fills the shape row by row: split the columns first, [D, H, K], then "
         "move the axes with transpose or permute"),
        *[(lambda c, p, H, other=other: by_head(c.split(len(c), dim=1)[other], H),
           f"this is W_{names[other]}: the order in c_attn is queries, keys, values")
          for other in range(3) if other != which]]


SPLIT_O = [
    (lambda c, p, H: p.reshape(len(p), H, -1).permute(1, 2, 0),
     "you split c_proj by its columns. Its ROWS go by head: what a head hands over are entries of the input of c_proj"),
    (lambda c, p, H: p.T.reshape(H, -1, len(p)), "you split the transpose of c_proj: rows go by head, `z @ c_proj`"),
    (lambda c, p, H: p.reshape(-1, H, len(p)).transpose(0, 1),
     "you gave head h every H-th row. A head's K rows lie side by side")]


def split_parts(number: int):
    return all_of(*[entry_agrees(number, i, 4, SPLIT, split_right("QKV"[i]), split_wrong(i), "the handout, part 1")
                    for i in range(3)])


def split_part_o(number: int):
    return entry_agrees(number, 3, 4, SPLIT, split_right("O"), SPLIT_O, "the handout, part 1")


split_heads = Exercise("2.1 split the heads", "split_heads", 3, split_calls, [
    Part("shapes", 0.5, check_shapes(
        0, SPLIT, lambda c, p, H: [[H, len(p), len(p) // H]] * 3 + [[H, len(p) // H, len(p)]],
        ["head d_model d_head"] * 3 + ["head d_head d_model"])),
    Part("queries, keys and values", 1, split_parts(0)),
    Part("outputs", 0.5, split_part_o(0)),
    Part("another size", 0.5, all_of(split_parts(1), split_part_o(1))),
    Part("a layer of the model", 0.5, all_of(split_parts(2), split_part_o(2)))])


# --- 2.2 fold LayerNorm into what is read -------------------------------------------------------------------


def reading_calls(generator: torch.Generator) -> list[Call]:
    calls = []
    for H, K in [(3, 4), (2, 5 + random_int(generator, 0, 2))]:
        W, b = torch.randn(H, H * K, K, generator=generator), torch.randn(H, K, generator=generator)
        gain, bias = 1 + 0.5 * torch.randn(H * K, generator=generator), torch.randn(H * K, generator=generator)
        calls.append(Call((W + 0.3, b, gain, bias)))
    layer, raw = some_head(generator)[0], heads(False)
    norm = model().h[layer].ln_1
    return [*calls, Call((raw.W_V[layer], raw.b_V[layer], norm.weight.detach(), norm.bias.detach()))]


def folded(W: Tensor, b: Tensor, gain: Tensor, bias: Tensor) -> th.Heads:
    """By the library: the same W in the place of all three."""
    H, D, K = W.shape
    flat = W.transpose(0, 1).reshape(D, H * K)
    return layer_of(flat.repeat(1, 3), torch.zeros(D, D), H, gain, bias, b.flatten().repeat(3), fold=True)


def without_mean(W: Tensor, dim) -> Tensor:
    return W - W.mean(dim=dim, keepdim=True)


FOLD_W = [
    (lambda W, b, g, beta: W, "this is W unchanged: LayerNorm's gain is to be folded into it, and the mean over D "
                              "taken out"),
    (lambda W, b, g, beta: W * g[:, None],
     "the gain is right, but the mean over D is still in it: every column of each W'[h] has mean 0 over D"),
    (lambda W, b, g, beta: without_mean(W, 1), "the mean over D is out, but the gain is not folded in"),
    (lambda W, b, g, beta: without_mean(W, 1) * g[:, None],
     "you took the mean out first and multiplied by the gain then: after the gain the columns no longer have mean 0. "
     "The order matters"),
    (lambda W, b, g, beta: without_mean(W * g[:, None], 2),
     "you took the mean over K out of each row (dim=2). What LayerNorm removes is the mean over D, so it comes out of "
     "each column (dim=1)"),
    (lambda W, b, g, beta: without_mean(W * g[:, None], 0),
     "you took the mean over the heads out (dim=0). It is the mean over D"),
    (lambda W, b, g, beta: without_mean(W * g[:, None], (0, 1, 2)),
     "you took one mean over everything out; each column has its own"),
    (lambda W, b, g, beta: without_mean(W * g[:, None], (1, 2)),
     "you took one mean a head out; each column has its own"),
    *[(lambda W, b, g, beta, out=out: out(W * g[:W.shape[2]]),
       "the gain multiplies W's columns. It has one entry for each entry of the stream, so it multiplies ROWS: row d "
       "by gain[d]") for out in (lambda W: W, lambda W: without_mean(W, 1))],
    (lambda W, b, g, beta: without_mean(W * (g + beta)[:, None], 1),
     "the bias of LayerNorm is in W'; it belongs in b'")]
FOLD_B = [
    (lambda W, b, g, beta: b, "this is b unchanged: LayerNorm's bias is read by W too, and does not depend on x, so "
                              "it is folded into b'"),
    (lambda W, b, g, beta: b + beta @ (W * g[:, None]),
     "you multiplied LayerNorm's bias by the gain as well. n = bare(x) * g + beta: the bias comes after the gain, so "
     "it is read by the W that came in"),
    (lambda W, b, g, beta: b + beta @ without_mean(W * g[:, None], 1),
     "LayerNorm's bias is read by the W that came in, not by the folded one: n = bare(x) * g + beta"),
    (lambda W, b, g, beta: b + beta @ without_mean(W, 1),
     "you took the mean out of W before LayerNorm's bias went through it; the bias may well have a mean over D, and "
     "it is read"),
    (lambda W, b, g, beta: without_mean(b + beta @ W, -1),
     "no mean is to be taken out of b': K are a head's own dimensions"),
    (lambda W, b, g, beta: beta @ W, "LayerNorm's part is right, but the head's own bias b is gone: add it"),
    (lambda W, b, g, beta: b - beta @ W, "the sign of LayerNorm's part is the opposite")]


def reading_w(number: int) -> Check:
    return entry_agrees(number, 0, 2, "W', b'", lambda *args: folded(*args).W_V[0], FOLD_W, "the handout, part 2")


def reading_b(number: int) -> Check:
    return entry_agrees(number, 1, 2, "W', b'", lambda *args: folded(*args).b_V[0], FOLD_B, "the handout, part 2")


fold_reading = Exercise("2.2 fold LayerNorm into what is read", "fold_reading", 4, reading_calls, [
    Part("shapes", 0.5, check_shapes(0, "W', b'", lambda W, b, g, beta: [W.shape, b.shape],
                                     ["head d_model d_head", "head d_head"])),
    Part("weights", 1.5, reading_w(0)), Part("biases", 1, reading_b(0)),
    Part("another size", 0.5, all_of(reading_w(1), reading_b(1))),
    Part("a layer of the model", 0.5, all_of(reading_w(2), reading_b(2)))])


# --- 2.3 take the mean out of what is written ---------------------------------------------------------------


def writing_calls(generator: torch.Generator) -> list[Call]:
    calls = [Call((torch.randn(H, K, H * K, generator=generator) + 0.5, torch.randn(H * K, generator=generator) + 1))
             for H, K in [(3, 4), (2, 5 + random_int(generator, 0, 2))]]
    layer = some_head(generator)[0]
    return [*calls, Call((heads(False).W_O[layer], heads(False).b_O[layer] + 0.1))]


def centred(W_O: Tensor, b_O: Tensor) -> th.Heads:
    H, K, D = W_O.shape
    return layer_of(torch.zeros(D, 3 * D), W_O.reshape(D, D), H, b_proj=b_O, fold=True)


WRITING_W = [
    (lambda W, b: W, "this is W_O unchanged: the mean over D is to come out of each of its rows"),
    (lambda W, b: without_mean(W, 1),
     "you took the mean over K out (dim=1). W_O is [H, K, D] and writes along D, its last axis: each ROW has mean 0"),
    (lambda W, b: without_mean(W, 0), "you took the mean over the heads out. It is the mean over D, the last axis"),
    (lambda W, b: without_mean(W, (0, 1, 2)), "you took one mean over everything out; each row has its own"),
    (lambda W, b: without_mean(W, (1, 2)), "you took one mean a head out; each row has its own")]
WRITING_B = [(lambda W, b: b, "this is b_O unchanged: it is written to the stream too, so its mean over D comes out "
                              "as well"),
             (lambda W, b: b - without_mean(W, 2).mean(), "the mean to take out of b_O is its own")]


def writing(number: int, entry: int) -> Check:
    return entry_agrees(number, entry, 2, "W_O, b_O", lambda *args: (centred(*args).W_O, centred(*args).b_O)[entry][0],
                        (WRITING_W, WRITING_B)[entry], "the handout, part 3")


fold_writing = Exercise("2.3 take the mean out of what is written", "fold_writing", 2, writing_calls, [
    Part("weights", 1, writing(0, 0)), Part("bias", 0.5, writing(0, 1)),
    Part("another size, and the model", 0.5, all_of(writing(1, 0), writing(1, 1), writing(2, 0), writing(2, 1)))])
