"""Is this really GPT-2? Loaded weights held against what others published of the real model (`published.py`).

    python -m tinyheads check 124M

compares texts, singular values and attention weights one by one, each with a tolerance for rounding alone, and the
published success on IOI with a wide one, since the prompts are not the same. Of a file with attention weights alone
the singular values are compared, which need nothing else.
"""

from dataclasses import dataclass
from pathlib import Path

import torch

from tinyheads.config import GPT2Config
from tinyheads.errors import CheckpointError, InputError
from tinyheads.files.tokenizer import Tokenizer
from tinyheads.files.weights import load, load_heads, load_tokenizer
from tinyheads.heads import Head, Heads, qk_svd
from tinyheads.model import GPT2
from tinyheads.prompts import ioi
from tinyheads.published import IOI_PROMPT, KNOWN, Continuation, Facts
from tinyheads.scoring import logits_at_end, wilson_interval
from tinyheads.stream import Stream

QK_WITHIN = 2e-4          # of a singular value's size; the published ones are kept with five digits
ATTENTION_WITHIN = 5e-3   # of all attention
LEAD_WITHIN = 1.0         # logits: other names, places and sentences than the published ones
LEADS_AT_LEAST = 0.95     # share of the prompts


@dataclass(frozen=True)
class Row:
    """One comparison: what was compared, what is published, what was found here, whether they agree, and the source."""

    what: str
    published: str
    here: str
    passed: bool
    source: str


def check(path: str | Path, n: int = 200, seed: int = 0,
          known: tuple[Facts, ...] = KNOWN) -> tuple[Facts, list[Row], str]:
    """Compare a named model, or one at a path, with what is published of it.

    n, seed: of the IOI prompts; known: what to compare with. Gives the facts, a row for each comparison, and why the
    rest was left out: "" for a whole model, what is missing for a file of attention weights. Raises InputError for a
    model of another shape than all that are known, and what `load_heads` and `load_tokenizer` raise.
    """
    try:
        model, why = load(path), ""
        heads, config = Heads.of(model), model.config
    except CheckpointError as error:                       # perhaps attention weights alone
        model, why = None, str(error)
        heads = load_heads(path)
        config = heads.config
    facts = facts_of(config, known)
    rows = [singular_values(heads, facts)]
    if model is not None:
        tokenizer = load_tokenizer(path)
        rows += [continuation(model, tokenizer, each) for each in facts.continuations]
        rows.append(attention_weights(model, tokenizer, facts))
        if facts.ioi:
            rows.append(indirect_objects(model, tokenizer, facts, n, seed))
    return facts, rows, why


def facts_of(config: GPT2Config, known: tuple[Facts, ...] = KNOWN) -> Facts:
    """What is published of the model of this shape. Raises InputError where nothing is."""
    shape = (config.n_layer, config.n_head, config.n_embd, config.n_vocab)
    for facts in known:
        if facts.shape == shape:
            return facts
    numbers = lambda shape: "{} layers of {} heads, width {}, vocabulary {}".format(*shape)
    there = "; ".join(f"{facts.name} ({numbers(facts.shape)})" for facts in known)
    raise InputError(f"nothing published is known of a model with {numbers(shape)}; it is known of {there}")


def singular_values(heads: Heads, facts: Facts) -> Row:
    """The largest singular value of every head's W_Q W_K^T, LayerNorm folded, held against the published ones."""
    published = torch.tensor(facts.largest_qk)                                     # [L, H]
    found = qk_svd(heads).scale[..., 0].cpu()                                      # [L, H, K] -> [L, H]
    apart = (found / published - 1).abs()                                          # [L, H]
    worst = Head.at(int(apart.argmax()), apart.shape[1])
    place = worst.layer, worst.head
    agree = int((apart < QK_WITHIN).sum())
    return Row(f"largest singular value of QK, all {apart.numel()} heads; {worst} is furthest",
               f"{published[place]:.4f}", f"{found[place]:.4f} ({agree} agree)", agree == apart.numel(),
               facts.traced_by)


def continuation(model: GPT2, tokenizer: Tokenizer, published: Continuation) -> Row:
    """The greedy continuation of a prompt, as many tokens as the published one has."""
    ids = tokenizer.encode(published.prompt)
    text = tokenizer.decode(model.generate(ids, len(tokenizer.encode(published.text)), temperature=0)[len(ids):])
    same = text == published.text
    agree = next((i for i, (a, b) in enumerate(zip(text, published.text)) if a != b), len(text))
    return Row(f"greedy text behind {published.prompt!r}", shortened(published.text),
               "the same" if same else f"{shortened(text)} (the same for {agree} characters)", same, published.source)


def attention_weights(model: GPT2, tokenizer: Tokenizer, facts: Facts) -> Row:
    """The attention weights on IOI_PROMPT behind <|endoftext|>."""
    ids = tokenizer.encode(IOI_PROMPT)
    at = {"start": 0}                                                              # word -> position
    for position, word in enumerate((tokenizer.decode([token]) for token in ids), start=1):
        at[f"{word} (1)" if word in at else word] = position
    stream = Stream(record=True)
    model(torch.tensor([[tokenizer.end_of_text, *ids]], device=model.wte.weight.device), stream)
    found = [stream.patterns[f"L{each.head.layer}"][0, each.head.head, at[each.query], at[each.key]].item()
             for each in facts.attention]
    apart = [abs(here - each.weight) for here, each in zip(found, facts.attention)]
    worst = apart.index(max(apart))
    each, agree = facts.attention[worst], sum(distance < ATTENTION_WITHIN for distance in apart)
    where = f"{each.head} from {each.query!r} to {each.key!r}"
    return Row(f"attention at {len(apart)} places of the IOI prompt; {where} is furthest", f"{each.weight:.3f}",
               f"{found[worst]:.3f} ({agree} agree)", agree == len(apart), facts.traced_by)


def indirect_objects(model: GPT2, tokenizer: Tokenizer, facts: Facts, n: int, seed: int) -> Row:
    """The mean lead of the right name over the other, and how often it leads, on n IOI prompts of our own."""
    prompts = ioi(tokenizer, n, seed=seed)
    of_names = logits_at_end(model, prompts).gather(1, prompts.candidates.to(model.wte.weight.device))   # [B, 2]
    right = of_names.gather(1, prompts.index[:, None].to(of_names.device))[:, 0]                         # [B]
    lead = 2 * right - of_names.sum(1)                                             # [B], the right name less the other
    mean, share = lead.mean().item(), (lead > 0).float().mean().item()
    low, high = wilson_interval(share, n)
    passed = abs(mean - facts.ioi[0]) <= LEAD_WITHIN and share >= LEADS_AT_LEAST
    return Row(f"IOI, n = {n}, seed {seed}, our wording: lead of the right name in logits, how often it leads",
               "{:.2f}, {:.3f}".format(*facts.ioi), f"{mean:.2f}, {share:.3f} ({low:.2f} to {high:.2f})", passed,
               facts.ioi_source)


def shortened(text: str) -> str:
    """A text in quotes, its first 60 characters."""
    return repr(text if len(text) <= 60 else text[:57] + "...")


def report(name: str, facts: Facts, rows: list[Row], left_out: str) -> str:
    """What `python -m tinyheads check` prints."""
    lines = [f"{name}, held against what is published of {facts.name}", ""]
    for row in rows:
        lines += [f"{'pass' if row.passed else 'FAIL'}  {row.what}",
                  f"      published: {row.published}   [{row.source}]", f"      here:      {row.here}"]
    failed = sum(not row.passed for row in rows)
    lines += ["", f"{len(rows) - failed} of {len(rows)} agree"]
    if left_out:
        lines.append(f"not compared: all that needs the whole model ({left_out})")
    return "\n".join(lines)
