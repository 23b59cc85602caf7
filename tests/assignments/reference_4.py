"""Assignment 4 as it should be handed in: full marks. It uses no library function but those allowed."""

import torch

import tinyheads as th


def where_heads_look(model, prompts):
    stream = th.Stream(record=True)
    model(prompts.tokens, stream)
    at_end = torch.stack([pattern[:, :, prompts.end] for pattern in stream.patterns.values()])      # [L, B, H, T]
    each = torch.arange(len(prompts.tokens))                                        # [B]
    answer = prompts.positions[each, prompts.index]                                 # [B]
    on_answer = at_end[:, each, :, answer].mean(0)                                  # [B, L, H] -> [L, H]
    on_mentions = sum(at_end[:, each, :, place] for place in prompts.mentions.T).mean(0)
    return on_mentions, on_answer


def pick_heads(attention, least, before):
    H = attention.shape[1]
    found = [(attention[layer, head].item(), layer, head) for layer in range(before) for head in range(H)]
    return [(layer, head) for weight, layer, head in sorted(found, key=lambda row: -row[0]) if weight >= least]


def remove(write, directions, how, partner):
    part = write @ directions.T @ directions                                        # [B, T, D]
    instead = {"zero": torch.zeros_like(part), "mean": part.mean(0).expand_as(part), "resample": part[partner]}[how]
    return write - part + instead


def preference(pattern, prompts):
    each = torch.arange(len(pattern))
    on_answer = pattern[each, prompts.positions[each, prompts.index]]               # [B]
    on_items = pattern.gather(1, prompts.positions).sum(1)                          # [B]
    return (2 * on_answer - on_items).mean().item()


def measured_preference(model, prompts, reader, edits):
    stream = th.Stream(record=True, edits=edits)
    model(prompts.tokens, stream)
    pattern = stream.patterns[f"L{reader.layer}"][:, reader.head, prompts.end]      # [B, T]
    return th.preference_in(pattern, prompts).item()


def inhibition_scores(model, prompts, writer, reader, how):
    ov = th.ov_svd(th.Heads.of(model))
    scores = []
    for direction in ov.write[writer.layer, writer.head]:
        edit = th.remove(direction, str(writer), how)
        scores.append(measured_preference(model, prompts, reader,
                                          []) - measured_preference(model, prompts, reader, [edit]))
    return torch.tensor(scores)


def rank_correlation(x, y):
    def ranks(values):
        order = values.argsort()
        place = torch.empty(len(values), dtype=torch.double)
        place[order] = torch.arange(1, len(values) + 1, dtype=torch.double)
        return torch.stack([place[values == value].mean() for value in values])     # ties share the mean of their ranks

    a, b = ranks(x), ranks(y)
    a, b = a - a.mean(), b - b.mean()
    return ((a @ b) / (a.norm() * b.norm())).item()


def channel(model, found_on, tested_on, writers, reader, n):
    heads = th.Heads.of(model)
    ov = th.ov_svd(heads)
    scores = th.component_scores(heads, "Q", ov)[..., reader.layer, reader.head]    # [L, H, K]
    components = [th.Component.of(writer, i) for writer in writers for i in range(model.config.d_head)]
    predicted = {c: scores[c.layer, c.head, c.index].item() for c in components}
    circuit = th.Circuit(writers, [reader])
    measured = th.inhibition_scores(model, found_on, circuit, "mean", components=components)
    highest = [sorted(components, key=lambda c: -those[c])[:n] for those in (predicted, measured)]
    chosen = [c for c in highest[0] if c in highest[1]]
    edits = th.remove_components(ov, chosen, "mean")
    before, after = (th.preference(model, tested_on, [reader], those) for those in ([], edits))
    return [(c.layer, c.head, c.index) for c in chosen], before, after


def pattern_without(pattern, c, gain, how):
    new = torch.zeros_like(c) if how == "zero" else c.mean().expand_as(c)
    weights = pattern * ((new - c)[:, None] * gain).exp()                           # [B, T]
    return weights / weights.sum(1, keepdim=True)


def find_channel(model, prompts, n):
    _, on_answer = where_heads_look(model, prompts)
    place = on_answer[1:].argmax().item()
    mover = th.Head(1 + place // model.config.n_head, place % model.config.n_head)
    writers = [th.Head(layer, head) for layer in range(mover.layer) for head in range(model.config.n_head)]
    components = [th.Component.of(writer, i) for writer in writers for i in range(model.config.d_head)]
    scores = th.inhibition_scores(model, prompts, th.Circuit(writers, [mover]), "mean", components=components)
    return [(c.layer, c.head, c.index) for c in sorted(components, key=lambda c: -scores[c])[:n]]
