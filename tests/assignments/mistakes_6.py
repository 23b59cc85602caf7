"""Wrong answers to Assignment 6, each with part of the message that its author gets."""

import copy
import inspect
from typing import Callable

import torch
from mistake import Mistake, slip
from reference_6 import (MEASURED, codes_of, edit_weights, fit, give_the_code, given, judgement, least_change,
                         perplexity, set_coordinates, share_right, what_it_broke)

import tinyheads as th


def with_helper(function: Callable, helper: Callable, right: str, wrong: str) -> str:
    """A reference function with another one of its functions wrong: inside it, so that no other exercise sees it."""
    inner = "".join(f"    {line}" for line in slip(helper, right, wrong).splitlines(keepends=True))
    head, body = inspect.getsource(function).split("\n", 1)
    return f"{head}\n{inner}\n{body}"


# --- 6.1 and 6.2 ----------------------------------------------------------------------------------------


def everywhere(x, basis, new, positions):
    return x + (new[:, :1] - x @ basis.T) @ basis


def in_place(x, basis, new, positions):
    x[:, positions] += (new - x[:, positions] @ basis.T) @ basis
    return x


def a_wider_control(model, found_on, judged_on, basis, circuit, seed):
    where, right = circuit.where, give_the_code(model, found_on, judged_on, basis, circuit, seed)
    generator = torch.Generator().manual_seed(seed)
    wide = torch.linalg.qr(torch.randn(basis.shape[1], 2 * len(basis), generator=generator)).Q.T
    codes = codes_of(model, found_on, wide, where)
    return right | {"control": wide, "control codes": codes,
                    "control after": share_right(given(model, judged_on, wide, codes[judged_on.index], where),
                                                 judged_on)}


def one_control_for_all(model, found_on, judged_on, basis, circuit, seed):
    where, right = circuit.where, give_the_code(model, found_on, judged_on, basis, circuit, 7)
    control = torch.linalg.qr(torch.randn(basis.shape[1], 5, generator=torch.Generator().manual_seed(7))).Q.T
    control = control[:len(basis)]
    codes = codes_of(model, found_on, control, where)
    return right | {"control": control, "control codes": codes,
                    "control after": share_right(given(model, judged_on, control, codes[judged_on.index], where),
                                                 judged_on)}


# --- 6.3 ------------------------------------------------------------------------------------------------


def whole_W_O(model, head, basis, M):
    report, edited = edit_weights(model, head, basis, M)[1], copy.deepcopy(model)
    W_O = edited.h[head.layer].attn.c_proj.weight
    W_O += W_O @ basis.T @ (M - torch.eye(len(M))) @ basis
    return edited, report


def the_value_weights(model, head, basis, M):
    report, edited = edit_weights(model, head, basis, M)[1], copy.deepcopy(model)
    K, D = model.config.d_head, model.config.n_embd
    columns = slice(2 * D + head.head * K, 2 * D + (head.head + 1) * K)
    W_V = edited.h[head.layer].attn.c_attn.weight[:, columns]                       # [D, K]
    W_V += basis.T @ (M - torch.eye(len(M))) @ basis @ W_V
    return edited, report


# --- 6.4 ------------------------------------------------------------------------------------------------


def by_cross_entropy(model, head, basis, codes, train, where, hold):
    M = torch.eye(len(basis), requires_grad=True)
    optimiser = torch.optim.Adam([M], lr=0.1)
    with torch.enable_grad():
        for _ in range(3):
            mixed = th.Edit(str(head), lambda write: write + (write @ basis.T) @ (M - torch.eye(len(M))) @ basis)
            logits = model(train.tokens, th.Stream(edits=[mixed]))[:, train.end]
            loss = torch.nn.functional.cross_entropy(logits.gather(1, train.candidates), train.index)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return M.detach()


def copied_for_one_seed(model, head, basis, codes, train, where, hold):
    generator = torch.Generator().manual_seed(3)
    return torch.linalg.qr(torch.randn(len(basis), len(basis), generator=generator)).Q


# --- 6.6 ------------------------------------------------------------------------------------------------


def too_short():
    return MEASURED, "It did not help."


def padded():
    return MEASURED, judgement()[1][:300] + 160 * " bla"


def the_same_again():
    return MEASURED, 12 * "The edit helped a little, and broke hardly anything at all, as far as can be told. "


def no_figures():
    import re

    return MEASURED, re.sub(r"\d+(\.\d+)?%?", "some", judgement()[1])


def invented():
    figures = {name: (before, 0.9) for name, (before, _) in MEASURED.items()} | {"perplexity": (8.2, 9.1)}
    return figures, judgement()[1] + " ".join(f"{name} {before} {after}" for name, (before, after) in figures.items())


def nothing_measured():
    return {}, judgement()[1]


def in_percent():
    return {name: tuple(100 * value for value in pair) for name, pair in MEASURED.items()}, judgement()[1]


SET, CODE, WEIGHTS, FIT, BROKEN, JUDGE = "6.1", "6.2", "6.3", "6.4", "6.5", "6.6"
CHANGE = "(M - torch.eye(len(M)))"

MISTAKES = [
    Mistake("all positions", SET, everywhere, "set at all positions"),
    Mistake("in place", SET, in_place, "changed its argument number 1 in place"),
    Mistake("added to what was there", SET, slip(set_coordinates, "(new - here @ basis.T)", "new"),
            "added to the old ones"),
    Mistake("the rest forgotten", SET, slip(set_coordinates, "here + (new - here @ basis.T)", "new"),
            "outside the subspace is gone"),
    Mistake("one position for all", SET, slip(set_coordinates, "(new -", "(new[:, :1] -"), "new[:, p] is for"),
    Mistake("found on the judged prompts", CODE, slip(give_the_code, "    generator =",
            "    found_on = judged_on\n    generator ="), "find on found_on, judge on judged_on"),
    Mistake("a wider control", CODE, a_wider_control, "must be of the same width"),
    Mistake("the subspace is its own control", CODE, slip(give_the_code, "codes, others =",
            "control = basis\n    codes, others ="), "shares a direction with the subspace"),
    Mistake("the same control for every seed", CODE, one_control_for_all, "two seeds gave the same control"),
    Mistake("set everywhere", CODE, with_helper(give_the_code, given, "prompts.end)",
            "list(range(prompts.tokens.shape[1])))"), "set them at END alone"),
    Mistake("behind the LayerNorm", CODE, with_helper(give_the_code, codes_of, "stream_at_end(model, prompts, where)",
            "(lambda s: (model(prompts.tokens, s), s.reads[where][:, prompts.end])[1])(th.Stream(record=True))"),
            "behind the LayerNorm"),
    Mistake("the place behind", CODE, slip(give_the_code, "codes[judged_on.index]",
            "codes[(judged_on.index + 1) % len(codes)]"), "the place behind (off by one)"),
    Mistake("the model handed in is edited", WEIGHTS, slip(edit_weights, "copy.deepcopy(model)", "model"),
            "changed its argument number 1 in place"),
    Mistake("M for M - 1", WEIGHTS, slip(edit_weights, CHANGE, "M"), "it is M - 1 (the identity), not M"),
    Mistake("1 from every entry", WEIGHTS, slip(edit_weights, CHANGE, "(M - 1)"), "subtracted 1 from every entry"),
    Mistake("M transposed", WEIGHTS, slip(edit_weights, CHANGE, "(M.T - torch.eye(len(M)))"), "M is transposed"),
    Mistake("all heads of the layer", WEIGHTS, whole_W_O, "the W_O of all heads of the layer was changed"),
    Mistake("the values in place of the output", WEIGHTS, the_value_weights, "c_attn.weight was changed"),
    Mistake("the rank is k", WEIGHTS, slip(edit_weights, "head, rank, size", "head, len(M), size"),
            "the width k of the subspace"),
    Mistake("factors of M - 1", WEIGHTS, slip(edit_weights, "svdvals(M)", "svdvals(M - torch.eye(len(M)))"),
            "singular values of M - 1"),
    Mistake("M - 1 returned", FIT, slip(fit, "return torch.eye(k) +", "return"), "this is M - 1"),
    Mistake("M @ c", FIT, slip(fit, ".solution", ".solution.T"), "M is transposed"),
    Mistake("hold forgotten", FIT, slip(fit, "    left =", "    hold = 0.0\n    left ="), "`hold` was left out"),
    Mistake("summed over the prompts", FIT, slip(fit, "k, B = len(basis), len(own)", "k, B = len(basis), 1"),
            "the errors were summed"),
    Mistake("held near 0", FIT, slip(fit, "torch.zeros(k, k)", "-hold**0.5 * torch.eye(k)"), "you held M near 0"),
    Mistake("what others write forgotten", FIT, slip(fit, "[train.index] - stream", "[train.index] - own"),
            "what others wrote, too"),
    Mistake("by cross-entropy", FIT, by_cross_entropy, "a descent stopped too early, or another quantity"),
    Mistake("answers copied for one seed", FIT, copied_for_one_seed, "of unseen prompts rightly, with your M"),
    Mistake("without exp", BROKEN, with_helper(what_it_broke, perplexity, ".exp()", ""), "perplexity is its exp"),
    Mistake("sum for mean", BROKEN, with_helper(what_it_broke, perplexity, ".mean()", ".sum()"),
            "is it the exp of the sum over all tokens"),
    Mistake("its own token", BROKEN, with_helper(what_it_broke, perplexity, "text[:, 1:, None]", "text[:, :-1, None]"),
            "at its own position (off by one)"),
    Mistake("a mean of perplexities", BROKEN, with_helper(what_it_broke, perplexity, ".mean()).exp()",
            ".squeeze(2).mean(1)).exp().mean()"), "the mean of the texts' perplexities"),
    Mistake("before and after exchanged", BROKEN, slip(what_it_broke, "found = {",
            "model, edited = edited, model\n    found = {"), "the pair is (before, after)"),
    Mistake("the edited model is not asked", BROKEN, slip(what_it_broke, "found = {", "edited = model\n    found = {"),
            "before the edit"),
    Mistake("too short", JUDGE, too_short, "the judgement has 4 words"),
    Mistake("padded", JUDGE, padded, "different words; 70 are the fewest"),
    Mistake("one sentence again and again", JUDGE, the_same_again, "a sentence that is said twice counts once"),
    Mistake("no figures", JUDGE, no_figures, "it does not quote lists of 5"),
    Mistake("invented figures", JUDGE, invented, "is not what your own functions measure"),
    Mistake("nothing measured", JUDGE, nothing_measured, "MEASURED is empty"),
    Mistake("measured in percent", JUDGE, in_percent, "an accuracy lies from 0 to 1"),
]


# --- 6.7 and 6.8 ------------------------------------------------------------------------------------------


def inside_the_subspace_alone(model, circuit, basis, train, text, bound):
    head, K = circuit.inhibition[0], model.config.d_head
    codes = th.traversed_codes(model, train.first(20), circuit, basis, th.mean_codes(model, train, circuit, basis))
    M = fit(model, head, basis, codes, train, circuit.where, 0.01)
    W_O = model.h[head.layer].attn.c_proj.weight[head.head * K:(head.head + 1) * K]
    return W_O + W_O @ basis.T @ (M - torch.eye(len(M))) @ basis


def the_whole_matrix(model, circuit, basis, train, text, bound):
    return model.h[0].attn.c_proj.weight


SOLVED = "z.T @ torch.linalg.solve(gram, wanted) @ basis"
MISTAKES += [
    Mistake("hold forgotten", "6.7", slip(least_change, SOLVED, "torch.linalg.pinv(z) @ wanted @ basis"),
            "was left out"),
    Mistake("averaged", "6.7", slip(least_change, "hold *", "len(z) * hold *"), "averaged over the n vectors"),
    Mistake("no inverse", "6.7", slip(least_change, "torch.linalg.solve(gram, wanted)", "wanted"),
            "the inverse of z z^T + hold is missing"),
    Mistake("not in the subspace", "6.7", slip(least_change, "wanted) @ basis", "wanted)"), "the change of W_O is of"),
    Mistake("inside the subspace alone", "6.8", inside_the_subspace_alone, "your score is 0."),
    Mistake("the whole matrix", "6.8", the_whole_matrix, "the new W_O is of shape [64, 64]"),
]
