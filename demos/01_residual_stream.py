# %% [markdown]
# # 1. The residual stream
#
# The layers of a transformer never see each other. Each reads one shared vector a position, the
# residual stream, and adds to it. So anything one layer "tells" another must be in that sum, and
# the sum can be taken apart again. This demo runs one prompt and takes it apart:
#
# 1. how long the stream is in each layer, and how much each layer adds;
# 2. which head and which MLP write at the last position;
# 3. which of those writes made the model prefer its answer (direct logit attribution);
# 4. what happens to the answer when one head's write is taken away while the model runs.

# %%
from pathlib import Path

import torch

import tinyheads as th
from common import PROMPT, Result, options, say, whole_model
from tinyheads import plots

arguments = options("The residual stream of one prompt.", ("--prompt", PROMPT, "text to run"))
name, model, tokenizer = whole_model(arguments.model)
out = Path(arguments.out)
config = model.config
L, H = config.n_layer, config.n_head

# %% [markdown]
# One run with a recording stream. Every write and every read now has a name.

# %%
ids = tokenizer.encode(arguments.prompt)
tokens = torch.tensor([ids])                                   # [1, T]
stream = th.Stream(record=True)
logits = model(tokens, stream)                                 # [1, T, V]
answer, runner_up = logits[0, -1].topk(2).indices.tolist()
say(f"{name}: {len(ids)} tokens, {len(stream.writes)} writes, {len(stream.reads)} reads")
say(f"prompt: {arguments.prompt!r}")
say(f"next token: {tokenizer.decode([answer])!r}, before {tokenizer.decode([runner_up])!r}")

# %% [markdown]
# The stream is the sum of its writes: nothing else is in it.

# %%
writes = dict(stream.writes.items())                           # {name: [1, T, D]}
error = (sum(writes.values()) - stream.value).abs().max().item()
say(f"sum of the writes - the stream: {error:.1e} at most")

# %% [markdown]
# How long is the stream after each layer, and what was added? (Lengths, mean over positions.)

# %%
running, after, attention, mlp = writes["embed"], [writes["embed"]], [], []
for layer in range(L):
    heads = sum(writes[f"L{layer}.H{head}"] for head in range(H)) + writes[f"L{layer}.attn.bias"]
    running = running + heads + writes[f"L{layer}.mlp"]        # [1, T, D]
    after.append(running)
    attention.append(heads)
    mlp.append(writes[f"L{layer}.mlp"])
length = lambda x: x[0, 1:].norm(dim=-1).mean()                # GPT-2's first position is an outlier: left out
figure, axes = plots.new_figure(11, 4, columns=2)
plots.draw_lines(axes[0, 0], {"stream before the layer": torch.stack([length(x) for x in after[:-1]]),
                              "attention's write": torch.stack([length(x) for x in attention]),
                              "MLP's write": torch.stack([length(x) for x in mlp])},
                 "layer", "length (L2 norm), mean over positions", f"How much each layer adds ({name})")

# %% [markdown]
# Who writes at the last position, from where the answer is read? One row a layer, one column a
# head, and the MLP beside them.

# %%
columns = [f"H{head}" for head in range(H)] + ["bias", "MLP"]
layer_names = [[f"L{layer}.H{head}" for head in range(H)] + [f"L{layer}.attn.bias", f"L{layer}.mlp"]
               for layer in range(L)]
lengths = torch.tensor([[writes[write][0, -1].norm() for write in row] for row in layer_names])  # [L, H + 2]
plots.draw_map(axes[0, 1], lengths, "head, bias or MLP", "layer", "Length of each write at the last position",
               "length (L2 norm)", xticks=columns, yticks=[str(layer) for layer in range(L)])
norms = plots.save_figure(figure, out / "01_who_writes.png")

# %% [markdown]
# Direct logit attribution: the logits are linear in the stream once the final LayerNorm's scale
# is frozen, so the answer's lead over the runner-up is a sum over writes.

# %%
parts_answer = th.logit_attribution(model, stream, answer)     # {name: [1, T]}
parts_other = th.logit_attribution(model, stream, runner_up)
lead = {write: (parts_answer[write] - parts_other[write])[0, -1].item() for write in parts_answer}
total = (logits[0, -1, answer] - logits[0, -1, runner_up]).item()
say(f"lead of the answer: {total:.3f} logits; sum over the writes: {sum(lead.values()):.3f}")
for write in sorted(lead, key=lambda write: -abs(lead[write]))[:5]:
    say(f"  {write:>10}  {lead[write]:+.3f}")
figure, axes = plots.new_figure(9, 5)
plots.draw_map(axes[0, 0], torch.tensor([[lead[write] for write in row] for row in layer_names]),
               "head, bias or MLP", "layer",
               f"Who prefers {tokenizer.decode([answer])!r} to {tokenizer.decode([runner_up])!r}? ({name})\n"
               f"{total:+.2f} logits in all, {lead['embed']:+.2f} of them from the embedding",
               "direct effect on the logit difference (logits)", xticks=columns,
               yticks=[str(layer) for layer in range(L)], signed=True)
attribution = plots.save_figure(figure, out / "01_logit_attribution.png")

# %% [markdown]
# An edit: the head that helps the answer most writes nothing. What is lost directly is known
# already; the rest of the change is what later layers made of its absence.

# %%
best = max((write for row in layer_names for write in row[:H]), key=lambda write: lead[write])
edited = model(tokens, th.Stream(edits=[th.Edit(best, torch.zeros_like)]))
without = (edited[0, -1, answer] - edited[0, -1, runner_up]).item()
say(f"without {best}: the lead goes from {total:.3f} to {without:.3f}; its direct part was {lead[best]:+.3f}")
say(f"figures: {norms}, {attribution}")
results = [
    Result("1 residual stream", f"{len(writes)} writes sum to the stream within {error:.0e}; of the heads {best} prefers "
           f"the answer most, by {lead[best]:+.2f} of {total:.2f} logits", name, "1 prompt", str(attribution)),
    Result("1 an edit", f"without {best} the answer leads by {without:.2f} in place of {total:.2f} logits", name,
           "1 prompt", str(norms)),
]
