"""Wrong answers to Assignment 4, each with part of the message that its author gets."""

import torch
from mistake import Mistake, slip
from reference_4 import (channel, inhibition_scores, measured_preference, pattern_without, pick_heads, preference,
                         remove, where_heads_look)

import tinyheads as th


def copied_for_one_seed(model, prompts):
    generator = torch.Generator().manual_seed(1)
    return tuple(torch.rand(2, model.config.n_layer, model.config.n_head, generator=generator))


def removed_in_place(write, directions, how, partner):
    part = write @ directions.T @ directions
    instead = {"zero": torch.zeros_like(part), "mean": part.mean(0).expand_as(part), "resample": part[partner]}[how]
    write -= part
    write += instead
    return write


def without_v(write, directions, how, partner):
    return write - (write @ directions.T).sum(-1, keepdim=True)


def only_the_answer(pattern, prompts):
    each = torch.arange(len(pattern))
    return pattern[each, prompts.positions[each, prompts.index]].mean().item()


def weights_edited(model, prompts, writer, reader, how):
    K = model.config.d_head
    heads = th.Heads.of(model)
    ov = th.ov_svd(heads)
    rows = model.h[writer.layer].attn.c_proj.weight[writer.head * K:(writer.head + 1) * K]
    whole = measured_preference(model, prompts, reader, [])
    scores = []
    for v in ov.write[writer.layer, writer.head]:
        rows -= torch.outer(rows @ v, v)
        scores.append(whole - measured_preference(model, prompts, reader, []))
    return torch.tensor(scores)


def removed_at_end(model, prompts, writer, reader, how):
    ov = th.ov_svd(th.Heads.of(model))
    scores = []
    for direction in ov.write[writer.layer, writer.head]:
        change = th.remove(direction, str(writer), how).change

        def at_end(write):
            result = write.clone()
            result[:, prompts.end] = change(write)[:, prompts.end]
            return result

        whole, without = (measured_preference(model, prompts, reader, edits)
                          for edits in ([], [th.Edit(str(writer), at_end)]))
        scores.append(whole - without)
    return torch.tensor(scores)


def from_weights_alone(model, prompts, writer, reader, how):
    scores = th.component_scores(th.Heads.of(model), "Q")                           # [L, H, K, L, H]
    return scores[writer.layer, writer.head, :, reader.layer, reader.head]


def random_scores(model, prompts, writer, reader, how):
    return torch.rand(model.config.d_head)


def of_the_numbers(x, y):
    return torch.corrcoef(torch.stack([x, y]))[0, 1].item()


def argsort_once(x, y):
    return torch.corrcoef(torch.stack([x.argsort().double(), y.argsort().double()]))[0, 1].item()


def ties_in_order(x, y):
    ranks = torch.stack([v.argsort(stable=True).argsort().double() for v in (x, y)])
    return torch.corrcoef(ranks)[0, 1].item()


def nothing_returned(model, found_on, tested_on, writers, reader, n):
    th.inhibition_scores(model, found_on, th.Circuit(writers, [reader]), components=[th.Component.of(writers[0], 0)])


LOOK, PICK, REMOVE, PREFER, SCORE, RANK, CHANNEL = "4.1", "4.2", "4.3", "4.4", "4.5", "4.6", "4.7"

MISTAKES = [
    Mistake("the position before END", LOOK, slip(where_heads_look, "[:, :, prompts.end]", "[:, :, prompts.end - 1]"),
            "the position before END"),
    Mistake("END's column", LOOK, slip(where_heads_look, "[:, :, prompts.end]", "[:, :, :, prompts.end]"),
            "END's column"),
    Mistake("all positions", LOOK, slip(where_heads_look, "pattern[:, :, prompts.end]", "pattern.mean(2)"),
            "only END's row counts"),
    Mistake("softmax over the heads", LOOK, slip(where_heads_look, "pattern[:, :, prompts.end]",
                                                 "pattern[:, :, prompts.end].softmax(1)"),
            "a softmax over the heads"),
    Mistake("place for position", LOOK, slip(where_heads_look, "prompts.positions[each, prompts.index]",
                                             "prompts.index"),
            "as if it were a token position"),
    Mistake("mean over the mentions", LOOK, slip(where_heads_look, "return on_mentions,",
                                                 "return on_mentions / prompts.mentions.shape[1],"),
            "to be summed"),
    Mistake("tables exchanged", LOOK, slip(where_heads_look, "return on_mentions, on_answer",
                                           "return on_answer, on_mentions"),
            "in the wrong order"),
    Mistake("sum over the prompts", LOOK, slip(where_heads_look, ".T).mean(0)", ".T).sum(0)"),
            "you summed over the prompts"),
    Mistake("answers copied for one seed", LOOK, copied_for_one_seed, "entries are wrong"),
    Mistake("weakest first", PICK, slip(pick_heads, "-row[0]", "row[0]"), "the weakest comes first"),
    Mistake("one layer too many", PICK, slip(pick_heads, "range(before)", "range(min(before + 1, len(attention)))"),
            "`before` itself is not before"),
    Mistake("head before layer", PICK, slip(pick_heads, "[(layer, head) for weight", "[(head, layer) for weight"),
            "layer and head are exchanged"),
    Mistake("a number in place of a vector", REMOVE, without_v, "it must be multiplied by v first"),
    Mistake("the whole write to zero", REMOVE, slip(remove, 'return write - part + instead',
                                                    'return write - (write if how == "zero" else part) + instead'),
            "the head's whole write is gone"),
    Mistake("mean over positions", REMOVE, slip(remove, "part.mean(0).expand_as(part)",
                                                "part.mean(1, keepdim=True).expand_as(part)"),
            "the mean was taken over the positions"),
    Mistake("mean over everything", REMOVE, slip(remove, "part.mean(0).expand_as(part)",
                                                 "part.mean((0, 1)).expand_as(part)"),
            "over prompts and positions together"),
    Mistake("mean of the whole write", REMOVE, slip(remove, "part.mean(0)", "write.mean(0)"),
            "the mean of the whole write"),
    Mistake("partner's partner", REMOVE, slip(remove, "part[partner]", "part[partner.argsort()]"),
            "should get that of partner[b]"),
    Mistake("edited in place", REMOVE, removed_in_place, "changed its argument number 1 in place"),
    Mistake("the answer alone", PREFER, only_the_answer, "the attention on the answer alone"),
    Mistake("the answer subtracted, too", PREFER, slip(preference, "2 * on_answer", "on_answer"),
            "among the items that you subtract"),
    Mistake("everything else subtracted", PREFER, slip(preference, "on_items)", "1)"), "on everything but the answer"),
    Mistake("sign of the preference", PREFER, slip(preference, "(2 * on_answer - on_items)",
                                                   "(on_items - 2 * on_answer)"), "its sign is the opposite"),
    Mistake("sign of the score", SCORE, slip(inhibition_scores, "return torch", "return -torch"),
            "the sign is the opposite"),
    Mistake("what the head reads", SCORE, slip(inhibition_scores, "ov.write", "ov.read"), "ov.read"),
    Mistake("the reader's components", SCORE, slip(inhibition_scores, "[writer.layer, writer.head]",
                                                   "[reader.layer, reader.head]"), "the reader's components"),
    Mistake("the wrong head's write", SCORE, slip(inhibition_scores, "str(writer)",
                                                  'f"L{writer.layer}.H{(writer.head + 1) % model.config.n_head}"'),
            "heads count from 0"),
    Mistake("LayerNorm not folded", SCORE, slip(inhibition_scores, "Heads.of(model)", "Heads.of(model, fold=False)"),
            "without LayerNorm folded in"),
    Mistake("the model edited", SCORE, weights_edited, "changed its argument number 1 in place"),
    Mistake("removed at END alone", SCORE, removed_at_end, "removed at END alone"),
    Mistake("from weights", SCORE, from_weights_alone, "these are the composition scores"),
    Mistake("random values", SCORE, random_scores, "entries are wrong"),
    Mistake("Pearson's correlation", RANK, of_the_numbers, "take that of their ranks"),
    Mistake("argsort once", RANK, argsort_once, "the argsort of the argsort"),
    Mistake("ties in order", RANK, ties_in_order, "share the mean of their ranks"),
    Mistake("chosen and tested on the same prompts", CHANNEL, slip(channel, "    circuit =",
            "    tested_on = found_on\n    circuit ="), "judged on tested_on"),
    Mistake("in either list", CHANNEL, slip(channel, "if c in highest[1]]",
            "] + [c for c in highest[1] if c not in highest[0]]"), "they should be in both"),
    Mistake("made-up preferences", CHANNEL, slip(channel, "], before, after", "], 0.5, 0.5"),
            "it is 0.5 and should be"),
    Mistake("removed to zero", CHANNEL, slip(channel, '(ov, chosen, "mean")', '(ov, chosen, "zero")'),
            "give them their mean"),
    Mistake("nothing returned", CHANNEL, nothing_returned, "should be three things"),
]


# --- 4.8 and 4.9 ------------------------------------------------------------------------------------------


def by_composition_alone(model, prompts, n):
    heads = th.Heads.of(model)
    _, on_answer = where_heads_look(model, prompts)
    mover = th.Head.parse("L{}.H{}".format(*divmod(on_answer.argmax().item(), model.config.n_head)))
    scores = th.component_scores(heads, "Q")[..., mover.layer, mover.head]          # [L, H, K]
    places = scores.flatten().topk(n).indices
    return [tuple(int(i) for i in torch.unravel_index(place, scores.shape)) for place in places]


def one_component_only(model, prompts, n):
    return [(0, 0, 0)]


WEIGHTS = "pattern * ((new - c)[:, None] * gain).exp()"
MISTAKES += [
    Mistake("rows do not sum to 1", "4.8", slip(pattern_without, " / weights.sum(1, keepdim=True)", ""),
            "must sum to 1 again"),
    Mistake("the sign", "4.8", slip(pattern_without, "(new - c)", "(c - new)"), "the opposite sign"),
    Mistake("zero for mean", "4.8", slip(pattern_without, 'if how == "zero"', "if True"), "the other way of removing"),
    Mistake("to first order", "4.8", slip(pattern_without, WEIGHTS, "pattern * (1 + (new - c)[:, None] * gain)"),
            "to first order only"),
    Mistake("the pattern for the scores", "4.8", slip(pattern_without, WEIGHTS,
            "(pattern + (new - c)[:, None] * gain).exp()"), "takes the pattern for the scores"),
    Mistake("by composition alone", "4.9", by_composition_alone, "your score is 0."),
    Mistake("one component only", "4.9", one_component_only, "a list of 3 different triples"),
]
