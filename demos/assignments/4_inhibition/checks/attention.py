"""Checks of 4.1 to 4.4 and 4.6: where heads look, a component taken out of a write, preferences, ranks."""

import torch
from torch import Tensor

import tinyheads as th
from grader.comparing import Wrong, close, same_shape
from grader.grading import Call, Model, loaded, once
from grader.inputs import MODEL, planted, planted_prompts, random_basis, random_int, some_prompts

from . import mistakes
from .answers import number_rows

SEE = "the handout, "


# --- 4.1 who looks where --------------------------------------------------------------------------------------


def calls_look(generator):
    built = planted(generator)
    return [Call((Model(MODEL), some_prompts(generator, 30, 5))),
            Call((Model(MODEL), some_prompts(generator, 20, random_int(generator, 6, 8)))),
            Call((Model(built.model), planted_prompts(generator, 24)))]


LOOK = ("on_mentions", "on_answer")


def two_tables(output: object, model: th.GPT2) -> tuple:
    """A submission's pair of tables, if it is one."""
    if not isinstance(output, (tuple, list)) or len(output) != 2:
        raise Wrong("the result should be two tensors, (on_mentions, on_answer), each [L, H]")
    shape = [model.config.n_layer, model.config.n_head]
    return tuple(same_shape(table, shape, "layer head", what) for table, what in zip(output, LOOK))


@once
def right_look(model, prompts):
    """Both tables, the library's."""
    return (th.attention_on(model, prompts, prompts.mentions),
            th.attention_on(model, prompts, th.answer_places(prompts)))


def check_look(number: int, of: str):
    def check(calls, outputs):
        args = calls[number].args
        model, prompts = loaded(args)
        wanted = right_look(args)
        tables = two_tables(outputs[number], model)
        asked = [("on_mentions", prompts.mentions), ("on_answer", th.answer_places(prompts))]
        for k, (name, places) in enumerate(asked):
            if name in of:
                close(tables[k], wanted[k], 1e-4, mistakes.look_mistakes(model, prompts, places, wanted[1 - k]), name,
                      SEE + '"Attention at END"')
    return check


def shape_look(calls, outputs):
    for call, output in zip(calls, outputs):
        two_tables(output, call.args[0].load())


def planted_look(calls, outputs):
    model, prompts = calls[2].args[0].load(), calls[2].args[1]
    on_mentions, on_answer = two_tables(outputs[2], model)
    circuit = th.find_circuit(model, prompts)
    for table, head, what in [(on_mentions, circuit.inhibition[0], "mentions"),
                              (on_answer, circuit.movers[0], "answer")]:
        if not abs(table[head.layer, head.head].item() - 1) < 0.1:
            raise Wrong(f"a model was built by hand so that {head} gives the {what} nearly all of END's attention; you "
                        f"find {table[head.layer, head.head]:.3f}. See {SEE}\"Attention at END\"")
    check_look(2, "on_mentions on_answer")(calls, outputs)


# --- 4.2 the strongest of them ----------------------------------------------------------------------------------


def calls_pick(generator):
    """In the third table one weight is `least` itself."""
    calls = []
    for L, H, before in [(4, 7, 3), (3, 5, 3), (6, 4, 4), (5, 3, 0)]:
        table = torch.rand(L, H, generator=generator)
        values = table[:max(before, 1)].flatten().sort().values
        place = random_int(generator, 1, len(values) // 2)
        limit = (values[place - 1] + values[place]).item() / 2                      # between two weights
        limit = values[place].item() if len(calls) == 2 else limit
        calls.append(Call((table, limit, before)))
    return [*calls, Call((0.4 * torch.rand(3, 4, generator=generator), 0.5, 3))]


def right_heads(attention: Tensor, least: float, before: int) -> list[tuple[int, int]]:
    H = attention.shape[1]
    chosen = [(attention[layer, head].item(), (layer, head)) for layer in range(before) for head in range(H)]
    return [place for value, place in sorted(chosen, reverse=True) if value >= least]


def check_pick(in_order: bool, numbers: tuple):
    def check(calls, outputs):
        for number in numbers:
            (attention, least, before), answer = calls[number].args, number_rows(outputs[number], ("layer", "head"))
            L, H = attention.shape
            wanted = right_heads(attention, least, before)
            if answer == wanted or not in_order and sorted(answer) == sorted(wanted):
                continue
            if sorted(answer) == sorted(wanted):
                order = ("the weakest comes first; the strongest should" if answer == wanted[::-1] else
                         "in the order of their places; put the strongest first" if answer == sorted(answer) else
                         "not with the strongest first")
                raise Wrong(f"the heads are the right ones, but {order}")
            for wrong, message in [
                    ([p for p in wanted if attention[p] > least],
                     "a head with exactly `least` belongs to them: at least is >="),
                    (right_heads(attention, least, min(before + 1, L)),
                     f"heads of layer {before} are among them: `before` itself is not before"),
                    (right_heads(attention, least, L), "`before` is not looked at: only layers 0 to before - 1 count"),
                    ([(h, l) for l, h in wanted], "layer and head are exchanged: pairs are (layer, head)"),
                    ([divmod(l * H + h, L) for l, h in wanted],
                     "a place in the flattened table was divided by the number of layers; place = layer * H + head"),
                    ([p for p in right_heads(attention, 0.0, before) if p not in wanted],
                     "these are the heads below `least`"),
                    (right_heads(attention, 0.0, before)[:1],
                     "only the strongest is given; all with at least `least` are asked for")]:
                if sorted(answer) == sorted(wrong):
                    raise Wrong(message + f". See {SEE}exercise 2")
            raise Wrong(f"in layers 0 to {before - 1}, {len(wanted)} heads of a table of {L} layers and {H} heads "
                        f"reach {least:.3f}; you give {len(answer)}, and {len(set(answer) & set(wanted))} of them "
                        f"rightly. See {SEE}exercise 2")
    return check


# --- 4.3 take components out of a write -----------------------------------------------------------------------


def calls_remove(generator):
    calls = []
    for how, k, B, T, D in [("zero", 1, 5, 7, 12), ("mean", 1, 6, 4, 10), ("resample", 1, 7, 5, 9),
                            ("zero", 3, 4, 3, 8),
                            ("mean", 2, 8, 6, 11), ("resample", 2, 6, 3, 10)]:
        directions = random_basis(generator, D, k)
        write = torch.randn(B, T, D, generator=generator) + torch.randn(T, D, generator=generator)
        order = torch.randperm(B, generator=generator)
        partner = torch.empty_like(order)
        partner[order] = order.roll(1)
        calls.append(Call((write, directions, how, partner)))
    return calls


def removed(write: Tensor, directions: Tensor, how: str, partner: Tensor) -> Tensor:
    """The closed form: what lies outside is kept, what lies inside is replaced."""
    outside = torch.eye(write.shape[-1]) - directions.T @ directions                     # [D, D]
    source = {"zero": 0 * write, "mean": write.mean(0, keepdim=True).expand_as(write), "resample": write[partner]}[how]
    return write @ outside + source @ (torch.eye(write.shape[-1]) - outside)


def check_remove(*numbers: int):
    def check(calls, outputs):
        for number in numbers:
            args = calls[number].args
            close(outputs[number], removed(*args), 1e-4, mistakes.remove_mistakes(*args),
                  f"the write after {args[2]} removal of {len(args[1])} "
                  f"direction{'s' if len(args[1]) > 1 else ''}", SEE + '"Components"')
    return check


def shape_remove(calls, outputs):
    for call, output in zip(calls, outputs):
        same_shape(output, call.args[0], "batch position d_model", "the write")


# --- 4.4 what a mover prefers -----------------------------------------------------------------------------------


def calls_preference(generator):
    calls = []
    for n, n_items in [(20, 4), (15, 7)]:
        prompts = some_prompts(generator, n, n_items)
        pattern = (2 * torch.randn(prompts.tokens.shape, generator=generator)).softmax(-1)
        calls.append(Call((pattern, prompts)))
    return calls


def check_preference(number: int):
    def check(calls, outputs):
        pattern, prompts = calls[number].args
        close(outputs[number], th.preference_in(pattern, prompts).item(), 1e-3,
              mistakes.preference_mistakes(pattern, prompts),
              "the preference", SEE + '"Preference and inhibition score"')
    return check


# --- 4.6 do two orders agree? -----------------------------------------------------------------------------------


def calls_rank(generator):
    x = torch.randn(25, generator=generator)
    y = (x + torch.randn(25, generator=generator)).exp()
    small = torch.randn(12, generator=generator)
    ties = [torch.randint(0, 4, (n,), generator=generator).float() for n in (30, 30, 16)]
    ties[1] = ties[0] + ties[1]
    return [Call((x, y)), Call((small, -torch.randn(12, generator=generator) - small)), Call((ties[0], ties[1])),
            Call((ties[2], torch.randn(16, generator=generator) + ties[2]))]


def check_rank(*numbers: int):
    def check(calls, outputs):
        for number in numbers:
            x, y = calls[number].args
            close(outputs[number], th.rank_correlation(x, y), 1e-3, mistakes.rank_mistakes(x, y),
                  "the rank correlation", SEE + '"Predicted and measured"')
    return check
