"""Checks of 1.9, an open problem: in which order can heads be taken away, so that the answer survives longest?

The model is written by hand, with two heads at places that the seed draws (`tinyheads/planted.py`); all others are weak
noise. An order is judged on prompts that were not handed in: the answer's lead, with ever more heads silent.
"""

import torch
from torch import Generator

import tinyheads as th
from grader.comparing import Wrong
from grader.grading import Call
from grader.inputs import planted, planted_prompts
from grader.open_problems import Posed, between

N_RANDOM = 4                                        # random orders whose mean is the baseline


def calls_order(generator: Generator) -> list[Call]:
    calls = []
    for _ in range(2):
        built, prompts, fresh = planted(generator), planted_prompts(generator, 40), planted_prompts(generator, 40)
        weights = {name: parameter.detach().clone() for name, parameter in built.model.named_parameters()}
        args = weights, built.model.config.n_head, prompts.tokens, prompts.candidates, prompts.index
        calls.append(Posed(args, truth=(built, fresh, areas_at_the_ends(built, fresh))))
    return calls


def heads_of(model: th.GPT2) -> list[str]:
    return [f"L{layer}.H{head}" for layer in range(model.config.n_layer) for head in range(model.config.n_head)]


@torch.no_grad()
def lead(model: th.GPT2, prompts: th.Prompts, silent: list[str]) -> float:
    """The answer's logit less the mean of the other candidates', with some heads writing nothing; mean over prompts."""
    logits = model(prompts.tokens, th.Stream(edits=[th.Edit(name, torch.zeros_like) for name in silent]))
    among = logits[:, prompts.end].gather(1, prompts.candidates)                    # [B, N]
    answer = among.gather(1, prompts.index[:, None])[:, 0]                          # [B]
    N = among.shape[1]
    return (answer - (among.sum(1) - answer) / (N - 1)).mean().item()


def area(model: th.GPT2, prompts: th.Prompts, order: list[str]) -> float:
    """The lead that is left after 1, 2, ... all but none of the heads are silent, of that of the whole model; mean."""
    leads = [lead(model, prompts, order[:n]) for n in range(len(order))]
    return sum(leads[1:]) / (len(leads) - 1) / leads[0]


def areas_at_the_ends(built, fresh: th.Prompts) -> tuple[float, float]:
    """(of random orders, of the order that is right by construction)."""
    names, ends = heads_of(built.model), [str(built.inhibition), str(built.mover)]
    generator = torch.Generator().manual_seed(int(fresh.tokens.sum()))
    shuffled = [[names[i] for i in torch.randperm(len(names), generator=generator)] for _ in range(N_RANDOM)]
    at_random = sum(area(built.model, fresh, order) for order in shuffled) / N_RANDOM
    others = [name for name in names if name not in ends]
    return at_random, max(area(built.model, fresh, others + last) for last in (ends, ends[::-1]))


def score_order(call: Posed, output: object) -> tuple[float, str]:
    built, fresh, (at_random, best) = call.truth
    names = heads_of(built.model)
    if not isinstance(output, (list, tuple)) or sorted(map(str, output)) != sorted(names):
        raise Wrong(f"the order should be a list of all {len(names)} heads' names, \"L0.H0\" to \"{names[-1]}\", each "
                    f"once, the first to be taken away first")
    reached = area(built.model, fresh, list(map(str, output)))
    told = f"{reached:.2f} of the lead is left on average, {at_random:.2f} with random orders, {best:.2f} at best"
    return between(reached, at_random, best), told
