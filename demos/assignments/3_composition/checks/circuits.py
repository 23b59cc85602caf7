"""Heads to hand in, their scores, and what well-known mistakes make of these."""

from functools import lru_cache

import torch
from torch import Tensor

import tinyheads as th
from grader.inputs import MODEL, random_int
from tinyheads.planted import planted

MODES = "QKV"
NAMES = ("W_Q", "W_K", "W_V", "W_O")
HeadDict = dict[str, Tensor]


# --- heads to hand in ---------------------------------------------------------------------------------------


@lru_cache
def model_heads() -> HeadDict:
    """All heads of the bundled model, folded."""
    return as_dict(th.load_heads(MODEL))


def planted_heads(generator: torch.Generator) -> tuple[HeadDict, th.Head, th.Head]:
    """The planted model's heads, the one that writes the channel, and the one that reads it as its query."""
    writer = th.Head(random_int(generator, 0, 1), random_int(generator, 0, 3))
    reader = th.Head(2, random_int(generator, 0, 3))
    built = planted(writer, reader, seed=random_int(generator, 0, 10_000))
    return as_dict(th.Heads.of(built.model)), writer, reader


def as_dict(heads: th.Heads) -> HeadDict:
    return {name: getattr(heads, name).contiguous() for name in NAMES}


def random_heads(generator: torch.Generator, D: int, K: int, *axes: int) -> HeadDict:
    """Heads with directions that count more than others, so that no two of them compose alike. axes: L, H, or none."""
    weight = torch.rand(D, 1, generator=generator) ** 2 + 0.1
    heads = {name: weight * torch.randn(*axes, D, K, generator=generator) for name in NAMES[:3]}
    return heads | {"W_O": torch.randn(*axes, K, D, generator=generator) * (weight.T + 0.2)}


def head_of(heads: HeadDict, head: th.Head) -> HeadDict:
    return {name: W[head.layer, head.head].contiguous() for name, W in heads.items()}


def as_library(heads: HeadDict) -> th.Heads:
    """All heads as the library's record, in float64."""
    W = [heads[name].double() for name in NAMES]
    L, H, D, K = W[0].shape
    no_bias, gain, bias = torch.zeros(L, H, K), torch.ones(L, D), torch.zeros(L, D)
    config = th.GPT2Config(n_vocab=1, n_ctx=1, n_embd=H * K, n_layer=L, n_head=H)
    return th.Heads(config, *W, no_bias, no_bias, no_bias, torch.zeros(L, D), gain, bias, folded=True)


def two_layer_model(w: HeadDict, r: HeadDict) -> th.Heads:
    """Two heads as a model of two layers of one head."""
    return as_library({name: torch.stack([w[name], r[name]])[:, None] for name in NAMES})


# --- what the scores are, and what mistakes make of them ----------------------------------------------------
# Circuits stay in factors (A, B), each [D, K], for A B^T: also those of the mistakes are computed where D is large.

Factors = tuple[Tensor, Tensor]


def OV(head: HeadDict) -> Factors:
    return head["W_V"].double(), head["W_O"].T.double()


def QK(head: HeadDict) -> Factors:
    return head["W_Q"].double(), head["W_K"].double()


def transposed(factors: Factors) -> Factors:
    """The transpose."""
    return factors[1], factors[0]


def read_by(head: HeadDict, mode: str) -> Factors:
    """M_r."""
    return {"Q": QK(head), "K": transposed(QK(head)), "V": OV(head)}[mode]


def product(M: Factors, N: Factors) -> Factors:
    """(A B^T)(C D^T)."""
    return M[0] @ (M[1].T @ N[0]), N[1]


def singular_values(M: Factors) -> Tensor:
    """The singular values [K]."""
    return torch.linalg.svdvals(torch.linalg.qr(M[0]).R @ torch.linalg.qr(M[1]).R.T)


def norm(M: Factors) -> Tensor:
    return singular_values(M).norm()


def composed(w: HeadDict, r: HeadDict, mode: str) -> Factors:
    return product(OV(w), read_by(r, mode))


def score_by_formula(w: HeadDict, r: HeadDict, mode: str) -> Tensor:
    return norm(composed(w, r, mode)) / (norm(OV(w)) * norm(read_by(r, mode)))


def score(w: HeadDict, r: HeadDict, mode: str) -> float:
    """By the library; where it is too wide for that, by the formula."""
    if len(w["W_V"]) > 1000:
        return score_by_formula(w, r, mode).item()
    return th.composition_scores(two_layer_model(w, r), mode)[0, 0, 1, 0].item()


OTHER = {"Q": "K", "K": "Q"}
TOLD = {"Q": "your scores are those of the transposed QK: a key-side read, which is mode \"K\"",
        "K": "your scores are those of QK as it stands: a query-side read, which is mode \"Q\"; the key's side is QK^T"}


def score_mistakes(mode: str) -> list:
    """What a student's score may be in its place, and what to tell him."""
    M = lambda r: read_by(r, mode)
    mistakes = [
        (lambda w, r, m: score_by_formula(w, r, m) ** 2,
         "this is the score squared: the square root of the norms is missing"),
        (lambda w, r, m: score_by_formula(w, r, m).sqrt(), "this is the root of the score"),
        (lambda w, r, m: norm(composed(w, r, m)), "it is not divided by anything: divide by ||OV_w|| ||M_r||"),
        (lambda w, r, m: norm(composed(w, r, m)) / norm(M(r)), "it is not divided by ||OV_w||"),
        (lambda w, r, m: norm(composed(w, r, m)) / norm(OV(w)), "it is not divided by ||M_r||"),
        (lambda w, r, m: norm(composed(w, r, m)) ** 2 / (norm(OV(w)) * norm(M(r))),
         "the norm above the line is squared, those below are not"),
        (lambda w, r, m: norm(composed(w, r, m)) / (w["W_V"].norm() * w["W_O"].norm()
                                                    * M(r)[0].norm() * M(r)[1].norm()),
         "you divided by the norms of the factors (||W_V|| ||W_O|| and so on); it should be the norms of the products"),
        (lambda w, r, m: norm(composed(w, r, m)) / (w["W_V"].norm() * w["W_O"].norm() * norm(M(r))),
         "you divided by ||W_V|| ||W_O||; it should be the norm of their product, ||OV_w||"),
        (lambda w, r, m: norm(composed(w, r, m)) / (norm(OV(w)) * M(r)[0].norm() * M(r)[1].norm()),
         "you divided by the norms of M_r's factors; it should be the norm of their product, ||M_r||"),
        (lambda w, r, m: norm(composed(w, r, m)) / (w["W_O"].norm() * norm(M(r))),
         "you divided by the norm of the wrong factor, ||W_O||; it should be that of the product, ||OV_w||"),
        (lambda w, r, m: norm(composed(w, r, m)) / (norm(OV(w)) * M(r)[0].norm()),
         "you divided by the norm of the wrong factor of M_r; it should be that of the product, ||M_r||"),
        (lambda w, r, m: norm(product(M(r), OV(w))) / (norm(OV(w)) * norm(M(r))),
         "the product is the wrong way round, M_r OV_w: the writer comes first, OV_w M_r, in row vectors"),
        (lambda w, r, m: norm(product(transposed(OV(w)), M(r))) / (norm(OV(w)) * norm(M(r))),
         "the writer's OV is transposed: what it writes is on W_O's side"),
        (lambda w, r, m: score_by_formula(r, w, m), "writer and reader are exchanged"),
        (lambda w, r, m: singular_values(composed(w, r, m))[0] / (norm(OV(w)) * norm(M(r))),
         "above the line is the largest singular value (torch's matrix norm with ord=2); the Frobenius norm is asked "
         "for"),
        (lambda w, r, m: singular_values(composed(w, r, m))[0] / (singular_values(OV(w))[0] * singular_values(M(r))[0]),
         "your norms are the largest singular values (ord=2); the Frobenius norm is asked for"),
        (lambda w, r, m: (w["W_O"].double() @ M(r)[0]).norm() / (w["W_O"].norm() * M(r)[0].norm()),
         "this compares W_O with one factor of M_r; the score is of the whole circuits, OV_w and M_r")]
    if mode in OTHER:
        return [(lambda w, r, m: score_by_formula(w, r, OTHER[m]), TOLD[mode]), *mistakes]
    return [(lambda w, r, m: norm(product(OV(w), transposed(OV(r)))) / (norm(OV(w)) * norm(OV(r))),
             "the reader's OV is transposed: it reads with W_V, so that M_r = W_V W_O"), *mistakes]


def as_numbers(mistakes: list) -> list:
    return [((lambda *args, wrong=wrong: float(wrong(*args))), message) for wrong, message in mistakes]
