"""Checks of 1.1 to 1.3, a layer's pieces: what they are called with, what is right, and what often goes wrong.

Expected values are closed forms in plain torch. The models that 1.4 to 1.7 are asked about stand here too.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

import tinyheads as th
from grader.comparing import close, same_shape
from grader.grading import Call
from grader.inputs import MODEL, random_model

SIZES = [dict(n_vocab=23, n_ctx=7, n_embd=24, n_layer=2, n_head=3),
         dict(n_vocab=31, n_ctx=11, n_embd=20, n_layer=3, n_head=5)]
B = 2


def draw_models(generator: torch.Generator) -> list[th.GPT2]:
    """The models of an exercise: two random ones, and the bundled one."""
    return [random_model(generator, **sizes) for sizes in SIZES] + [th.load(MODEL)]


def draw_tokens(generator: torch.Generator, model: th.GPT2) -> Tensor:
    """Random tokens, as many positions as the model has, at most 20. [B, T]"""
    return torch.randint(0, model.config.n_vocab, (B, min(model.config.n_ctx, 20)), generator=generator)


def weights_of(model: th.GPT2) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


# --- 1.1 ------------------------------------------------------------------------------------------------


def norm_calls(generator: torch.Generator) -> list[Call]:
    """Vectors of usual size; others of another width; and some whose variance is about epsilon."""
    calls = []
    for shape, size in [((2, 5, 24), 1.0), ((3, 6, 40), 2.0), ((2, 4, 16), 0.003)]:
        draw = lambda *shape: torch.randn(shape, generator=generator)
        x = size * (draw(*shape) + draw(*shape[:2], 1))
        calls.append(Call((x, 1 + 0.5 * draw(shape[-1]), draw(shape[-1]))))
    return calls


def norm(x: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
    return F.layer_norm(x, gain.shape, gain, bias, 1e-5)


def bare_norm(x: Tensor, axis: int = -1, correction: int = 0, eps: float = 1e-5, outside: float = 0.0) -> Tensor:
    """LayerNorm without gain and bias, made wrong in one way."""
    variance = x.var(dim=axis, keepdim=True, correction=correction)
    return (x - x.mean(dim=axis, keepdim=True)) / ((variance + eps).sqrt() + outside)


NORM_MISTAKES = [
    (lambda x, g, b: bare_norm(x, correction=1) * g + b,
     "the variance divides by D, not by D - 1: torch's var() and std() take correction=0 (unbiased=False) for "
     "that (part 1, equation 1)"),
    (lambda x, g, b: bare_norm(x), "gain and bias are missing (part 1, equation 1)"),
    (lambda x, g, b: bare_norm(x) * g, "the bias is missing (part 1, equation 1)"),
    (lambda x, g, b: bare_norm(x) + b, "the gain is missing (part 1, equation 1)"),
    (lambda x, g, b: bare_norm(x) * (1 + g) + b, "the gain is multiplied by as it is, not by 1 + gain"),
    (lambda x, g, b: bare_norm(x, axis=1) * g + b,
     "mean and variance are taken over the positions (axis 1); LayerNorm takes them over the D entries of one "
     "position's vector (the last axis)"),
    (lambda x, g, b: bare_norm(x, axis=(0, 1, 2)) * g + b,
     "mean and variance are taken over the whole tensor; each position has its own"),
    (lambda x, g, b: x / (x.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt() * g + b,
     "the mean is not taken away (that is RMSNorm)"),
]
SMALL_MISTAKES = [
    (lambda x, g, b: bare_norm(x, eps=0.0) * g + b,
     "epsilon (1e-5) is missing: on vectors of small variance it matters"),
    (lambda x, g, b: bare_norm(x, eps=0.0, outside=1e-5) * g + b,
     "epsilon (1e-5) belongs inside the square root, added to the variance"),
    (lambda x, g, b: bare_norm(x, eps=1e-6) * g + b, "epsilon is 1e-5 in GPT-2, not 1e-6"),
    (lambda x, g, b: bare_norm(x, eps=1e-12) * g + b, "epsilon is 1e-5 in GPT-2, not 1e-12"),
    *NORM_MISTAKES,
]

# --- 1.2 ------------------------------------------------------------------------------------------------


def mlp_calls(generator: torch.Generator) -> list[Call]:
    calls = []
    for T, D in [(5, 12), (3, 20)]:
        draw = lambda *shape: torch.randn(shape, generator=generator)
        W_in, W_out = draw(D, 4 * D) / D ** 0.5, draw(4 * D, D) / D ** 0.5
        calls.append(Call((2 * draw(B, T, D), W_in, draw(4 * D), W_out, draw(D))))
    return calls


def mlp_with(gelu):
    """The MLP with a function in gelu's place."""
    return lambda x, W_in, b_in, W_out, b_out: gelu(x @ W_in + b_in) @ W_out + b_out


tanh_gelu = lambda a: F.gelu(a, approximate="tanh")
mlp = mlp_with(tanh_gelu)
MLP_MISTAKES = [
    (mlp_with(F.gelu),
     "this is gelu's exact (erf) form; GPT-2 has the tanh form (equation 2; in torch approximate=\"tanh\")"),
    (mlp_with(F.relu), "this is relu; GPT-2 has gelu (equation 2)"),
    (mlp_with(lambda a: a * torch.sigmoid(1.702 * a)),
     "this is gelu's sigmoid form; GPT-2 has the tanh form (equation 2)"),
    (mlp_with(lambda a: a * (1 + torch.tanh(math.sqrt(2 / math.pi) * (a + 0.044715 * a ** 3)))),
     "gelu's factor 0.5 is missing (equation 2)"),
    (mlp_with(lambda a: 0.5 * a * (1 + torch.tanh(math.sqrt(2 / math.pi) * a))),
     "gelu's cubic term is missing (equation 2)"),
    (mlp_with(lambda a: a), "gelu is missing between the two linear maps (equation 2)"),
    (lambda x, W_in, b_in, W_out, b_out: tanh_gelu(x @ W_in) @ W_out + b_out,
     "b_in is missing (it is added before gelu)"),
    (lambda x, W_in, b_in, W_out, b_out: tanh_gelu(x @ W_in + b_in) @ W_out, "b_out is missing"),
    (lambda x, W_in, b_in, W_out, b_out: x + mlp(x, W_in, b_in, W_out, b_out),
     "this is the write plus what was read; the write alone is asked for (the stream adds it)"),
]

# --- 1.3 ------------------------------------------------------------------------------------------------

MATRICES = ("W_Q", "W_K", "W_V", "b_Q", "b_K", "b_V", "W_O")


def split_calls(generator: torch.Generator) -> list[Call]:
    draw = lambda *shape: torch.randn(shape, generator=generator)
    return [Call((draw(D, 3 * D), draw(3 * D), draw(D, D), H)) for H, D in [(3, 24), (5, 20)]]


def split(W: Tensor, b: Tensor, W_O: Tensor, H: int) -> dict[str, Tensor]:
    """Head h's columns and rows, cut out one by one."""
    D = len(W_O)
    K = D // H
    cut = lambda x, part: torch.stack([x[..., part * D + h * K:part * D + (h + 1) * K] for h in range(H)])
    matrices = {f"W_{name}": cut(W, part) for part, name in enumerate("QKV")}
    matrices |= {f"b_{name}": cut(b, part) for part, name in enumerate("QKV")}
    return matrices | {"W_O": torch.stack([W_O[h * K:(h + 1) * K] for h in range(H)])}


def split_shapes(calls: list[Call], outputs) -> None:
    W, b, W_O, H = calls[0].args
    close({key: 0 for key in outputs[0]} if isinstance(outputs[0], dict) else outputs[0], {key: 0 for key in MATRICES})
    for key, wanted in split(W, b, W_O, H).items():
        same_shape(outputs[0][key], wanted, {"W": "head d_model d_head", "b": "head d_head"}[key[0]] if key != "W_O"
                   else "head d_head d_model", f"the result[{key!r}]")


def split_mistakes(W: Tensor, b: Tensor, W_O: Tensor, H: int) -> dict[str, list]:
    """For each matrix what tends to go wrong with it."""
    D, right = len(W_O), split(W, b, W_O, H)
    K = D // H
    wrong = {"W_O": [
        (W_O.reshape(K, H, D).transpose(0, 1),
         "head h has the rows h*K to h*K + K - 1, and this has every H-th row: reshape to [H, K, D], not to [K, H, D]"),
        (W_O.T.reshape(H, K, D), "W_O is transposed: its rows are the heads' side"),
        (W_O.reshape(D, H, K).permute(1, 2, 0), "these are W_O's columns; a head has K of its rows (z @ W_O)")]}
    for part, name in enumerate("QKV"):
        third, others = W[:, part * D:(part + 1) * D], [other for other in "QKV" if other != name]
        wrong[f"W_{name}"] = [
            (third.reshape(D, K, H).permute(2, 0, 1),
             "head h has the columns h*K to h*K + K - 1 of its third, and this has every H-th column: reshape [D, D] "
             "to [D, H, K], not to [D, K, H]"),
            (third.reshape(H, D, K),
             "reshape cannot move axes: [D, D] -> [H, D, K] mixes rows. First [D, H, K], then bring H to the front "
             "(permute)"),
            (W.reshape(D, H, 3, K)[:, :, part].transpose(0, 1),
             "this takes the columns head by head (each head's q, k, v together); GPT-2 stores all queries, then all "
             "keys, then all values"),
            (right[f"W_{name}"].transpose(1, 2), "its last two axes are swapped: [H, D, K] is wanted, for x @ W"),
            *((right[f"W_{other}"], f"this is W_{other}: the order is queries, keys, values") for other in others)]
        wrong[f"b_{name}"] = [
            (b.reshape(H, 3, K)[:, part],
             "this takes the bias head by head; GPT-2 stores all queries, then all keys, then all values"),
            (b[part * D:(part + 1) * D].reshape(K, H).T,
             "head h has the entries h*K to h*K + K - 1 of its third: reshape to [H, K]")]
    return wrong


def check_matrices(number: int, keys: tuple[str, ...]):
    """A check of some of the matrices."""
    def check(calls: list[Call], outputs) -> None:
        args, output = calls[number].args, outputs[number]
        right, wrong = split(*args), split_mistakes(*args)
        close({key: 0 for key in output} if isinstance(output, dict) else output, {key: 0 for key in MATRICES})
        for key in keys:
            close(output[key], right[key], mistakes=wrong[key], what=f"the result[{key!r}]")
    return check
