"""What assignments 5 and 6 both ask about: each place's code in a subspace, and runs in which END is given a code."""

import torch
from torch import Tensor

import tinyheads as th


def put(x: Tensor, positions: int | list[int], value: Tensor) -> Tensor:
    """A copy of x [B, T, D] with other vectors at one position [B, D], or at several [B, P, D]."""
    x = x.clone()
    x[:, positions] = value
    return x


@torch.no_grad()
def logits_with(model, prompts, basis, values, circuit, of="stream", positions=None,
                change=th.set_coordinates) -> Tensor:
    """The logits at END [B, V] with its coordinates set to values [B, k], or with one thing done differently."""
    function = change(basis, values, prompts.end if positions is None else positions)
    return model(prompts.tokens, th.Stream(edits=[th.Edit(circuit.where, function, of=of)]))[:, prompts.end]


def candidates_with(model, prompts, *rest, **options) -> Tensor:
    """The same, the list's items alone: [B, N]."""
    return logits_with(model, prompts, *rest, **options).gather(1, prompts.candidates)


@torch.no_grad()
def code_mistakes(model, found_on, used_on, basis, other, circuit, if_found_on_used: str) -> list:
    """Of the codes [N, k] in `basis`. other: the other subspace; if_found_on_used: what to say if used_on gave them."""
    where, before, read = circuit.where, [], []
    at_end = th.coordinates(th.stream_at_end(model, found_on, where), basis)                        # [B, k]
    looks = [th.Edit(where, lambda x: before.append(x[:, found_on.end - 1]) or x, of="stream"),
             th.Edit(where, lambda x: read.append(x[:, found_on.end]) or x, of="reads")]
    model(found_on.tokens, th.Stream(edits=looks))
    right = th.mean_codes(model, found_on, circuit, basis)                                          # [N, k]
    return [
        (lambda: th.mean_codes(model, used_on, circuit, basis), if_found_on_used),
        (lambda: th.mean_codes(model, found_on, circuit, other),
         "these are the codes in the other subspace; each has its own, found in the same way"),
        (th.by_index(before[0] @ basis.T, found_on), "they are of the position before END (off by one)"),
        (th.by_index(read[0] @ basis.T, found_on),
         "they are of the read, behind the LayerNorm; take the stream before it: of=\"stream\""),
        (at_end.mean(0).expand(len(right), -1),
         "all rows are alike: average over the prompts of each place, not over all"),
        (right - right.mean(0),
         "the mean of the codes was taken out; coordinates that are set must be those that occur")]
