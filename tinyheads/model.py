"""GPT-2 in one sitting: each sublayer reads from the residual stream and writes to it.

    stream  = wte[tokens] + wpe[positions]
    stream += attention(LayerNorm(stream)),  stream += MLP(LayerNorm(stream))     in each layer
    logits  = LayerNorm(stream) @ unembedding.T             the unembedding is wte again, unless the model is untied

(Radford et al. 2019, "Language Models are Unsupervised Multitask Learners".) Parameters carry Hugging
Face's names and the `x @ W + b` orientation, so that `model.state_dict()` is what the files hold.
Axes: B batch, T position (query), S position (key), H head, D d_model, K d_head, V vocabulary.
"""

import math
from dataclasses import dataclass, field
from typing import Sequence

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from tinyheads.config import LAYER_NORM_EPS, GPT2Config
from tinyheads.errors import InputError, StreamError
from tinyheads.generation import Batch, Sampler, as_batch, stop_tokens, whole_number
from tinyheads.stream import Stream


class LayerNorm(nn.Module):
    """Each position's vector, brought to mean 0 and variance 1, then times a gain, plus a bias."""

    def __init__(self, n_embd: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_embd))
        self.bias = nn.Parameter(torch.empty(n_embd))

    def forward(self, x: Tensor) -> Tensor:
        # (x - x.mean(-1)) / (x.var(-1, correction=0) + 1e-5).sqrt() * weight + bias, in one call
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, LAYER_NORM_EPS)


class Linear(nn.Module):
    """x @ W + b, with W stored [in, out] as OpenAI does (torch.nn.Linear stores its transpose)."""

    def __init__(self, n_in: int, n_out: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_in, n_out))
        self.bias = nn.Parameter(torch.empty(n_out))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.T, self.bias)


class Attention(nn.Module):
    """H heads side by side: each gathers, from the positions it attends to, what it then writes."""

    def __init__(self, config: GPT2Config, layer: int):
        super().__init__()
        self.layer, self.n_head = layer, config.n_head
        self.c_attn = Linear(config.n_embd, 3 * config.n_embd)  # W_Q, W_K, W_V of all heads
        self.c_proj = Linear(config.n_embd, config.n_embd)      # W_O of all heads

    def forward(self, x: Tensor, stream: Stream, cache: "Cache | None") -> None:
        B, T, D = x.shape
        H, K = self.n_head, D // self.n_head
        q, k, v = self.c_attn(x).view(B, T, 3, H, K).permute(2, 0, 3, 1, 4)   # each [B, H, T, K]
        self.attend(q, k, v, stream, cache)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, stream: Stream, cache: "Cache | None") -> None:
        """Let each query look at the keys, gather their values and write. q, k, v: [B, H, T, K]."""
        if cache is not None:
            k, v = cache.extend(self.layer, k, v)                             # [B, H, S, K], S = past + T
        B, H, T, K = q.shape
        S = k.shape[2]
        if stream.needs_pattern(self.layer):
            scores = q @ k.transpose(2, 3) / math.sqrt(K)                     # [B, H, T, S]
            scores = scores.masked_fill(~causal_mask(T, S, q.device), -math.inf)
            # softmax: exp(scores) / exp(scores).sum(-1), so that what a query gives to its keys sums to 1
            pattern = stream.pattern(self.layer, scores.softmax(dim=-1))      # [B, H, T, S]
            z = pattern @ v                                                   # [B, H, T, K]
        elif T == S:
            z = F.scaled_dot_product_attention(q, k, v, is_causal=True)       # the same, fused
        else:
            z = F.scaled_dot_product_attention(q, k, v, causal_mask(T, S, q.device))
        z = z.transpose(1, 2)                                                 # [B, T, H, K]
        stream.write_heads(self.layer, z, self.c_proj.weight.view(H, K, -1), self.c_proj.bias)


class MLP(nn.Module):
    """Two linear maps with gelu between them, in its tanh form: x/2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3)))."""

    def __init__(self, config: GPT2Config):
        super().__init__()
        self.c_fc = Linear(config.n_embd, 4 * config.n_embd)
        self.c_proj = Linear(4 * config.n_embd, config.n_embd)

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(F.gelu(self.c_fc(x), approximate="tanh"))          # [B, T, D] -> [B, T, 4D] -> [B, T, D]


class Block(nn.Module):
    """One layer: attention reads and writes, then the MLP reads and writes."""

    def __init__(self, config: GPT2Config, layer: int):
        super().__init__()
        self.layer = layer
        self.ln_1 = LayerNorm(config.n_embd)
        self.attn = Attention(config, layer)
        self.ln_2 = LayerNorm(config.n_embd)
        self.mlp = MLP(config)

    def forward(self, stream: Stream, cache: "Cache | None") -> None:
        self.attn(stream.read(f"L{self.layer}.attn", self.ln_1), stream, cache)
        stream.write(f"L{self.layer}.mlp", self.mlp(stream.read(f"L{self.layer}.mlp", self.ln_2)))


class GPT2(nn.Module):
    """GPT-2. `model(tokens)` gives logits [B, T, V]; `model(tokens, stream)` lets you watch and change it.

    A new model's weights are drawn as OpenAI drew theirs, from `seed`; `load` reads trained ones.
    """

    def __init__(self, config: GPT2Config, seed: int | None = 0):
        super().__init__()
        self.config = config
        self.wte = unset_table(config.n_vocab, config.n_embd)  # row i: the vector of token i
        self.wpe = unset_table(config.n_ctx, config.n_embd)    # row i: that of position i
        self.h = nn.ModuleList(Block(config, layer) for layer in range(config.n_layer))
        self.ln_f = LayerNorm(config.n_embd)
        if not config.tied:
            self.lm_head = unset_table(config.n_vocab, config.n_embd)
        if seed is not None:  # None leaves the weights unset, to be filled from a file
            draw_weights(self, torch.Generator().manual_seed(seed))

    @property
    def unembedding(self) -> Tensor:
        """What gives the logits, one row a token: [V, D]. It is `wte.weight`, or `lm_head.weight` if not tied."""
        return self.wte.weight if self.config.tied else self.lm_head.weight

    def forward(self, tokens: Tensor, stream: Stream | None = None, cache: "Cache | None" = None) -> Tensor:
        """Logits [B, T, V] for the token behind each position.

        tokens: whole numbers [B, T], T at most n_ctx; stream: records and edits, if given;
        cache: keys and values of the positions before, to which these are added. A run that fails leaves
        stream and cache as they were. Raises InputError, StreamError.
        """
        x = self.final(tokens, stream, cache)                                                 # [B, T, D]
        logits = x @ self.unembedding.T                                                       # [B, T, V]
        if stream is not None and stream.record:
            stream.last_logits = logits[0, -1].detach().clone()                               # [V]
        return logits

    def final(self, tokens: Tensor, stream: Stream | None = None, cache: "Cache | None" = None) -> Tensor:
        """All of a run but the unembedding: what that reads, [B, T, D].

        Arguments are as of `forward`. Raises InputError, StreamError.
        """
        tokens = self.checked(tokens, cache)
        stream = Stream() if stream is None else stream
        if not isinstance(stream, Stream):
            raise StreamError(f"the second argument is a Stream, as in model(tokens, Stream(edits=[...])), not "
                              f"{type(stream).__name__}")
        past, grown = (0, None) if cache is None else (cache.length, Cache(dict(cache.kept)))
        with stream.run(self.config):
            stream.write("embed", self.embed(tokens, past))                                   # [B, T, D]
            for block in self.h:
                block(stream, grown)
            x = stream.read("unembed", self.ln_f)                                             # [B, T, D]
        if cache is not None:
            cache.kept = grown.kept
        return x

    def embed(self, tokens: Tensor, past: int) -> Tensor:
        """What the stream begins with, [B, T, D]: each token's vector and, behind `past` positions, each position's."""
        positions = torch.arange(past, past + tokens.shape[1], device=tokens.device)          # [T]
        return self.wte(tokens) + self.wpe(positions)

    def checked(self, tokens: Tensor, cache: "Cache | None" = None) -> Tensor:
        """The tokens as int64 [B, T] on the model's device. Raises InputError that says what is wrong."""
        try:
            tokens = torch.as_tensor(tokens, device=self.wte.weight.device)
        except (TypeError, ValueError, RuntimeError) as error:
            raise InputError(f"tokens must be whole numbers [B, T]: {error}") from error
        if tokens.dtype not in (torch.int64, torch.int32, torch.int16, torch.uint8):
            if tokens.numel():
                raise InputError(f"tokens must be whole numbers (int64), not {tokens.dtype}")
        if tokens.dim() != 2 or 0 in tokens.shape:
            raise InputError(f"tokens must be of shape [B, T] with at least one token, not {list(tokens.shape)}; a "
                             f"single prompt is torch.tensor([ids])")
        if cache is not None:
            cache.check(self.config, tokens)
        length = tokens.shape[1] + (0 if cache is None else cache.length)
        if length > self.config.n_ctx:
            raise InputError(f"a prompt of {length} tokens is longer than the model's n_ctx={self.config.n_ctx}")
        low, high = tokens.min().item(), tokens.max().item()
        if low < 0 or high >= self.config.n_vocab:
            raise InputError(f"token id {low if low < 0 else high} is outside the vocabulary, 0 to "
                             f"{self.config.n_vocab - 1}; is this the model's own tokenizer?")
        return tokens.long()

    @torch.no_grad()
    def generate(self, ids: list[int] | Tensor | Batch, n_new: int, temperature: float = 1.0,
                 top_k: int | None = None, seed: int | torch.Generator = 0, use_cache: bool = True,
                 stop: int | Sequence[int] = ()) -> list[int] | Tensor | Batch:
        """The ids with n_new more behind them: a list for a list, [B, T + n_new] for a tensor [B, T].

        A `Batch` of prompts of unequal length gives a `Batch`: each prompt with n_new more tokens, and where its
        last one then stands. temperature: logits are divided by it, 0 takes the likeliest token each time (greedy);
        top_k: draw among the k likeliest only; seed: of the draws, or a generator; use_cache: keep keys and values
        of the positions before, in place of computing them again; stop: token ids behind which a text ends (say
        `tokenizer.end_of_text`): a list is cut there, in a batch the last token is repeated. Raises InputError.
        """
        tokens, last = as_batch(ids, self.checked)                             # [B, T], [B]
        n_new = whole_number("n_new", n_new, least=0)
        end = last + n_new                                                     # [B], where each text's last token goes
        n_last, n_total = int(last.max()) + 1, int(end.max()) + 1
        if n_total > self.config.n_ctx:
            raise InputError(f"n_new={n_new} behind {n_last} tokens makes {n_total}, more than "
                             f"n_ctx={self.config.n_ctx}")
        stop = stop_tokens(stop, self.config.n_vocab).to(tokens.device)
        sampler = Sampler(temperature, top_k, seed, tokens.device)
        texts = F.pad(tokens[:, :n_last], (0, n_total - n_last))               # [B, n_total]
        cache = Cache() if use_cache else None
        start = int(last.min()) + 1
        for t in range(start, n_total):
            unseen = texts[:, t - 1:t] if use_cache and t > start else texts[:, :t]
            new = sampler.draw(self(unseen, cache=cache)[:, -1])               # [B]
            new = torch.where(t <= last, texts[:, t], new)                     # a longer prompt has a token of its own
            texts[:, t] = torch.where(t > end, texts[:, t - 1], new)           # behind its end: the last one again
            end = torch.where((t > last) & (t < end) & torch.isin(texts[:, t], stop), t, end)
            if (t >= end).all():
                break
        texts = texts[:, :int(end.max()) + 1]
        if isinstance(ids, Batch):
            return Batch(texts, end)
        return texts[0].tolist() if isinstance(ids, (list, tuple)) else texts


@dataclass
class Cache:
    """Keys and values of the positions seen so far, by layer: each [B, H, S, K]."""

    kept: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)

    @property
    def length(self) -> int:
        """How many positions are kept, S."""
        return self.length_in(0)

    def length_in(self, layer: int) -> int:
        """How many positions are kept of one layer: while the model runs, more in layers that it has run already."""
        return self.kept[layer][0].shape[2] if layer in self.kept else 0

    def check(self, config: GPT2Config, tokens: Tensor) -> None:
        """Raise InputError unless what is kept is of as many prompts as tokens [B, T], and of such a model."""
        B, H, K = len(tokens), config.n_head, config.d_head
        shapes = [[*k.shape[:2], k.shape[3]] for k, v in self.kept.values()]
        if self.kept and (len(shapes) != config.n_layer or any(shape != [B, H, K] for shape in shapes)):
            raise InputError(f"this cache holds {len(shapes)} layers of [B, H, K] = {shapes[0]}; the run is of "
                             f"{config.n_layer} layers of {[B, H, K]}. A new Cache() begins anew")

    def extend(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Put new keys and values [B, H, T, K] behind a layer's old ones; gives all of them [B, H, S, K]."""
        if layer in self.kept:
            old_k, old_v = self.kept[layer]
            k, v = torch.cat([old_k, k], dim=2), torch.cat([old_v, v], dim=2)  # [B, H, S, K]
        self.kept[layer] = k, v
        return k, v


def causal_mask(T: int, S: int, device: torch.device) -> Tensor:
    """Which keys each query may see, itself and those before it: bool [T, S], the queries being the last T of S."""
    return torch.ones(T, S, dtype=torch.bool, device=device).tril(S - T)


def unset_table(n_rows: int, n_embd: int) -> nn.Embedding:
    """An embedding whose rows are not set yet: nn.Embedding itself would draw them from torch's global generator."""
    return nn.Embedding.from_pretrained(torch.empty(n_rows, n_embd), freeze=False)


def draw_weights(model: GPT2, generator: torch.Generator) -> None:
    """Random weights as in GPT-2's training: N(0, 0.02²), smaller where many layers add up, biases 0, gains 1."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
            elif ".ln_" in f".{name}":
                parameter.fill_(1.0)
            else:
                residual = name.endswith("c_proj.weight")
                std = 0.02 / math.sqrt(2 * model.config.n_layer) if residual else 0.02
                parameter.normal_(0.0, std, generator=generator)
