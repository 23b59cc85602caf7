"""What answers to assignment 4 are after well-known mistakes, and what to say of each: (value or function, message)."""

import torch
from torch import Tensor

import tinyheads as th
from tinyheads.scoring import mean_ranks


# --- 4.1 ---


def patterns_of(model: th.GPT2, prompts) -> Tensor:
    """All patterns: [L, B, H, T, T]."""
    stream = th.Stream(record=True)
    model(prompts.tokens, stream)
    return torch.stack([stream.patterns[name] for name in stream.patterns])


def at_places(rows: Tensor, places: Tensor) -> Tensor:
    """Attention rows [L, B, H, T] at places [B, M], summed over M and averaged over B: [L, H]."""
    L, _, H, _ = rows.shape
    return rows.gather(3, places[None, :, None].expand(L, -1, H, -1)).sum(3).mean(1)


def look_mistakes(model: th.GPT2, prompts, places: Tensor, other: Tensor) -> list:
    """What tables of attention on some places [B, M] are after a slip. other: the other table."""
    M, end = places.shape[1], prompts.end
    several = [(lambda: th.attention_on(model, prompts, places) / M,
                f"you averaged over the {M} mentions; their attention is to be summed (part \"Attention at END\")"),
               (lambda: at_places(patterns_of(model, prompts)[:, :, :, end], places[:, :1]),
                "only the first of the mentions is counted; sum over all of them")] if M > 1 else [
               (lambda: at_places(patterns_of(model, prompts)[:, :, :, end], prompts.index[:, None]),
                "you used the answer's place in the list as if it were a token position; it stands at "
                "positions[b, index[b]]"),
               (lambda: at_places(patterns_of(model, prompts)[:, :, :, end], places + 1),
                "you looked one position behind the answer (off by one)"),
               (lambda: at_places(patterns_of(model, prompts)[:, :, :, end], prompts.positions),
                "this is the attention on all items of the list, not on the answer alone")]
    return several + [
        (other, "the two tables are in the wrong order: the mentions come first"),
        (lambda: at_places(patterns_of(model, prompts)[:, :, :, end - 1], places),
         "these are the rows of the position before END (off by one): END is prompts.end itself"),
        (lambda: at_places(patterns_of(model, prompts)[..., end], places),
         "these are 0 nearly everywhere: you took END's column (who looks at END) in place of its row (where it looks);"
         " the pattern is query by key"),
        (lambda: at_places(patterns_of(model, prompts).mean(3), places),
         "this is the mean over all query positions; only END's row counts"),
        (lambda: at_places(patterns_of(model, prompts)[:, :, :, end].softmax(-1), places),
         "you took the softmax of a pattern that is a softmax already"),
        (lambda: at_places(patterns_of(model, prompts)[:, :, :, end].softmax(2), places),
         "you took a softmax over the heads; the pattern is a softmax over the keys already"),
        (lambda: th.attention_on(model, prompts, places) * len(prompts.tokens),
         "you summed over the prompts; take their mean")]


# --- 4.3 ---


def remove_mistakes(write: Tensor, directions: Tensor, how: str, partner: Tensor) -> list:
    part = write @ directions.T @ directions
    inverse = partner.argsort()
    pairs = [(write, "the write is unchanged"),
             (write + part, "the part along the directions was added; it is to be subtracted"),
             (part, "this is the part along the directions alone, which is what should go"),
             (write - write @ directions.sum(0)[:, None],
              "w·v, a number, was subtracted from every entry of w; it must be multiplied by v first: w - (w·v) v"),
             (write - part if how != "zero" else None,
              "the part was only taken out (zero removal); nothing was put in its place")]
    if len(directions) > 1 and how == "zero":
        first = write @ directions[:1].T @ directions[:1]
        pairs.append((write - first, "only the first of the directions was taken out"))
    if how == "zero":
        pairs += [(torch.zeros_like(write),
                   "the head's whole write is gone; only its part along the directions should go")]
    if how == "mean":
        mean = lambda x, dims: x.mean(dims, keepdim=True).expand_as(x)
        pairs += [(write - part + mean(part, 1),
                   "the mean was taken over the positions (axis 1); take it over the prompts, at each position"),
                  (write - part + mean(part, (0, 1)),
                   "the mean was taken over prompts and positions together; each position has its own"),
                  (write - part + mean(part, 2),
                   "the mean was taken over the stream's axis D; it should be over the prompts (axis 0)"),
                  (write - part + mean(write, 0),
                   "the mean of the whole write was put in; only its part along the directions should be"),
                  (mean(write, 0), "the whole write became its mean; only its part along the directions should"),
                  (write - mean(part, 0),
                   "the mean part was subtracted from the write; the part itself should go, its mean come instead"),
                  (write + mean(part, 0), "the mean was put in, but the prompt's own part is still there")]
    if how == "resample":
        pairs += [(write[partner],
                   "the whole write is that of another prompt; only the part along the directions should be"),
                  (write - part + part[inverse],
                   "prompt partner[b] got the part of prompt b; prompt b should get that of partner[b]"),
                  (write + part[partner], "the other prompt's part was put in, but the prompt's own is still there"),
                  (write - part + write[partner],
                   "the other prompt's whole write was put in; only its part along the directions should be"),
                  (write - part + part.roll(1, 1),
                   "the parts were moved between positions; take them from another prompt at the same position")]
    return [(wrong, message) for wrong, message in pairs if wrong is not None]


# --- 4.4 ---


def preference_mistakes(pattern: Tensor, prompts) -> list:
    each = torch.arange(len(pattern))
    items = pattern.gather(1, prompts.positions)                                    # [B, N]
    answer = items[each, prompts.index]                                             # [B]
    others = items.sum(1) - answer
    mean = lambda x: x.mean().item()
    return [(mean(answer), "this is the attention on the answer alone; subtract that on the other items"),
            (mean(others - answer),
             "its sign is the opposite: the answer's attention minus the others', not the other way round"),
            (mean(answer - items.sum(1)), "the answer itself is among the items that you subtract"),
            (mean(answer - others / (items.shape[1] - 1)),
             "you subtracted the mean over the other items; it should be their sum"),
            (mean(answer - (1 - answer)),
             "you subtracted the attention on everything but the answer; only the list's other items count"),
            (mean(answer - (items.sum(1) - answer) - answer), "the answer itself is among the items that you subtract"),
            (mean(2 * pattern[each, prompts.index] - items.sum(1)),
             "you used the answer's place in the list as if it were a token position; it stands at "
             "positions[b, index[b]]"),
            (mean(2 * pattern[each, prompts.index] - pattern[:, :items.shape[1]].sum(1)),
             "you used places in the list as if they were token positions; the items stand at prompts.positions"),
            (mean(answer - pattern.gather(1, prompts.mentions).sum(1)),
             "you subtracted the attention on the mentions; the other items of the list are meant"),
            ((answer - others).sum().item(), "you summed over the prompts; take their mean")]


# --- 4.5 ---


def edited(model: th.GPT2, prompts, reader: th.Head, edits=()) -> Tensor:
    """The reader's pattern in a run with some edits: [B, T, T]."""
    stream = th.Stream(record=True, edits=list(edits))
    model(prompts.tokens, stream)
    return stream.patterns[f"L{reader.layer}"][:, reader.head]


def scores_with(model, prompts, writer, reader, how, directions=None, name=None, after=None, measure=None) -> Tensor:
    """Inhibition scores with one thing or another done differently: the whole recipe, with its places for mistakes."""
    directions = th.ov_svd(th.Heads.of(model)).write[writer.layer, writer.head] if directions is None else directions
    measure = measure or (lambda pattern: th.preference_in(pattern[:, prompts.end], prompts))
    whole = measure(edited(model, prompts, reader))
    without = []
    for direction in directions:
        edit = th.remove(direction, name or str(writer), how)
        change = edit.change if after is None else (lambda write, edit=edit: after(write, edit.change(write)))
        without.append(measure(edited(model, prompts, reader, [th.Edit(edit.name, change)])))
    return whole - torch.tensor(without)


def scores_of(model, prompts, writers, reader, how) -> Tensor:
    """The inhibition scores of all components of some writers, for one reader: [W * K]."""
    components = [th.Component.of(writer, i) for writer in writers for i in range(model.config.d_head)]
    scores = th.inhibition_scores(model, prompts, th.Circuit(writers, [reader]), how, components=components)
    return torch.tensor(list(scores.values()))


def score_mistakes(model, prompts, writer, reader, how) -> list:
    heads = th.Heads.of(model)
    ov = th.ov_svd(heads)
    right = lambda **options: (lambda: scores_with(model, prompts, writer, reader, how, **options))
    items = lambda pattern: pattern.gather(1, prompts.positions)
    answer = lambda pattern: items(pattern)[torch.arange(len(pattern)), prompts.index].mean().item()
    whole = th.preference(model, prompts, [reader])

    def at_end_alone(before, after):
        result = before.clone()
        result[:, prompts.end] = after[:, prompts.end]
        return result

    other = {"zero": "mean", "mean": "zero"}[how]
    return [
        (lambda: -right()(),
         "the sign is the opposite: the score is the preference with everything in place minus that without it"),
        (lambda: whole - right()(), "this is the preference without each component; the score is by how much it falls"),
        (right(directions=ov.read[writer.layer, writer.head]),
         "you removed the directions that the head reads (ov.read); what it puts down lies along ov.write"),
        (right(directions=ov.write[reader.layer, reader.head]),
         f"you took the reader's components out of the writer's write; the components are those of {writer}"),
        (right(name=str(reader)),
         f"the write that you changed is the reader's, {reader}; it should be that of {writer}"),
        (right(name=f"L{writer.layer}.H{(writer.head + 1) % heads.W_O.shape[1]}"),
         f"you changed the write of the head behind {writer} (off by one: heads count from 0)"),
        (right(directions=th.ov_svd(th.Heads.of(model, fold=False)).write[writer.layer, writer.head]),
         "these are the components of OV without LayerNorm folded in; use th.Heads.of(model) as it is"),
        (right(after=lambda before, after: torch.zeros_like(before)),
         "all scores are alike: the head's whole write was removed, in place of one component"),
        (right(after=at_end_alone), "the component was removed at END alone; it should be at all positions"),
        (right(measure=lambda pattern: th.preference_in(pattern[:, prompts.end - 1], prompts)),
         "the preference was taken at the position before END (off by one)"),
        (right(measure=lambda pattern: th.preference_in(pattern.mean(1), prompts)),
         "the reader's attention was averaged over all query positions; only END's row counts"),
        (right(measure=lambda pattern: answer(pattern[:, prompts.end])),
         "only the attention on the answer was compared; the preference subtracts that on the other items"),
        (lambda: scores_of(model, prompts, [writer], reader, other),
         f"these are the scores by {other} removal; `how` was {how!r}"),
        (lambda: th.component_scores(heads, "Q", ov)[writer.layer, writer.head, :, reader.layer, reader.head],
         "these are the composition scores, from weights; the inhibition score is measured in a run with an edit"),
        (torch.zeros(heads.W_O.shape[2]),
         "all scores are 0: the edit has no effect. Is it given to a Stream, and that Stream to the model?")]


# --- 4.6 ---


def rank_mistakes(x: Tensor, y: Tensor) -> list:
    correlation = lambda a, b: torch.corrcoef(torch.stack([a.double(), b.double()]))[0, 1].item()
    order = lambda v: v.argsort(stable=True).double()
    ranks = lambda v: v.argsort(stable=True).argsort().double()
    n = len(x)
    a, b = mean_ranks(x.double()), mean_ranks(y.double())
    short = lambda a, b: 1 - 6 * (a - b).square().sum().item() / (n * (n * n - 1))
    below = lambda v: (v[:, None] > v).sum(1).double()
    return [(correlation(x, y),
             "this is the correlation of the numbers themselves (Pearson's); take that of their ranks"),
            (correlation(order(x), order(y)),
             "argsort gives which number comes at each rank; the ranks are the argsort of the argsort"),
            (correlation(ranks(x), ranks(y)),
             "equal numbers have different ranks here; they should share the mean of their ranks"),
            (correlation(below(x), below(y)),
             "equal numbers share the lowest of their ranks here; they should share the mean"),
            (short(a, b),
             "1 - 6 Σd² / (n (n² - 1)) holds only where no numbers are equal; take the correlation of the ranks"),
            (short(ranks(x), ranks(y)),
             "equal numbers have different ranks here; they should share the mean of their ranks"),
            (-th.rank_correlation(x, y),
             "its sign is the opposite: one list was ranked upwards and the other downwards"),
            (correlation(x, y) ** 2,
             "this is a squared correlation of the numbers themselves; take the correlation of their ranks")]


# --- 4.7 ---


def both_scores(model, prompts, writers, reader, how="mean", mode="Q") -> tuple[Tensor, Tensor]:
    """Composition and inhibition scores of the writers' components: two tensors [W * K]."""
    heads = th.Heads.of(model)
    ov = th.ov_svd(heads)
    scores = th.component_scores(heads, mode, ov)
    predicted = torch.cat([scores[w.layer, w.head, :, reader.layer, reader.head] for w in writers])
    return predicted, scores_of(model, prompts, writers, reader, how)


def chosen_by(predicted: Tensor, measured: Tensor, writers, n: int, join=set.intersection) -> list[tuple]:
    """The components among the n highest of both, highest prediction first: triples."""
    K = len(predicted) // len(writers)
    chosen = join(set(predicted.topk(n).indices.tolist()), set(measured.topk(n).indices.tolist()))
    return [(writers[i // K].layer, writers[i // K].head, i % K) for i in sorted(chosen, key=lambda i: -predicted[i])]


def without(model, prompts, reader, chosen, how="mean") -> float:
    ov = th.ov_svd(th.Heads.of(model))
    edits = th.remove_components(ov, [th.Component(*place) for place in chosen], how)
    return th.preference(model, prompts, [reader], edits)


def choice_mistakes(model, found_on, tested_on, writers, reader, n, predicted, measured) -> list:
    """Of the chosen components: all as functions."""
    choose = lambda *scores, **options: (lambda: chosen_by(*scores, writers, n, **options))
    again = lambda prompts, *rest: both_scores(model, prompts, writers, reader, *rest)
    return [
        (choose(predicted, predicted),
         "these are the highest by composition alone; they must be among the highest by inhibition score too"),
        (choose(measured, measured),
         "these are the highest by inhibition score alone; they must be among the highest by composition too"),
        (choose(predicted, measured, join=set.union), "these are in either list; they should be in both"),
        (choose(predicted, -measured), "the lowest inhibition scores were taken; is their sign turned?"),
        (lambda: chosen_by(predicted, again(tested_on)[1], writers, n),
         "they were chosen on the prompts that they are to be tested on; choose on found_on"),
        (lambda: chosen_by(again(found_on, "mean", "K")[0], measured, writers, n),
         "composition by K was taken; the mover reads what inhibits it in its query, Q"),
        (lambda: chosen_by(predicted, again(found_on, "zero")[1], writers, n),
         "removal was by zero; it should be by mean")]


SAME_PROMPTS = ("it was measured on the prompts on which the components were chosen (found_on); what was chosen there "
                "is to be judged on tested_on")


def before_mistakes(model, found_on, tested_on, reader, chosen) -> list:
    return [(lambda: th.preference(model, found_on, [reader]), SAME_PROMPTS),
            (lambda: without(model, tested_on, reader, chosen), "before and after are exchanged")]


def after_mistakes(model, found_on, tested_on, reader, chosen) -> list:
    whole = th.preference(model, tested_on, [reader])
    return [(lambda: without(model, found_on, reader, chosen), SAME_PROMPTS),
            (lambda: without(model, tested_on, reader, chosen, "zero"),
             "the components were set to zero; give them their mean"),
            (lambda: without(model, tested_on, reader, chosen[:1]),
             "only the first component was removed; remove all of them at once"),
            (lambda: without(model, tested_on, reader, chosen[-1:]),
             "only the last component was removed; remove all of them at once"),
            (whole, "nothing was removed"),
            (lambda: whole - without(model, tested_on, reader, chosen),
             "this is the difference; the preference without the components is asked for")]
