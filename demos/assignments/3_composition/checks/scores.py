"""Checks of 3.1 to 3.3: the score of two heads, of all pairs, and of one component."""

from typing import Callable

import torch
from torch import Tensor

import tinyheads as th
from grader.comparing import close, same_shape
from grader.grading import Call, Check, Exercise, Outputs, Part, agrees, all_of, applied
from grader.inputs import random_int

from .circuits import (MODES, OTHER, TOLD, Factors, HeadDict, as_library, as_numbers, head_of, model_heads, norm,
                       planted_heads, random_heads, read_by, score, score_by_formula, score_mistakes, transposed,
                       two_layer_model)
from .ranking import TOLERANCE

LARGE_D, LARGE_K = 40_000, 8  # [D, D] would be 6.4 GB in float32, more than an exercise may use


# --- 3.1 the score of two heads -----------------------------------------------------------------------------

CASES = {"random": 0, "another size": 3, "model": 6, "planted": 9, "large": 10}  # the first call of each


def score_calls(generator: torch.Generator) -> list[Call]:
    """Three modes of two random pairs and of one of the model's; the planted pair and the large pair by Q."""
    sizes = [(18, 4), (25 + random_int(generator, 0, 4), 6)]
    pairs = [[random_heads(generator, D, K) for _ in range(2)] for D, K in sizes]
    L, H = model_heads()["W_Q"].shape[:2]
    later = random_int(generator, 1, L - 1)
    pairs.append([head_of(model_heads(), th.Head(layer, random_int(generator, 0, H - 1)))
                  for layer in (random_int(generator, 0, later - 1), later)])
    heads, writer, reader = planted_heads(generator)
    of_planted = Call((head_of(heads, writer), head_of(heads, reader), "Q"))
    large = [random_heads(generator, LARGE_D, LARGE_K) for _ in range(2)]
    return [*(Call((*pair, mode)) for pair in pairs for mode in MODES), of_planted, Call((*large, "Q"))]


def scored(case: str, modes: str = MODES) -> Check:
    def check(calls: list[Call], outputs: Outputs) -> None:
        for mode in modes:
            number = CASES[case] + MODES.index(mode)
            agrees(number, score, TOLERANCE, as_numbers(score_mistakes(mode)), f"the score by \"{mode}\"",
                   "the handout, parts 1 and 2")(calls, outputs)
    return check


composition_score = Exercise("3.1 the score of two heads", "composition_score", 5, score_calls, [
    *[Part(f"by {mode}", 1, scored("random", mode)) for mode in MODES],
    Part("another size, and heads of the model", 0.5, all_of(scored("another size"), scored("model"))),
    Part("the planted channel", 0.5, scored("planted", "Q")),
    Part("D = 40,000", 1, scored("large", "Q"))])


# --- 3.2 all pairs ------------------------------------------------------------------------------------------


def table_calls(generator: torch.Generator) -> list[Call]:
    calls = [Call((random_heads(generator, D, K, L, H), mode))
             for (L, H, D, K), mode in [((3, 2, 12, 4), "Q"), ((4, 3, 15, 3), "V")]]
    return [*calls, Call((planted_heads(generator)[0], "K"))]


def table(heads: HeadDict, mode: str) -> Tensor:
    return th.composition_scores(as_library(heads), mode)


def everywhere(heads: HeadDict, mode: str) -> Tensor:
    """The scores of all pairs, earlier or not: [L, H, L, H]."""
    L, H = heads["W_Q"].shape[:2]
    places = [th.Head(layer, head) for layer in range(L) for head in range(H)]
    scores = [score_by_formula(head_of(heads, w), head_of(heads, r), mode) for w in places for r in places]
    return torch.stack(scores).view(L, H, L, H)


def kept(wanted: Callable) -> Callable:
    """The mistake of keeping other pairs than the later ones. wanted: of the layers [L, 1, 1, 1] and [1, 1, L, 1]."""
    def mistake(heads: HeadDict, mode: str) -> Tensor:
        layers = torch.arange(len(heads["W_Q"]))
        return everywhere(heads, mode) * wanted(layers[:, None, None, None], layers[:, None])
    return mistake


TABLES = [
    (kept(lambda w, r: w < len(r) + w), "scores are not zeroed where the reader is not in a later layer"),
    (kept(lambda w, r: w <= r), "scores within a layer are not zeroed: heads of one layer all read before any of them "
                                "writes, so the reader must be in a STRICTLY later layer"),
    (kept(lambda w, r: w > r), "it is the wrong way round: scores stand where the reader is EARLIER than the writer. "
                               "The first two axes are the writer's"),
    (lambda heads, m: table(heads, m).permute(2, 3, 0, 1),
     "the axes are reader by writer; it should be writer's layer and head, then reader's"),
    (lambda heads, m: table(heads, m).transpose(1, 2),
     "the axes are writer's layer, reader's layer, writer's head, reader's head; it should be writer's layer and "
     "head, then reader's"),
    (lambda heads, m: table(heads, m) ** 2, "these are the scores squared: the square root is missing"),
    (lambda heads, m: table(heads, OTHER.get(m, m)), "your scores are those of the transposed QK")]


def tabled(number: int) -> Check:
    return agrees(number, table, TOLERANCE, TABLES, "the table", "the handout, part 3")


def zeros(calls: list[Call], outputs: Outputs) -> None:
    """Zeros where they should be, and nowhere else; whatever the scores are."""
    where = kept(lambda w, r: w < r)(*calls[0].args) > 0
    answer = same_shape(outputs[0], where, "writer's-layer writer's-head reader's-layer reader's-head", "the table")
    made = [((lambda wrong=wrong: (wrong() > 0).int()), message)
            for wrong, message in applied(TABLES[:3], calls[0].args)]
    close((answer != 0).int(), where.int(), 0, made, "where the table is not 0", "the handout, part 3")


composition_table = Exercise("3.2 all pairs", "composition_table", 3, table_calls, [
    Part("shape, and zeros in their places", 1, zeros), Part("values", 1, tabled(0)),
    Part("another size, and the planted model", 1, all_of(tabled(1), tabled(2)))])


# --- 3.3 the score of one component -------------------------------------------------------------------------


def component_calls(generator: torch.Generator) -> list[Call]:
    """The same pairs as in 3.1; the writer as its components' directions."""
    pairs = [call.args for call in score_calls(generator)]
    return [Call((th.ov_svd(two_layer_model(w, r)).write[0, 0].float(), r, mode)) for w, r, mode in pairs]


def components(write: Tensor, r: HeadDict, mode: str) -> Tensor:
    """By the library."""
    write = write.double().expand(2, 1, *write.shape)                                             # [2, 1, K, D]
    return th.component_scores(two_layer_model(r, r), mode, th.SVD(write, write[..., 0], write))[0, 0, :, 1, 0]


def lengths(write: Tensor, M: Factors) -> Tensor:
    """||v_i^T M|| [K]."""
    return (write.double() @ M[0] @ torch.linalg.qr(M[1]).R.T).norm(dim=1)


def component_mistakes(mode: str) -> list:
    M = lambda r: read_by(r, mode)
    mistakes = [
        (lambda v, r, m: lengths(v, transposed(M(r))) / norm(M(r)),
         TOLD.get(mode, "the reader's OV is transposed: M_r = W_V W_O, which the component meets on W_V's side")),
        (lambda v, r, m: lengths(v, M(r)), "it is not divided by ||M_r||"),
        (lambda v, r, m: components(v, r, m) ** 2, "these are the scores squared: the square root is missing"),
        (lambda v, r, m: lengths(v, M(r)) / (M(r)[0].norm() * M(r)[1].norm()),
         "you divided by the norms of M_r's factors; it should be the norm of their product"),
        (lambda v, r, m: (v.double() @ M(r)[0]).norm(dim=1) / M(r)[0].norm(),
         "this measures along one factor of M_r alone; the lengths of v^T M_r depend on both"),
        (lambda v, r, m: lengths(v, M(r)) / M(r)[0].norm(),
         "you divided by the norm of the wrong factor; it should be that of the product, ||M_r||"),
        (lambda v, r, m: lengths(v, M(r)) / lengths(v, M(r)).norm(),
         "you divided by the length of all components' together; it should be ||M_r||, to which directions that this "
         "writer does not use count as well"),
        (lambda v, r, m: lengths(v, M(r)) / lengths(v, M(r)).max(),
         "you divided by the largest of them; it should be ||M_r||"),
        (lambda v, r, m: components(v, r, m).flip(0), "the components are in the reverse order")]
    return mistakes


def component_part(number: int) -> Check:
    def check(calls: list[Call], outputs: Outputs) -> None:
        v, r, mode = calls[number].args
        same_shape(outputs[number], [len(v)], "component", f"the scores by \"{mode}\"")
        agrees(number, components, TOLERANCE, component_mistakes(mode), f"the scores by \"{mode}\"",
               "the handout, part 4")(calls, outputs)
    return check


component_scores = Exercise("3.3 the score of one component", "component_scores", 4, component_calls, [
    *[Part(f"by {mode}", 1, component_part(i)) for i, mode in enumerate(MODES)],
    Part("another size, the model and the planted channel", 0.5, all_of(*[component_part(i) for i in range(3, 10)])),
    Part("D = 40,000", 0.5, component_part(10))])
