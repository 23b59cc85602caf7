"""What answers to assignment 5 are after well-known mistakes, and what to say of each: (value or function, message)."""

import torch
from torch import Tensor

import tinyheads as th
from grader.codes import candidates_with, code_mistakes, logits_with, put


# --- 5.1 ------------------------------------------------------------------------------------------------


def writes_of(model, prompts, writers) -> Tensor:
    """The heads' writes at all positions: [W, B, T, D]."""
    stream = th.Stream(record=True)
    model(prompts.tokens, stream)
    return torch.stack([stream.writes[str(writer)] for writer in writers])


def centred(rows: Tensor) -> Tensor:
    return rows - rows.mean(-1, keepdim=True)


def mean_write(model, prompts, writers) -> list:
    writes = writes_of(model, prompts, writers)                                     # [W, B, T, D]
    at_end = writes[:, :, prompts.end]                                              # [W, B, D]
    right = th.by_index(centred(at_end.sum(0)), prompts)                               # [N, D]
    counts = torch.bincount(prompts.index)[:, None]                                 # [N, 1]
    B, W, N = len(prompts.tokens), len(writers), len(right)
    off = "the rows are of the position before END (off by one): END is prompts.end itself"
    return [
        (th.by_index(at_end.sum(0), prompts), "the mean over D was not taken out of the writes"),
        (right - right.mean(0),
         "the mean over the places was taken out, too; that is for the principal components to do"),
        (th.by_index(at_end.sum(0), prompts) - th.by_index(at_end.sum(0), prompts).mean(0),
         "you took out the mean over the places (axis 0); here it is the mean over D (the last axis)"),
        (th.by_index(at_end.sum(0) - at_end.sum(0).mean(0), prompts),
         "you took out the mean over the prompts (axis 0); it should be the mean over D (the last axis)"),
        (th.by_index(centred(writes[:, :, prompts.end - 1].sum(0)), prompts), off),
        (th.by_index(centred(writes.mean(2).sum(0)), prompts),
         "the writes were averaged over all positions; only END's count"),
        (th.by_index(centred(writes.sum((0, 2))), prompts),
         "the writes were summed over all positions; only END's count"),
        (right / W, f"it is the mean of the {W} heads' writes; they add up in the stream, so take their sum"),
        (th.by_index(centred(at_end[0]), prompts), "only the first head's write is in it; sum over all writers"),
        (th.by_index(centred(at_end[-1]), prompts), "only the last head's write is in it; sum over all writers"),
        (right * counts, "you summed over the prompts of each place, without dividing by how many there are"),
        (right * counts / B, "each sum was divided by all B prompts; divide by the number of prompts with that place"),
        (right * counts * N / B, "each sum was divided by B / N; the places do not all occur equally often"),
        (right.mean(0).expand(N, -1), "all rows are alike: the mean is over all prompts, not over those of each place")]


# --- 5.2 ------------------------------------------------------------------------------------------------


def components(means: Tensor, k: int) -> list:
    U, S, Vh = torch.linalg.svd(means - means.mean(0), full_matrices=False)
    raw = torch.linalg.svd(means, full_matrices=False).Vh[:k]
    wrong_axis = torch.linalg.svd(means - means.mean(1, keepdim=True), full_matrices=False).Vh[:k]
    return [(raw,
             "the means were not centred: subtract the mean of the N rows first, or the first direction is that mean"),
            (wrong_axis, "the means were centred along D (axis 1); subtract the mean of the N rows (axis 0)"),
            (S[:k, None] * Vh[:k], "the rows are scaled by the singular values; a basis has rows of length 1"),
            (Vh[len(means) - 1 - k:len(means) - 1].flip(0),
             "these are the directions of smallest variance; take the largest "
             "(torch.linalg.eigh sorts upwards)"),
            (Vh[len(means) - 1 - k:len(means) - 1], "these are the directions of smallest variance; take the largest "
             "(torch.linalg.eigh sorts upwards)"),
            (Vh[:k].flip(0), "the directions are the right ones in the reverse order; the strongest comes first")]


# --- 5.3 ------------------------------------------------------------------------------------------------


def angles(first: Tensor, second: Tensor) -> list:
    right = th.principal_angles(first, second)                                # degrees, float64
    cosines = torch.linalg.svdvals(first.double() @ second.double().T)
    k = len(right)
    rows = (first[:k] * second[:k]).sum(1).double().clamp(-1, 1)
    product = (first.double() @ second.double().T)[:k, :k]
    degrees = lambda c: torch.rad2deg(torch.arccos(c.clamp(-1, 1)))
    return [(torch.deg2rad(right), "these are radians; give degrees (torch.rad2deg)"),
            (cosines, "these are the cosines; take their arccos, in degrees"),
            (degrees(rows),
             "these are angles between row i and row i; another basis of the same subspaces would give others. "
             "Take the singular values of A B^T"),
            (degrees(rows).sort().values,
             "these are angles between row i and row i; take the singular values of A B^T"),
            (degrees(product.diagonal()), "this is the diagonal of A B^T; take its singular values"),
            (degrees(product.amax(1)), "these are the largest entries of A B^T; take its singular values"),
            (right.flip(0), "the largest angle comes first; the smallest should"),
            (90 - right, "you took the arcsin; the singular values are cosines"),
            ((90 - right).flip(0), "you took the arcsin; the singular values are cosines"),
            (degrees(cosines**2), "you took the eigenvalues of A B^T B A^T: the squares of the cosines")]


# --- 5.4 ------------------------------------------------------------------------------------------------


def setting(x: Tensor, basis: Tensor, values: Tensor, position: int) -> list:
    here = x[:, position]                                                           # [B, D]
    every = x + (values[:, None] - x @ basis.T) @ basis
    first = th.set_coordinates(basis, values, max(position - 1, 0))(x)
    pairs = [
        (x, "x came back as it was"),
        (put(x, position, here + values @ basis),
         "the new coordinates were added to the old ones: subtract the old part first"),
        (put(x, position, values @ basis),
         "all that lies outside the subspace is gone: x -> x + (new - c) basis keeps it"),
        (put(x, position, here - here @ basis.T @ basis), "the old part was taken out, and nothing put in its place"),
        (put(x, position, here - (values - here @ basis.T) @ basis),
         "the difference was subtracted; it should be added"),
        (every, "the coordinates were set at all positions; only one is asked for"),
        (first, "the coordinates were set one position too early (off by one)"),
        (put(x, position, here + (values.mean(0) - here @ basis.T) @ basis),
         "all prompts got the same values; values[b] is for prompt b"),
        (put(x, position, here + (values[0] - here @ basis.T) @ basis),
         "all prompts got the first one's values; values[b] is for prompt b"),
        (put(x, position, here + (values - (here @ basis.T).mean(0)) @ basis),
         "the mean of the old coordinates was subtracted; each prompt has its own")]
    if position + 1 < x.shape[1]:
        pairs.append((th.set_coordinates(basis, values, position + 1)(x),
                      "the coordinates were set one position too late (off by one)"))
    return pairs


# --- 5.5 and 5.6 -----------------------------------------------------------------------------------------


def attention_at(model, prompts, basis, points, circuit, reader=None, of="stream", position=None, places=None,
                 query=None, change=th.set_coordinates) -> Tensor:
    """The mover's attention to some places at each point, with one thing or another done differently: [G, M]."""
    reader = circuit.movers[0] if reader is None else reader
    places = prompts.positions if places is None else places
    rows = []
    for point in points:
        function = change(basis, point, prompts.end if position is None else position)
        stream = th.Stream(record=True, edits=[th.Edit(circuit.where, function, of=of)])
        model(prompts.tokens, stream)
        pattern = stream.patterns[f"L{reader.layer}"][:, reader.head]               # [B, T, T]
        at = pattern.mean(1) if query == "all" else pattern[:, prompts.end if query is None else query]
        rows.append(at.gather(1, places).mean(0))
    return torch.stack(rows)


def traversal(model, prompts, basis, points, circuit) -> list:
    args, reader = (model, prompts, basis, points, circuit), circuit.movers[0]
    average = th.stream_at_end(model, prompts, circuit.where).mean(0) @ basis.T     # [k]
    N, T, H = prompts.positions.shape[1], prompts.tokens.shape[1], model.config.n_head
    B = len(prompts.tokens)
    return [
        (lambda: attention_at(*args, places=torch.arange(N).expand(B, N)),
         "you used places in the list as if they were token positions; item i of prompt b stands at positions[b, i]"),
        (lambda: attention_at(*args, places=(prompts.positions + 1).clamp(max=T - 1)),
         "you looked one position behind each item (off by one)"),
        (lambda: attention_at(*args, of="reads"),
         "the read was changed (behind its LayerNorm); change the stream: of=\"stream\""),
        (lambda: attention_at(*args, position=list(range(T))),
         "the coordinates were set at all positions; set them at END alone"),
        (lambda: attention_at(*args, position=prompts.end - 1),
         "the coordinates were set at the position before END (off by one)"),
        (lambda: attention_at(*args, change=th.add_coordinates),
         "the points were added to the coordinates; set the coordinates to them"),
        (lambda: attention_at(*args, query=prompts.end - 1),
         "this is where the position before END looks (off by one)"),
        (lambda: attention_at(*args, query="all"),
         "the attention was averaged over all query positions; only END's row counts"),
        (lambda: attention_at(*args, reader=th.Head(reader.layer, (reader.head + 1) % H)),
         "this is the head behind the reader; heads count from 0"),
        (lambda: attention_at(*args[:3], average.expand_as(points), circuit),
         "every point has the same attention: the mean coordinates were set, not the points"),
        (lambda: attention_at(*args, change=lambda *rest: lambda x: x),
         "every point has the same attention, that of a run without an edit"),
        (lambda: B * attention_at(*args), "you summed over the prompts; take their mean")]


def rate(model, prompts, basis, values, circuit, hit) -> float:
    """How often hit(logits among the candidates [B, N]) is true once END's coordinates are `values`."""
    return hit(candidates_with(model, prompts, basis, values, circuit)).double().mean().item()


def rates(model, found_on, tested_on, basis, control, circuit, target) -> list:
    """Of the rate in `basis`; of the control's rate with the two subspaces exchanged."""
    codes = th.mean_codes(model, found_on, circuit, basis)
    B = len(tested_on.tokens)
    own = th.mean_codes(model, tested_on, circuit, basis)
    hit = lambda among: among.argmax(1) == target
    right_answer = lambda among: among.argmax(1) == tested_on.index
    return [
        (lambda: rate(model, tested_on, basis, codes[target], circuit, right_answer),
         "you counted how often the model gives the list's own right answer; count the item at the target"),
        (lambda: rate(model, tested_on, basis, codes[tested_on.index], circuit, right_answer),
         "END got the code of the right answer; it should get that of the random target"),
        (lambda: rate(model, tested_on, basis, own[target], circuit, hit),
         "the codes were found on the prompts that they are tested on"),
        (lambda: rate(model, tested_on, basis, codes[target], circuit, lambda among: among.softmax(1).amax(1) > 0.5),
         "you counted how sure the model is; count how often it answers with the item at the target"),
        (lambda: hit(logits_with(model, tested_on, basis, codes[target], circuit)).double().mean().item(),
         "a token id (argmax over the vocabulary) was compared with a place: take the argmax over the candidates"),
        (lambda: hit(model(tested_on.tokens)[:, tested_on.end].gather(1, tested_on.candidates)).double().mean().item(),
         "the run was without an edit"),
        (lambda: rate(model, tested_on, control, th.mean_codes(model, found_on, circuit, control)[target], circuit,
                      hit),
         "this is the rate in the other subspace: that in `basis` comes first, the control's last"),
        (lambda: B * rate(model, tested_on, basis, codes[target], circuit, hit),
         "this is a number of prompts; give their share, from 0 to 1")]


def codes(model, found_on, tested_on, basis, other, circuit) -> list:
    return code_mistakes(model, found_on, tested_on, basis, other, circuit,
                         "they are found on tested_on: fit on found_on, test on tested_on")
