"""Wrong answers to Assignment 3, each with part of the message that its author gets.

Most are the reference with one slip.
"""

import torch
from mistake import Mistake, slip
from reference_3 import (chance_scores, circuit, component_scores, composition_score, composition_table, norm,
                         roc_area, top_edges, whole_from_components)


def the_full_matrices(writer, reader, mode):
    A, B = circuit(reader, mode)
    ov, M = writer["W_V"] @ writer["W_O"], A @ B.T
    return (ov @ M).norm() / (ov.norm() * M.norm())


def factors_only(writer, reader, mode):
    A, _ = circuit(reader, mode)
    return (writer["W_O"] @ A).norm() / (writer["W_O"].norm() * A.norm())


def normalised_in_place(writer, reader, mode):
    A, B = circuit(reader, mode)
    writer["W_O"] /= norm(writer["W_V"], writer["W_O"].T)
    return norm(writer["W_V"] @ (writer["W_O"] @ A), B) / norm(A, B)


def random_values(heads, mode):
    L, H = heads["W_Q"].shape[:2]
    later = torch.arange(L)[:, None] < torch.arange(L)
    return torch.rand(L, H, L, H) * later[:, None, :, None]


def the_best_component(scores, scale):
    return scores.amax(dim=2)


def copied_for_one_seed(scores, n):
    return ["L0.H1.C2 -> L2.H0", "L1.H0.C3 -> L2.H1", "L0.H0.C0 -> L1.H1", "L0.H0.C1 -> L2.H1", "L1.H1.C0 -> L2.H0"][:n]


def all_readers(scores, writers, readers):
    L, H = scores.shape[:2]
    known, others = [], []
    for a, b, c, d in ((a, b, c, d) for c in range(L) for a in range(c) for b in range(H) for d in range(H)):
        (known if (a, b) in writers and (c, d) in readers else others).append(scores[a, b, c, d])
    known, others = torch.stack(known)[:, None], torch.stack(others)
    return ((known > others).double() + 0.5 * (known == others).double()).mean().item()


PAIR, TABLE, COMPONENTS, IDENTITY, EDGES, AREA = "3.1", "3.2", "3.3", "3.4", "3.5", "3.6"

MISTAKES = [
    Mistake("transposed QK", PAIR, slip(composition_score, "circuit(reader, mode)",
            'circuit(reader, {"Q": "K", "K": "Q"}.get(mode, mode))'),
            "the transposed QK: a key-side read"),
    Mistake("norm of the wrong factor", PAIR, slip(composition_score, "norm(W_V, W_O.T)", "W_O.norm()"),
            "the norm of the wrong factor, ||W_O||"),
    Mistake("norms of the factors", PAIR, slip(composition_score, "norm(W_V, W_O.T)", "W_V.norm() * W_O.norm()"),
            "you divided by ||W_V|| ||W_O||"),
    Mistake("no square root", PAIR, slip(composition_score, " / (norm(W_V, W_O.T) * norm(A, B))",
            "**2 / (norm(W_V, W_O.T) * norm(A, B))**2"), "the square root of the norms is missing"),
    Mistake("not divided", PAIR, slip(composition_score, " / (norm(W_V, W_O.T) * norm(A, B))", ""),
            "not divided by anything"),
    Mistake("factors only", PAIR, factors_only, "this compares W_O with one factor"),
    Mistake("[D, D] matrices made", PAIR, the_full_matrices, "MB of memory"),
    Mistake("weights normalised in place", PAIR, normalised_in_place, "changed its argument number 1 in place"),
    Mistake("not zeroed where not later", TABLE, slip(composition_table, "if w[0] < r[0]", "if True"),
            "are not zeroed where the reader"),
    Mistake("same layer kept", TABLE, slip(composition_table, "w[0] < r[0]", "w[0] <= r[0]"),
            "in a STRICTLY later layer"),
    Mistake("reader by writer", TABLE, slip(composition_table, "table[(*w, *r)]", "table[(*r, *w)]"),
            "the axes are reader by writer"),
    Mistake("right shape, random values", TABLE, random_values, "of its entries are wrong"),
    Mistake("components not divided", COMPONENTS, slip(component_scores, " / (A @ R.T).norm()", ""),
            "not divided by ||M_r||"),
    Mistake("components of the transposed circuit", COMPONENTS, slip(component_scores, "A, B = ", "B, A = "),
            "the transposed QK: a key-side read"),
    Mistake("components through one factor", COMPONENTS, slip(component_scores, "R = torch.linalg.qr(B).R",
                                                              "R = torch.eye(B.shape[1])"),
            "this measures along one factor"),
    Mistake("singular values not squared", IDENTITY, slip(whole_from_components, "scale**2 / (scale**2)",
                                                          "scale / scale"),
            "they should be sigma_i squared"),
    Mistake("no root in the identity", IDENTITY, slip(whole_from_components, ".sqrt()", ""),
            "the square root is missing"),
    Mistake("best component", IDENTITY, the_best_component, "the best component's score"),
    Mistake("lowest first", EDGES, slip(top_edges, "-edge[0]", "edge[0]"), "these are the LOWEST scores"),
    Mistake("edges within a layer", EDGES, slip(top_edges, "range(a + 1, L)", "range(a, L)"),
            "it lists pairs within one layer"),
    Mistake("counted from 1", EDGES, slip(top_edges, "L{a}.H{b}.C{i} -> L{c}.H{d}",
                                          "L{a+1}.H{b+1}.C{i+1} -> L{c+1}.H{d+1}"),
            "are counted from 0"),
    Mistake("answers copied for one seed", EDGES, copied_for_one_seed, "in its place should be"),
    Mistake("others of all readers", AREA, all_readers, "they should have the SAME readers"),
    Mistake("ties not counted", AREA, slip(roc_area, "0.5 * ", "0.0 * "), "a tie counts half"),
    Mistake("known worse than others", AREA, slip(roc_area, "known > others", "known < others"), "1 minus the area"),
    Mistake("writers of the same layer", AREA, slip(roc_area, "range(reader[0])", "range(reader[0] + 1)"),
            "pairs within one layer"),
]


# --- 3.7 and 3.8 ------------------------------------------------------------------------------------------


def best_component(heads):
    OV = heads["W_V"] @ heads["W_O"]
    write = torch.linalg.svd(OV).Vh[:, :, :heads["W_V"].shape[3]]                   # [L, H, K, D]
    M = heads["W_Q"] @ heads["W_K"].mT
    met = torch.einsum("lhkd,mrde->lhkmre", write, M).norm(dim=5) / M.flatten(2).norm(dim=2)
    return met.amax(2)


def reader_by_writer(heads):
    return composition_table(heads, "Q").permute(2, 3, 0, 1)


STD = "(2 * (p * D - 1) / (D**2 * (D + 2)))**0.5"
MISTAKES += [
    Mistake("mean of the scores", "3.7", slip(chance_scores, "1 / D,", "D**-0.5,"), "about the mean of the scores"),
    Mistake("1 / K", "3.7", slip(chance_scores, "1 / D,", "1 / len(G),"), "1 / K"),
    Mistake("the variance", "3.7", slip(chance_scores, "**0.5", ""), "this is the variance"),
    Mistake("Gaussian vectors", "3.7", slip(chance_scores, STD, "(2 * p)**0.5 / D"), "whose length varies"),
    Mistake("mean not taken off", "3.7", slip(chance_scores, STD, "((2 * p + 1) / (D * (D + 2)))**0.5"),
            "the squared mean was not taken off"),
    Mistake("the best component", "3.8", best_component, "your score is 0."),
    Mistake("reader by writer", "3.8", reader_by_writer, "your score is 0."),
]
