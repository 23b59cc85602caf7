"""What well-known mistakes in assignment 6 would give, and what to tell their authors. Pairs (answer, message)."""

import torch
import torch.nn.functional as F
from torch import Tensor

import tinyheads as th
from grader.codes import candidates_with, code_mistakes, put


# --- 6.1 ------------------------------------------------------------------------------------------------


def right_setting(x: Tensor, basis: Tensor, new: Tensor, positions: list[int]) -> Tensor:
    outside = torch.eye(x.shape[-1]) - basis.T @ basis                              # [D, D]
    return put(x, positions, x[:, positions] @ outside + new @ basis)


def setting(x: Tensor, basis: Tensor, new: Tensor, positions: list[int]) -> list:
    here, T = x[:, positions], x.shape[1]                                           # [B, P, D]
    c = here @ basis.T                                                              # [B, P, k]
    first = new[:, :1]                                                              # [B, 1, k]
    changed = lambda by: put(x, positions, here + by @ basis)
    return [
        (x, "x came back as it was"),
        (changed(new), "the new coordinates were added to the old ones: subtract the old ones first"),
        (put(x, positions, new @ basis), "all that lies outside the subspace is gone: x + (new - c) basis keeps it"),
        (changed(-c), "the old part was taken out, and nothing put in its place"),
        (changed(c - new), "the difference was subtracted; it should be added"),
        (changed(new.flip(1) - c), "position positions[p] should get new[:, p]; yours are in another order"),
        (changed(new[:1] - c), "all prompts got the first one's values; new[b] is for prompt b"),
        (changed(new.mean(0) - c), "all prompts got the same values; new[b] is for prompt b"),
        (changed(first - c), "all positions got the first one's values; new[:, p] is for positions[p]"),
        (right_setting(x, basis, first, positions[:1]), "only the first of the positions was changed"),
        (x + (first - x @ basis.T) @ basis,
         "the coordinates were set at all positions; only those named are asked for"),
        (right_setting(x, basis, new, [max(p - 1, 0) for p in positions]), "one position too early (off by one)"),
        (right_setting(x, basis, new, [min(p + 1, T - 1) for p in positions]), "one position too late (off by one)")]


# --- 6.2 ------------------------------------------------------------------------------------------------


def codes(model, found_on, judged_on, basis, other, circuit) -> list:
    return code_mistakes(model, found_on, judged_on, basis, other, circuit,
                         "they are found on judged_on: find on found_on, judge on judged_on, or you grade your own "
                         "memory")


def rate(logits: Tensor, prompts) -> float:
    return (logits.argmax(1) == prompts.index).double().mean().item()


def logits(model, judged_on, basis, own, other, others, circuit) -> list:
    """Of the logits with the codes `own` [N, k] given in `basis`; other, others: the other subspace and its codes."""
    index = judged_on.index
    args, values = (model, judged_on, basis), own[index]
    T = judged_on.tokens.shape[1]
    return [
        (lambda: candidates_with(*args, values, circuit, change=lambda *rest: lambda x: x),
         "they are those of the untouched model: was the edit in the run?"),
        (lambda: candidates_with(*args, values, circuit, positions=list(range(T))),
         "the coordinates were set at all positions; set them at END alone"),
        (lambda: candidates_with(*args, values, circuit, positions=judged_on.end - 1),
         "the coordinates were set at the position before END (off by one)"),
        (lambda: candidates_with(*args, values, circuit, of="reads"),
         "the read was changed (behind its LayerNorm); change the stream: of=\"stream\""),
        (lambda: candidates_with(*args, values, circuit, change=th.add_coordinates),
         "the codes were added to the coordinates; set the coordinates to them"),
        (lambda: candidates_with(model, judged_on, other, others[index], circuit),
         "they are those of the other subspace"),
        (lambda: candidates_with(*args, others[index], circuit),
         "the other subspace's codes were set; each subspace has its own"),
        (lambda: candidates_with(*args, own[(index + 1) % len(own)], circuit),
         "END got the code of the place behind (off by one)"),
        (lambda: candidates_with(*args, th.mean_codes(model, judged_on, circuit, basis)[index], circuit),
         "the codes were found on judged_on; find them on found_on")]


def rates(model, judged_on, *others) -> list:
    """The same mistakes, of the accuracy."""
    made = [(lambda wrong=wrong: rate(wrong(), judged_on), message)
            for wrong, message in logits(model, judged_on, *others)]
    basis, own, circuit = others[0], others[1], others[-1]
    right = lambda: rate(candidates_with(model, judged_on, basis, own[judged_on.index], circuit), judged_on)
    return [*made, (lambda: 100 * right(), "this is in percent; give a share, from 0 to 1"),
            (lambda: len(judged_on.index) * right(), "this is a number of prompts; give their share, from 0 to 1")]


# --- 6.3 ------------------------------------------------------------------------------------------------


def weights(weight: Tensor, head: th.Head, K: int, basis: Tensor, M: Tensor) -> list:
    """Of c_proj.weight [H * K, D], K rows a head."""
    H, one = weight.shape[1] // K, torch.eye(len(basis))
    rows = lambda h: slice(h % H * K, h % H * K + K)

    def with_rows(new, place=rows(head.head)):
        out = weight.clone()
        out[place] = new
        return out

    W_O = weight[rows(head.head)]                                                   # [K, D]
    inside = W_O @ basis.T                                                          # [K, k]
    moved = lambda factor: W_O + inside @ factor @ basis
    columns = weight.clone()
    W_columns = weight[:, rows(head.head)].T                                        # [K, D]
    columns[:, rows(head.head)] = (W_columns + W_columns @ basis.T @ (M - one) @ basis).T
    next_W = weight[rows(head.head + 1)]
    strided = weight.clone()
    W_strided = weight[head.head::H]
    strided[head.head::H] = W_strided + W_strided @ basis.T @ (M - one) @ basis
    return [
        (weight, "W_O is what it was: nothing was edited"),
        (with_rows(moved(M)),
         "you added M's part without taking the old one out: it is M - 1 (the identity), not M"),
        (with_rows(moved(M - 1)), "the 1 in M - 1 is the identity matrix; you subtracted 1 from every entry"),
        (with_rows(moved((M - one).T)), "M is transposed: c is a row, and becomes c @ M, not M @ c"),
        (with_rows(moved(one - M)), "the sign of the change is the opposite: M - 1, not 1 - M"),
        (with_rows(inside @ M @ basis), "all that the head writes outside the subspace is gone"),
        (with_rows(inside @ (M - one) @ basis), "W_O was replaced by the change; add the change to it"),
        (weight + weight @ basis.T @ (M - one) @ basis,
         "the W_O of all heads of the layer was changed; only this head's K rows are asked for"),
        (columns, "you took the head's columns of c_proj.weight; here it is stored [in, out]: a head has K rows of it"),
        (with_rows(next_W + next_W @ basis.T @ (M - one) @ basis, rows(head.head + 1)),
         "this is the head behind it (off by one); heads count from 0"),
        (strided, "you took every H-th row; a head's K rows stand together")]


def report_of(W_O: Tensor, all_W_O: Tensor, change: Tensor, M: Tensor) -> dict:
    """Mistakes in each entry of the report: W_O [K, D] of the head, all_W_O [D, D], change [K, D]."""
    size, one = change.norm(), torch.eye(len(M))
    return {
        "rank": [(len(M), "this is the width k of the subspace; the change's rank is that of M - 1, which may be less"),
                 (min(W_O.shape), "this is the rank of W_O; take the change's")],
        "relative_norm": [
            (size / all_W_O.norm(), "it is relative to the W_O of all heads; take this head's K rows"),
            (size, "this is the change's norm itself; divide by that of W_O"),
            (size**2 / W_O.norm()**2, "this is the square: a Frobenius norm is the root of the sum of squares"),
            (size / (W_O + change).norm(),
             "it is relative to W_O as edited; take W_O as it was (edited in place before?)"),
            ((W_O + change).norm() / W_O.norm(), "this is the norm of W_O as edited; take the change's"),
            (torch.linalg.matrix_norm(change, 2) / torch.linalg.matrix_norm(W_O, 2),
             "this is the ratio of the largest singular values; take Frobenius norms")],
        "factors": [
            (torch.linalg.svdvals(M - one), "these are the singular values of M - 1; take those of M"),
            (torch.linalg.svdvals(M).flip(0), "the smallest comes first; the largest should"),
            (torch.linalg.eigvals(M).abs().sort(descending=True).values,
             "these are eigenvalues; take singular values (torch.linalg.svdvals)"),
            (torch.linalg.svdvals(M)**2, "these are their squares: the eigenvalues of M M^T"),
            (torch.linalg.svdvals(change)[:len(M)], "these are the singular values of the change; take those of M")]}


# --- 6.4 ------------------------------------------------------------------------------------------------


def best(c: Tensor, stream: Tensor, target: Tensor, hold: float) -> Tensor:
    """The closed form: the minimum of mean |stream + c (M - 1) - target|^2 + hold |M - 1|^2."""
    one = torch.eye(c.shape[1])
    return one + torch.linalg.solve(c.T @ c / len(c) + hold * one, c.T @ (target - stream) / len(c))


def quantity(M: Tensor, c: Tensor, stream: Tensor, target: Tensor, hold: float) -> float:
    """What `best` makes least."""
    change = M - torch.eye(len(M))
    return ((stream + c @ change - target).pow(2).sum(1).mean() + hold * change.pow(2).sum()).item()


def coordinates_at(model, train, head, basis, where) -> tuple[Tensor, Tensor]:
    """What the head writes at END [B, k], and the stream there before `where` [B, k]."""
    stream = th.Stream(record=True)
    with torch.no_grad():
        model(train.tokens, stream)
    return stream.writes[str(head)][:, train.end] @ basis.T, th.stream_at_end(model, train, where) @ basis.T


def fits(model, head, basis, codes, train, where, hold) -> list:
    c, stream = coordinates_at(model, train, head, basis, where)
    target, one, B = codes[train.index], torch.eye(len(basis)), len(c)
    right = best(c, stream, target, hold)
    shrunk = torch.linalg.solve(c.T @ c / B + hold * one, c.T @ (target - (stream - c)) / B)
    return [
        (one, "M is the identity: nothing was fitted"),
        (right - one, "this is M - 1; add the identity (c becomes c @ M)"),
        (right.T, "M is transposed: c is a row, and becomes c @ M"),
        (shrunk, "you held M near 0; hold M near the identity: hold |M - 1|^2"),
        (best(c, stream, target, hold / B),
         "the errors were summed over the prompts, so that `hold` counts B times too little; take their mean"),
        (best(c, stream, target, hold * len(one)),
         "you took the mean over the k coordinates, too; |.|^2 is a sum over them, and its mean is over the prompts"),
        (best(c, stream, target, hold / len(one)**2),
         "you took the mean of (M - 1)^2; |M - 1|^2 is a sum over its entries"),
        (best(c, stream, target, hold / len(one)),
         "you took means over the k coordinates (mse_loss?); both |.|^2 are sums"),
        (best(c, stream, target, 0.0), "`hold` was left out: this is the fit with hold = 0"),
        (best(c, c, target, hold),
         "the head's own write was fitted to the code; the stream holds what others wrote, too: "
         "only the difference between the code and the stream is left to this head"),
        (best(stream, stream, target, hold),
         "M was fitted to the stream's coordinates; it acts on the head's write alone")]


# --- 6.5 ------------------------------------------------------------------------------------------------


@torch.no_grad()
def accuracies(model, edited, prompts, which: int) -> list:
    """Of one task's accuracy. which: 0 before, 1 after."""
    models = (model, edited)
    logits = models[which](prompts.tokens)                                          # [B, T, V]
    at_end, B = logits[:, prompts.end], len(prompts.tokens)
    among = at_end.gather(1, prompts.candidates)
    right = th.accuracy(models[which], prompts)
    earlier = logits[:, prompts.end - 1].gather(1, prompts.candidates)
    return [
        (th.accuracy(models[1 - which], prompts),
         f"this is the accuracy {('after', 'before')[which]} the edit: the pair is (before, after)"),
        ((at_end.argmax(1) == prompts.answer).double().mean(),
         "you took the argmax over the vocabulary; the answer is the candidate with the largest logit"),
        ((among.argmax(1) == prompts.answer).double().mean(),
         "a place among the candidates was compared with a token id; compare with prompts.index"),
        ((earlier.argmax(1) == prompts.index).double().mean(), "this is read at the position before END (off by one)"),
        (among.softmax(1).gather(1, prompts.index[:, None]).mean().double(),
         "this is the mean probability of the answer; accuracy counts right answers"),
        (100 * right, "this is in percent; give a share, from 0 to 1"),
        (B * right, "this is a number of prompts; give their share, from 0 to 1"),
        (1 - right, "this is the share of wrong answers; give that of right ones")]


@torch.no_grad()
def perplexities(model, edited, text: Tensor, which: int) -> list:
    """Of the text's perplexity. which: 0 before, 1 after."""
    logits = (model, edited)[which](text)                                           # [B, T, V]
    losses = lambda x, y: F.cross_entropy(x.flatten(0, 1), y.flatten(), reduction="none").view(y.shape).double()
    right = losses(logits[:, :-1], text[:, 1:])                                     # [B, T - 1]
    other = losses((edited, model)[which](text)[:, :-1], text[:, 1:])
    return [
        (other.mean().exp(), f"this is that {('after', 'before')[which]} the edit: the pair is (before, after)"),
        (right.mean(), "this is the mean cross-entropy; perplexity is its exp"),
        (right.sum(), "this is the sum of the cross-entropies; perplexity is the exp of their mean"),
        (right.sum(1).mean().exp(), "this is the exp of a text's whole cross-entropy; take the mean over its "
         "tokens, too"),
        (right.mean(1).exp().mean(),
         "this is the mean of the texts' perplexities; take the exp once, of the mean over all tokens"),
        (right.exp().mean(), "this is the mean of exp(cross-entropy); take the exp once, of the mean"),
        (2 ** right.mean(), "you raised 2 to it; torch's cross-entropy is in nats, so take exp"),
        (losses(logits[:, :-1], text[:, :-1]).mean().exp(),
         "each token was scored by the logits at its own position (off by one): position t predicts token t + 1"),
        (losses(logits, text).mean().exp(),
         "each token was scored by the logits at its own position (off by one): position t predicts token t + 1"),
        (losses(logits[:, :-2], text[:, 2:]).mean().exp(), "position t was scored on token t + 2 (off by one)"),
        (losses(logits[:, 1:], text[:, :-1]).mean().exp(),
         "position t was scored on the token before it; it predicts token t + 1"),
        (losses(logits, text.roll(-1, 1)).mean().exp(),
         "the last position was scored on the first token (roll); nothing follows it: leave it out"),
        (right[:, -1].mean().exp(), "only the last token was scored; take all that have one before them")]
