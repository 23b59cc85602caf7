"""Assignment 6 as it should be handed in: full marks. It uses no library function but those allowed."""

import copy

import torch

import tinyheads as th


def accuracy(model, prompts, edits=()):
    logits = model(prompts.tokens, th.Stream(edits=list(edits)))[:, prompts.end]
    return (logits.gather(1, prompts.candidates).argmax(dim=1) == prompts.index).double().mean().item()


def stream_at_end(model, prompts, where):
    seen = []
    model(prompts.tokens, th.Stream(edits=[th.Edit(where, lambda x: seen.append(x[:, prompts.end]) or x, of="stream")]))
    return seen[0]


def head_write_at_end(model, prompts, head):
    stream = th.Stream(record=True)
    model(prompts.tokens, stream)
    return stream.writes[str(head)][:, prompts.end]


def set_coordinates(x, basis, new, positions):
    here = x[:, positions]                                                          # [B, P, D]
    x = x.clone()
    x[:, positions] = here + (new - here @ basis.T) @ basis
    return x


def codes_of(model, prompts, basis, where):
    return th.by_index(th.coordinates(stream_at_end(model, prompts, where), basis), prompts)


def given(model, prompts, basis, values, where):
    """The candidates' logits with END's coordinates set to values [B, k]: [B, N]."""
    change = th.set_coordinates(basis, values, prompts.end)
    logits = model(prompts.tokens, th.Stream(edits=[th.Edit(where, change, of="stream")]))
    return logits[:, prompts.end].gather(1, prompts.candidates)


def share_right(logits, prompts):
    return (logits.argmax(dim=1) == prompts.index).double().mean().item()


def give_the_code(model, found_on, judged_on, basis, circuit, seed):
    where = circuit.where
    generator = torch.Generator().manual_seed(seed)
    control = torch.linalg.qr(torch.randn(basis.shape, generator=generator).T).Q.T  # [k, D]
    codes, others = (codes_of(model, found_on, rows, where) for rows in (basis, control))
    logits = given(model, judged_on, basis, codes[judged_on.index], where)
    by_control = given(model, judged_on, control, others[judged_on.index], where)
    return {"codes": codes, "control": control, "control codes": others, "before": accuracy(model, judged_on),
            "logits": logits, "after": share_right(logits, judged_on),
            "control after": share_right(by_control, judged_on)}


def edit_weights(model, head, basis, M):
    edited, K = copy.deepcopy(model), model.config.d_head
    rows = slice(head.head * K, (head.head + 1) * K)
    W_O = edited.h[head.layer].attn.c_proj.weight[rows]                             # [K, D]
    change = W_O @ basis.T @ (M - torch.eye(len(M))) @ basis                        # [K, D]
    rank = int(torch.linalg.matrix_rank(change, rtol=1e-5))
    size = (change.norm() / W_O.norm()).item()
    W_O += change
    return edited, th.WeightEdit(head, rank, size, tuple(torch.linalg.svdvals(M).tolist()))


def fit(model, head, basis, codes, train, where, hold):
    stream = stream_at_end(model, train, where) @ basis.T                           # [B, k]
    own = head_write_at_end(model, train, head) @ basis.T                           # [B, k]
    left = codes[train.index] - stream                                              # for c (M - 1) to be
    k, B = len(basis), len(own)
    rows = torch.cat([own / B**0.5, hold**0.5 * torch.eye(k)])                      # [B + k, k]
    return torch.eye(k) + torch.linalg.lstsq(rows, torch.cat([left / B**0.5, torch.zeros(k, k)])).solution


def perplexity(model, text):
    log_p = model(text)[:, :-1].log_softmax(-1)                                     # [B, T - 1, V]
    return (-log_p.gather(2, text[:, 1:, None]).mean()).exp().item()


def what_it_broke(model, edited, tasks, text):
    found = {name: (accuracy(model, prompts), accuracy(edited, prompts)) for name, prompts in tasks.items()}
    return found | {"perplexity": (perplexity(model, text), perplexity(edited, text))}


MEASURED = {"lists of 5": (1.0, 1.0), "lists of 8": (1.0, 0.99), "lists of 10": (0.795, 0.7725),
            "lists of 12": (0.5525, 0.5975), "lists of 16": (0.1625, 0.2025), "recall of 8": (1.0, 1.0),
            "recall of 12": (1.0, 1.0), "IOI": (1.0, 1.0), "perplexity": (3.960187, 3.976693)}
JUDGEMENT = """
The edit was fitted on lists of 12, with hold = 0.1. There it gained a little: 0.5525 before, 0.5975 after. With 400
prompts the standard error of one such figure is about 0.025, so that on the same prompts this gain is hardly more than
chance. On lists of 16 it is 0.1625 before and 0.2025 after, of the same size, and both are far from useful.

What did it break? Lists of 10 fell from 0.795 to 0.7725, within one standard error, and lists of 8 from 1.0 to 0.99,
four prompts. Recall and IOI stayed at 100%. The everyday text became harder by very little: its perplexity went from
3.960 to 3.977. With hold = 0 the same fit ruins the model, which shows how far those weak directions would go.

Why is there so little to gain? Given the right code in the stream, the readers answer nearly always, so they are not
at fault. A matrix can only move what its heads have written, and what a head did not gather no change of its output
weights can bring back. Where each head looks on long lists would have to show whether that is the reason; equal
attention to all mentions would speak against it. I would not keep this edit, except for an experiment.
"""


def judgement():
    return MEASURED, JUDGEMENT


def least_change(z, wanted, basis, hold):
    gram = z @ z.T + hold * torch.eye(len(z))                                       # [n, n]
    return z.T @ torch.linalg.solve(gram, wanted) @ basis                           # [K, D]


def gathered_at_end(model, prompts, head):
    """What a head gathers at END, before its W_O: [B, K]."""
    stream = th.Stream(record=True)
    model(prompts.tokens, stream)
    D, K = model.config.n_embd, model.config.d_head
    columns = slice(2 * D + head.head * K, 2 * D + (head.head + 1) * K)
    attention = model.h[head.layer].attn
    values = stream.reads[f"L{head.layer}.attn"] @ attention.c_attn.weight[:, columns] + attention.c_attn.bias[columns]
    return (stream.patterns[f"L{head.layer}"][:, head.head, prompts.end, None] @ values)[:, 0]


def best_repair(model, circuit, basis, train, text, bound):
    head, K = circuit.inhibition[0], model.config.d_head
    rows = slice(head.head * K, (head.head + 1) * K)
    around = th.mean_codes(model, train, circuit, basis)                            # [N, 3]
    codes = th.traversed_codes(model, train.first(12), circuit, basis, around)      # [N, 3], where END should be
    stream = th.coordinates(th.stream_at_end(model, train, circuit.where), basis)   # [B, 3]
    z, before = gathered_at_end(model, train, head), model(text).log_softmax(-1)
    W_O = model.h[head.layer].attn.c_proj.weight[rows].clone()                      # [K, D]
    best = 0.0, W_O
    for share in (1.0, 0.8, 0.6):                                                   # of the way to a code
        for hold in (0.1, 0.3, 1.0, 3.0):
            edited = copy.deepcopy(model)
            new = W_O + least_change(z, share * codes[train.index] - stream, basis, hold)
            edited.h[head.layer].attn.c_proj.weight[rows] = new
            damage = (before.exp() * (before - edited(text).log_softmax(-1))).sum(-1).mean().item()
            worth = accuracy(edited, train) * min(1.0, bound / damage)
            best = max(best, (worth, new), key=lambda pair: pair[0])
    return best[1]
