"""Changing weights along a subspace for good: what should a head write there, so that later heads read it rightly?

A head's W_O is followed by a small matrix M [k, k] inside the subspace, so that the coordinates c of whatever the head
writes there become c @ M, for every prompt, and nothing else changes:

    W_O  ->  W_O + (W_O basis^T) (M - 1) basis              a change of rank k at most

M, k x k numbers a head, is fitted on a few hundred prompts with known answers. Everything else is frozen:

    loss = cross-entropy of the answer among the candidates, on what should get better
         + `hold` * KL divergence from the model as it was, on what should stay as it is

While M is fitted it acts in the stream, as an `Edit` of each head's write, so that gradients reach it; then it
is put into the weights by `edit_output`, which does the same for every prompt. No answer is given any more.
Axes: B prompt, T position, V vocabulary, D d_model, k dimension of the subspace.
"""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from tinyheads.basis import check_basis, coordinates, following
from tinyheads.circuit import Circuit
from tinyheads.errors import InputError, SubspaceError, TaskError
from tinyheads.files.progress import Progress
from tinyheads.heads import Head, at_least_float32, check_place
from tinyheads.last_token import logits_with_edits
from tinyheads.model import GPT2
from tinyheads.prompts import Prompts
from tinyheads.stream import Edit, Stream
from tinyheads.upper_layers import Below, run_above, run_below


@dataclass(frozen=True)
class WeightEdit:
    """What a change of one head's W_O was: its rank, its size relative to W_O, and the factors in the subspace.

    relative_norm: ||change||_F / ||W_O||_F; factors: singular values of M [k]: 1 leaves a direction as it was.
    """

    head: Head
    rank: int
    relative_norm: float
    factors: tuple[float, ...]

    def __str__(self) -> str:
        factors = ", ".join(f"{factor:.2f}" for factor in self.factors)
        return f"{self.head}: rank {self.rank}, {self.relative_norm:.1%} of W_O's norm, factors {factors}"


def change_inside(x: Tensor, basis: Tensor, M: Tensor) -> Tensor:
    """What x [..., D] must change by for its coordinates c in the subspace to become c @ M: [..., D].

    A row vector times M: M[i, j] is how much of coordinate i goes into coordinate j.
    """
    c = coordinates(x, basis)                                                  # [..., k]
    M = M.to(c)
    return c @ (M - torch.eye(len(M)).to(M)) @ following(basis, x)             # [..., k] @ [k, k] @ [k, D]


def output_weights(model: GPT2, head: Head) -> Tensor:
    """A head's W_O [K, D]: a view of the model's weights, which changes with them."""
    K = model.config.d_head
    return model.h[head.layer].attn.c_proj.weight[head.head * K:(head.head + 1) * K]


@torch.inference_mode()
def edit_output(model: GPT2, head: Head, basis: Tensor, M: Tensor) -> WeightEdit:
    """Change what a head writes inside a subspace: coordinates c become c @ M. Changes the model in place.

    basis: [k, D]; M: [k, k], coordinate by new coordinate. W_O [K, D] of the head becomes
    W_O + (W_O basis^T) (M - 1) basis, computed in float32 at least and rounded once to the model's dtype.
    Raises SubspaceError, HeadError.
    """
    check_place(head.layer, head.head, model.config.n_layer, model.config.n_head)
    check_basis(basis, model.config.n_embd)
    k = len(basis)
    if M.shape != (k, k) or not M.is_floating_point() or not M.isfinite().all():
        raise SubspaceError(f"M must be of finite floating-point numbers and [{k}, {k}], as wide as the subspace, not "
                            f"{list(M.shape)} of {M.dtype}")
    W_O = output_weights(model, head)                                   # [K, D]
    change = change_inside(W_O, basis, M)                               # [K, D]
    size = (change.norm() / at_least_float32(W_O).norm().clamp_min(1e-12)).item()
    new = (W_O + change).to(W_O.dtype)                                  # [K, D]
    if size < 1e-6 or torch.equal(new, W_O):
        raise SubspaceError(f"{head} writes nothing in this subspace, or M is the identity: the edit would do nothing")
    if not new.isfinite().all():
        raise SubspaceError(f"with this M, {head}'s W_O is no longer finite in {W_O.dtype}")
    W_O.copy_(new)
    rank = int((torch.linalg.svdvals(change) > 1e-6 * change.norm()).sum())
    return WeightEdit(head, rank, size, tuple(torch.linalg.svdvals(at_least_float32(M)).tolist()))


@dataclass(frozen=True)
class Repair:
    """What a fit found: a matrix M [k, k] for each head, inside the subspace `basis` [k, D], and the loss it took.

    loss: at every step, before it.
    """

    basis: Tensor
    matrices: dict[Head, Tensor]
    loss: tuple[float, ...]

    def edits(self) -> list[Edit]:
        """The repair as edits of the stream, to try it without touching a weight: Stream(edits=repair.edits())."""
        return [Edit(str(head), lambda write, M=M: (write + change_inside(write, self.basis, M)).to(write.dtype))
                for head, M in self.matrices.items()]

    def apply(self, model: GPT2) -> list[WeightEdit]:
        """Put the repair into the model's weights, in place: what was changed. Raises HeadError, SubspaceError."""
        return [edit_output(model, head, self.basis, M) for head, M in self.matrices.items()]


def fit_repair(model: GPT2, circuit: Circuit, basis: Tensor, improve: list[Prompts],
               keep: list[Prompts | Tensor] = (), hold: float = 1.0, steps: int = 120, rate: float = 0.03) -> Repair:
    """Fit an M for each inhibition head by gradient descent (Adam, the rate falling to 0 as a cosine).

    The model is left as it is, its gradients too, and so is torch's grad mode, under `no_grad` and `inference_mode` and
    after an error; `.apply(model)` of what is returned changes weights for good. basis: [k, D], the subspace;
    improve: batches of prompts to answer better, one of them a step, in turn; keep: batches on which the model should
    go on as before: of prompts, at END, or plain text as tokens [B, T], everywhere; hold: their weight.
    Starts from M = 1, so there is no seed: the same prompts give the same repair. Raises HeadError, TaskError,
    SubspaceError, and InputError for a model that was made inside `inference_mode`.
    """
    heads = circuit.inhibition
    check_fit(model, heads, basis, improve, keep, steps, rate, hold)
    with torch.inference_mode(False), torch.enable_grad():
        return fit(model, heads, basis.clone(), improve, keep, hold, steps, rate)


def fit(model: GPT2, heads: list[Head], basis: Tensor, improve: list[Prompts], keep: list[Prompts | Tensor],
        hold: float, steps: int, rate: float) -> Repair:
    """`fit_repair` with everything checked, and gradients on. Those of the model itself are never asked for."""
    first = min(head.layer for head in heads)                              # what lies below is the same in every step
    improve, keep = ([own(batch, model, first) for batch in batches] for batches in (improve, keep))
    with torch.no_grad():
        before = [log_probabilities(model, batch, below, []) for batch, below in keep]
    weights = at_least_float32(model.wte.weight)
    matrices = {head: torch.eye(len(basis), dtype=weights.dtype, device=weights.device, requires_grad=True)
                for head in heads}
    optimiser = torch.optim.Adam(matrices.values(), lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    losses = []
    with Progress("fitting the repair", steps, "steps") as bar:
        for step in range(steps):
            edits = Repair(basis, matrices, ()).edits()
            prompts, below = improve[step % len(improve)]
            logits = at_least_float32(logits_with_edits(model, prompts, edits, below))             # [B, V]
            among = logits.gather(1, prompts.candidates.to(logits.device))                         # [B, N]
            loss = F.cross_entropy(among, prompts.index.to(logits.device))
            for (batch, below), target in zip(keep, before):
                now = log_probabilities(model, batch, below, edits)
                loss = loss + hold * F.kl_div(now, target, log_target=True, reduction="none").sum(-1).mean()
            for M, gradient in zip(matrices.values(), torch.autograd.grad(loss, list(matrices.values()))):
                M.grad = gradient
            optimiser.step()
            schedule.step()
            losses.append(loss.item())
            bar.add()
    found = {head: M.detach() for head, M in matrices.items()}
    if not all(M.isfinite().all() for M in found.values()):
        raise SubspaceError(f"the fit diverged (loss {losses[-1]}); a rate below {rate} may help")
    return Repair(basis, found, tuple(losses))


def own(batch: Prompts | Tensor, model: GPT2, layer: int) -> tuple[Prompts | Tensor, Below]:
    """A copy of prompts, or of tokens [B, T], and the stream just before a layer.

    A copy, for autograd does not take tensors that were made inside inference_mode.
    """
    if isinstance(batch, Tensor):
        return batch.clone(), run_below(model, batch, layer)
    copied = replace(batch, **{name: x.clone() for name, x in vars(batch).items() if isinstance(x, Tensor)})
    return copied, run_below(model, copied.tokens, layer)


def log_probabilities(model: GPT2, batch: Prompts | Tensor, below: Below, edits: list[Edit]) -> Tensor:
    """The log-probabilities of the next token: at END of prompts [B, V], or everywhere in a text [B, T, V]."""
    if isinstance(batch, Tensor):
        logits = run_above(model, below, Stream(edits=edits)) @ model.unembedding.T
    else:
        logits = logits_with_edits(model, batch, edits, below)
    return at_least_float32(logits).log_softmax(dim=-1)


def check_fit(model: GPT2, heads: list[Head], basis: Tensor, improve: list[Prompts], keep: list[Prompts | Tensor],
              steps: int, rate: float, hold: float) -> None:
    """Raise HeadError, SubspaceError, TaskError or InputError for a fit that could not be made, or would do nothing."""
    for head in heads:
        check_place(head.layer, head.head, model.config.n_layer, model.config.n_head)
    if not heads or len(set(heads)) < len(heads):
        raise SubspaceError("name one head at least, and each only once")
    check_basis(basis, model.config.n_embd)
    if not isinstance(improve, (list, tuple)) or not improve:
        raise TaskError("give a list of one batch of prompts at least to improve on")
    if not isinstance(keep, (list, tuple)):
        raise TaskError(f"what is to be kept is a list of batches, not one of {type(keep).__name__}")
    if any(parameter.is_inference() for parameter in model.parameters()):
        raise InputError("this model was loaded inside torch.inference_mode(), where no gradient can pass through it; "
                         "load it outside")
    if type(steps) is not int or steps < 1 or not 0 < rate < float("inf") or not 0 <= hold < float("inf"):
        raise SubspaceError(f"steps must be a whole number from 1, rate above 0 and hold from 0, not {steps!r}, "
                            f"{rate!r}, {hold!r}")
    for head in heads:
        W_O = output_weights(model, head)                                                            # [K, D]
        if coordinates(W_O, basis).norm() < 1e-6 * at_least_float32(W_O).norm().clamp_min(1e-12):
            raise SubspaceError(f"{head} writes nothing in this subspace: no repair there would do anything")
