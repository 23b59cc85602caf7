# %% [markdown]
# # 1. The residual stream
#
# The layers of a transformer never see each other. Each reads one shared vector a position, the
# *residual stream*, and adds to it. So anything that one layer "tells" another must be in that sum, and
# the sum can be taken apart again. This chapter runs one prompt and takes it apart:
#
# 1. how long the stream is in each layer, and how much each layer adds;
# 2. which head and which MLP write at the last position;
# 3. which of those writes made the model prefer its answer (direct logit attribution);
# 4. what happens to the answer when one head's write is taken away while the model runs.

# %%
import torch

import tinyheads as th
from common import PROMPT, Result, options, report, say
from materials import whole_model
from tinyheads import plots

arguments = options("The residual stream of one prompt.", ("--prompt", PROMPT, "text to run"))
name, model, tokenizer = whole_model(arguments.model)
out = arguments.out
L, H = model.config.n_layer, model.config.n_head

# %% [markdown]
# ## One run that is recorded
#
# A recording `Stream` keeps every write and every read under its name: `embed`, `L0.H0`, `L0.mlp`, ...

# %%
ids = tokenizer.encode(arguments.prompt)
tokens = torch.tensor([ids])                                   # [1, T]
stream = th.Stream(record=True)
logits = model(tokens, stream)                                 # [1, T, V]
answer, runner_up = logits[0, -1, :tokenizer.n_vocab].topk(2).indices.tolist()  # a Pythia has a few rows more
writes = dict(stream.writes.items())                           # {name: [1, T, D]}
error = (sum(writes.values()) - stream.value).abs().max().item()
say(f"{name}: {len(ids)} tokens, {len(stream.writes)} writes, {len(stream.reads)} reads")
say(f"prompt: {arguments.prompt!r}")
say(f"next token: {tokenizer.decode([answer])!r}, before {tokenizer.decode([runner_up])!r}")
say(f"sum of the writes - the stream: {error:.1e} at most")

# %% [markdown]
# The last line is the idea of this whole project: the stream is the sum of its writes, up to rounding, and
# nothing else is in it. To try: `print(list(stream.writes))`, and `stream.reads["L1.attn"].shape`.
#
# ## Who writes how much?
#
# On the left the length of the stream before each layer, and of what attention and MLP add to it: the mean
# over positions, without the first (in GPT-2 an outlier many times as long). On the right the last position
# alone, from which the answer is read: a row for each layer, a column for each head, bias and MLP.

# %%
running, after, attention, mlp = writes["embed"], [writes["embed"]], [], []
for layer in range(L):
    attention.append(sum(writes[f"L{layer}.H{head}"] for head in range(H)) + writes[f"L{layer}.attn.bias"])
    mlp.append(writes[f"L{layer}.mlp"])
    running = running + attention[-1] + mlp[-1]                # [1, T, D]
    after.append(running)
lengths = {label: torch.stack([x[0, 1:].norm(dim=-1).mean() for x in values])                  # [L] each
           for label, values in [("stream before the layer", after[:-1]), ("attention's write", attention),
                                 ("MLP's write", mlp)]}
figure, axes = plots.new_figure(11, 4, columns=2)
plots.draw_lines(axes[0, 0], lengths, "layer", "length (L2 norm), mean over positions",
                 f"How much each layer adds ({name})")
columns, layers = [f"H{head}" for head in range(H)] + ["bias", "MLP"], [str(layer) for layer in range(L)]
names = [[f"L{layer}.H{head}" for head in range(H)] + [f"L{layer}.attn.bias", f"L{layer}.mlp"] for layer in range(L)]
at_end = torch.tensor([[writes[write][0, -1].norm() for write in row] for row in names])       # [L, H + 2]
plots.draw_map(axes[0, 1], at_end, "head, bias or MLP", "layer", "Length of each write at the last position",
               "length (L2 norm)", xticks=columns, yticks=layers)
norms = plots.save_figure(figure, out / "01_who_writes.png")

# %% [markdown]
# Where the stream is long, a write must be long to change it as much, for each layer reads the stream through a
# LayerNorm, which divides by its length. On the bundled model the last MLP writes most at the last position.
#
# A long write is a loud one, not yet one that matters: what counts is its length along the directions that
# someone reads. For the answer, these directions are known: they are the rows of the unembedding.
#
# ## Who prefers the answer?
#
# *Direct logit attribution*. A token's logit is linear in the stream once the scale of the final LayerNorm is
# kept at the value it had. So the lead of the answer over the runner-up is a sum with a term for each write.

# %%
parts_answer = th.logit_attribution(model, stream, answer)     # {name: [1, T]}
parts_other = th.logit_attribution(model, stream, runner_up)
lead = {write: (parts_answer[write] - parts_other[write])[0, -1].item() for write in parts_answer}
total = (logits[0, -1, answer] - logits[0, -1, runner_up]).item()
say(f"lead of the answer: {total:.3f} logits; sum over the writes: {sum(lead.values()):.3f}")
for write in sorted(lead, key=lambda write: -abs(lead[write]))[:5]:
    say(f"  {write:>10}  {lead[write]:+.3f}")
figure, axes = plots.new_figure(9, 5)
plots.draw_map(axes[0, 0], torch.tensor([[lead[write] for write in row] for row in names]),
               "head, bias or MLP", "layer",
               f"Who prefers {tokenizer.decode([answer])!r} to {tokenizer.decode([runner_up])!r}? ({name})\n"
               f"{total:+.2f} logits in all, {lead['embed']:+.2f} of them from the embedding",
               "direct effect on the logit difference (logits)", xticks=columns, yticks=layers, signed=True)
attribution = plots.save_figure(figure, out / "01_logit_attribution.png")

# %% [markdown]
# The two numbers of the first line agree: the lead is explained to the last write. A positive part speaks for
# the answer, a negative one against it. Compare with the map of lengths: are the loudest writes those that
# decide? But this is the *direct* effect only. A head that tells another head where to look writes nothing that
# the unembedding reads, and has a part near zero, however much depends on it.
#
# ## What if it had not written?
#
# So take a write away. The head whose part is largest writes zero, and the model runs on from there: later
# heads and MLPs read a stream without it, and write something else.

# %%
best = max((write for row in names for write in row[:H]), key=lambda write: lead[write])
edited = model(tokens, th.Stream(edits=[th.Edit(best, torch.zeros_like)]))
without = (edited[0, -1, answer] - edited[0, -1, runner_up]).item()
say(f"without {best}: the lead goes from {total:.3f} to {without:.3f}; its direct part was {lead[best]:+.3f}")

# %% [markdown]
# The direct part is what is lost at once. If the lead falls by another amount, the difference is indirect: what
# later layers made of the absence, and the new scale of the final LayerNorm. On GPT-2 others found heads that step
# in when a name mover is taken out (Wang et al. 2022), so that the lead falls by *less*. To try: take away the
# head with the most negative part; or give another `--prompt`, with the names in the other order.

# %%
report(out, [
    Result("1 residual stream", f"{len(writes)} writes sum to the stream within {error:.0e}; of the heads {best} "
           f"prefers the answer most, by {lead[best]:+.2f} of {total:.2f} logits", name, "1 prompt", str(attribution)),
    Result("1 an edit", f"without {best} the answer leads by {without:.2f} in place of {total:.2f} logits", name,
           "1 prompt", str(norms))])
