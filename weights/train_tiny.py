"""Train the bundled models: small GPT-2s whose circuits for lists can be seen, and which are each other's control.

    python weights/train_tiny.py tiny                # a quarter of an hour on one core; then weights/tiny
    python weights/train_tiny.py even --seed 2 --out /tmp/other

`tiny` and `even` are of one make: the same architecture, steps, seed, and kinds of data. They differ in `ratio` alone:
`tiny` saw a list of one more item 0.6 times as often, `even` all lengths from 2 to 20 alike. `named` and `content` have
a layer more, and cross off by name as well as by ordinal; they differ in the number of heads, 4 and 8.

Every step takes a batch of each task of tinyheads.prompts, all lists of a batch being equally long, and adds the
losses up: the tasks' on the answer alone, that of everyday text on every token. Lists to recall from have 2 to
20 items, uniformly. IOI and text use four fifths of all pairs of names; the others are left for testing.

For the first three quarters of the training a nudge asks some of the heads for the paper's division of labour, by where
they look (`labour.py`). The last quarter has the tasks' losses alone, and IOI is never nudged.
"""

import argparse
import math
import time
from functools import lru_cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

import tinyheads as th
from judge import figures
from labour import division_of_labour, keeping_patterns, unevenness
from tinyheads.files.array_file import write_atomically
from tinyheads.files.command import Parser, folder_to_write, number, one_line_errors
from tinyheads.files.progress import Progress
from vocabulary import make_tokenizer

CONTEXT = 128
LENGTHS = range(2, 21)
NUDGED_UNTIL = 0.75  # the part of the training in which heads are nudged
SAME = dict(steps=7000, batch=48, rate=3e-3, positions=3.0, queries=6.0, nudge=0.5, nudged=3, decay=0.01, heads=4)
RECIPES = {
    "tiny": dict(SAME, layers=2, width=32, by="ordinal", ratio=0.6),
    "even": dict(SAME, layers=2, width=32, by="ordinal", ratio=1.0),
    "content": dict(SAME, layers=3, width=64, by="mixed", ratio=1.0, steps=5000, queries=4.0, batch=40, heads=8),
    "named": dict(SAME, layers=3, width=64, by="mixed", ratio=1.0, steps=6000, queries=4.0),
}
KNOWS = {
    "tiny": "crosses lists off by ordinal and saw long ones rarely",
    "even": "crosses lists off by ordinal and saw all lengths alike: the control of `tiny`",
    "content": "crosses lists off by name, and not by place: the control of the random-index test",
    "named": "crosses lists off by name and by ordinal, both by place",
}


# ---- training ---------------------------------------------------------------------------------------------------


def draw_length(draw: torch.Generator, ratio: float) -> int:
    """A list's length from LENGTHS, each `ratio` times as likely as the one before."""
    weights = torch.tensor([float(ratio)**k for k in range(len(LENGTHS))])
    return LENGTHS[int(torch.multinomial(weights, 1, generator=draw))]


def answer_loss(model: th.GPT2, prompts: th.Prompts, nudge: float = 0.0, nudged: int = 0,
                crossed_off: bool = True) -> Tensor:
    """Cross-entropy of the answers, and `nudge` times how far the nudged heads are from the division of labour."""
    x, patterns = before_last_layer(model, prompts.tokens, bool(nudge))                             # [B, T, D]
    end, patterns["last"] = last_layer_at_end(model, x)                                             # [B, D]
    loss = F.cross_entropy(model.ln_f(end) @ model.unembedding.T, prompts.answer.to(end.device))
    return loss + nudge * division_of_labour(patterns, prompts, crossed_off, nudged) if nudge else loss


def before_last_layer(model: th.GPT2, tokens: Tensor, keep: bool) -> tuple[Tensor, dict[str, Tensor]]:
    """The stream [B, T, D] before the last layer, and, to keep, the patterns so far {"L0": [B, H, T, T], ...}."""
    stream, patterns = keeping_patterns(model) if keep else (th.Stream(), {})
    tokens = tokens.to(model.wte.weight.device)
    with stream.run(model.config):
        stream.write("embed", model.wte(tokens) + model.wpe.weight[:tokens.shape[1]])
        for block in model.h[:-1]:
            block(stream, None)
    return stream.value, patterns


def last_layer_at_end(model: th.GPT2, x: Tensor) -> tuple[Tensor, Tensor]:
    """The stream [B, D] behind the last layer at END, the last position, and what END looks at there: [B, H, 1, T].

    As model.py computes it, at this one position: all others of the last layer are asked by nobody, which saves a third
    of the time.
    """
    (B, T, D), H, block = x.shape, model.config.n_head, model.h[-1]
    q, k, v = block.attn.c_attn(block.ln_1(x)).view(B, T, 3, H, D // H).permute(2, 0, 3, 1, 4)      # [B, H, T, K] each
    scores = q[:, :, -1:] @ k.transpose(2, 3) / math.sqrt(D // H)                                   # [B, H, 1, T]
    pattern = scores.softmax(dim=-1)                                                                # END sees them all
    z = (pattern @ v).transpose(1, 2).flatten(2)                                                    # [B, 1, D]
    end = x[:, -1:] + block.attn.c_proj(z)
    return (end + block.mlp(block.ln_2(end)))[:, 0], pattern


def text_loss(model: th.GPT2, tokens: Tensor) -> Tensor:
    """Cross-entropy of every token of plain text [B, T] but the first."""
    tokens = tokens.to(model.wte.weight.device)
    return F.cross_entropy((model.final(tokens)[:, :-1] @ model.unembedding.T).flatten(0, 1), tokens[:, 1:].flatten())


def losses(model: th.GPT2, tokenizer: th.Tokenizer, draw: torch.Generator, recipe: argparse.Namespace,
           nudge: float) -> dict[str, Tensor]:
    """One batch of every task, and its loss. The lists' have the nudge in them."""
    batch, by, nudged = recipe.batch, recipe.by, recipe.nudged
    recall = th.ordinal_recall(tokenizer, batch * 3 // 4, draw_length(draw, 1), draw)
    laundry = th.laundry_list(tokenizer, batch, draw_length(draw, recipe.ratio), by, draw)
    found = {
        "recall": answer_loss(model, recall, nudge, nudged, crossed_off=False),
        "laundry": answer_loss(model, laundry, nudge, nudged),
        "ioi": answer_loss(model, th.ioi(tokenizer, batch, "mixed", draw, pairs="train")),
        "text": text_loss(model, th.everyday_text(tokenizer, batch // 8, draw)),
    }
    if nudge:  # how to look at long lists, where these are rare, but not how to answer them
        long = th.laundry_list(tokenizer, batch // 4, draw_length(draw, 1), by, draw)
        _, patterns = before_last_layer(model, long.tokens, keep=True)
        found["long"] = nudge * unevenness(list(patterns.values())[-1][:, :nudged], long)
    return found


def new_model(recipe: argparse.Namespace, n_vocab: int) -> th.GPT2:
    """A model with random weights; positions, W_Q and W_K start larger than GPT-2's, which teaches recall sooner.

    GPT-2's initial weights suit its width: in a model of width 32 attention starts, and long stays, all but even.
    """
    config = th.GPT2Config(n_vocab, CONTEXT, recipe.width, recipe.layers, recipe.heads)
    model = th.GPT2(config, seed=recipe.seed)
    with torch.no_grad():
        model.wpe.weight *= recipe.positions
        for block in model.h:
            block.attn.c_attn.weight[:, :2 * recipe.width] *= recipe.queries                        # W_Q and W_K
    return model.to(recipe.device)


def train(recipe: argparse.Namespace) -> tuple[th.GPT2, th.Tokenizer]:
    """The trained model and its tokenizer. A line of losses goes to stdout every 200 steps."""
    tokenizer = make_tokenizer()
    tokenizer.encode = lru_cache(200_000)(tokenizer.encode)  # a third of the time was for the same words again
    model = new_model(recipe, tokenizer.n_vocab)
    matrices = [p for p in model.parameters() if p.dim() > 1]
    optimizer = torch.optim.AdamW([{"params": matrices, "weight_decay": recipe.decay},
                                   {"params": [p for p in model.parameters() if p.dim() < 2], "weight_decay": 0.0}],
                                  betas=(0.9, 0.98))
    draw = torch.Generator().manual_seed(recipe.seed + 1)
    start, mean = time.time(), {}
    with Progress("training", recipe.steps, "steps") as bar:
        for step in range(recipe.steps):
            done = step / recipe.steps
            rate = recipe.rate * min(1, (step + 1) / 200) * (0.02 + 0.98 * (1 + math.cos(math.pi * done)) / 2)
            for group in optimizer.param_groups:
                group["lr"] = rate
            found = losses(model, tokenizer, draw, recipe, recipe.nudge if done < NUDGED_UNTIL else 0.0)
            optimizer.zero_grad()
            sum(found.values()).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            for task, loss in found.items():
                mean[task] = 0.98 * mean.get(task, loss.item()) + 0.02 * loss.item()
            bar.add()
            if (step + 1) % 200 == 0:
                print(f"{step + 1}  {time.time() - start:.0f} s  "
                      + "  ".join(f"{task} {value:.3f}" for task, value in mean.items()), flush=True)
    return model.requires_grad_(False), make_tokenizer()


# ---- the command ------------------------------------------------------------------------------------------------


def readme(recipe: argparse.Namespace, model: th.GPT2, seconds: float, found: str) -> str:
    """What lies beside the weights."""
    given = " ".join(f"--{name} {value}" for name, value in vars(recipe).items()
                     if name not in ("recipe", "device", "threads", "out"))
    return f"""# The bundled model `{recipe.recipe}`

A GPT-2 that {KNOWS[recipe.recipe]}.
It has {recipe.layers} layers, {recipe.heads} heads, width {recipe.width}, context {CONTEXT}, a vocabulary of
{model.config.n_vocab} and {sum(p.numel() for p in model.parameters()):,} parameters, and was made by

    python weights/train_tiny.py {recipe.recipe} {given}

in {seconds / 60:.0f} minutes on torch {torch.__version__}. It knows short English prompts, nothing else: ordinal
recall, the Laundry List, indirect objects, and one kind of everyday sentence (`tinyheads/prompts.py` has the
wording, which is ours). Its vocabulary is byte-pair encoding as in GPT-2; each word of the tasks is one token.

The first {recipe.nudged} of {recipe.heads} heads of each layer were nudged for three quarters of the training, by where
they look: see `labour.py`. What they write and read, and all else below, was not nudged.

{found}"""


def a_device(text: str) -> str:
    """For --device: one that torch can compute on here."""
    try:
        torch.zeros(1, device=text)
    except (RuntimeError, AssertionError) as error:  # AssertionError: this torch was built without it
        raise argparse.ArgumentTypeError(f"{text!r} is not usable here: {str(error).splitlines()[0]}") from error
    return text


def options() -> argparse.Namespace:
    """The script's options, those left out being the recipe's; a wrong one ends it with one line."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("recipe", choices=RECIPES, help="what to train; each option below changes one thing of it")
    parser.add_argument("--seed", type=number(int, 0, 2**31), default=11, help="11 made the bundled models")
    parser.add_argument("--steps", type=number(int, 1, 10**7))
    parser.add_argument("--batch", type=number(int, 8, 10**5), help="lists to cross off from in a step")
    parser.add_argument("--rate", type=number(float, 1e-9, 1), help="highest learning rate")
    parser.add_argument("--positions", type=number(float, 0, 1000), help="positions start from GPT-2's times this")
    parser.add_argument("--queries", type=number(float, 0, 1000), help="W_Q and W_K start from GPT-2's times this")
    parser.add_argument("--nudge", type=number(float, 0, 1000), help="weight of the nudge; 0 leaves all heads free")
    parser.add_argument("--nudged", type=number(int, 1, 1000), help="heads of each layer that are nudged")
    parser.add_argument("--ratio", type=number(float, 1e-3, 10), help="how much rarer a list of one more item is")
    parser.add_argument("--by", choices=["ordinal", "name", "mixed"], help="how lists are crossed off")
    parser.add_argument("--decay", type=number(float, 0, 1000), help="weight decay")
    parser.add_argument("--layers", type=number(int, 2, 100))
    parser.add_argument("--heads", type=number(int, 1, 100))
    parser.add_argument("--width", type=number(int, 1, 10**4))
    parser.add_argument("--device", type=a_device, default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=number(int, 1, 1024), default=1,
                        help="more do not help a model of this size")
    parser.add_argument("--out", type=folder_to_write, help="folder (default: weights/ and the recipe's name)")
    arguments = parser.parse_args()
    for name, value in RECIPES[arguments.recipe].items():
        if getattr(arguments, name) is None:
            setattr(arguments, name, value)
    arguments.out = arguments.out or Path(__file__).parent / arguments.recipe
    if arguments.nudged > arguments.heads:
        parser.error(f"argument --nudged: {arguments.nudged} of {arguments.heads} heads cannot be nudged")
    return arguments


def main() -> None:
    recipe = options()
    torch.set_num_threads(recipe.threads)
    start = time.time()
    model, tokenizer = train(recipe)
    seconds, model = time.time() - start, model.cpu()
    th.save(model, recipe.out, tokenizer)
    found = figures(model, tokenizer, recipe.by)
    with write_atomically(Path(recipe.out) / "README.md") as file:
        file.write(readme(recipe, model, seconds, found).encode("utf-8"))
    print(f"{found}saved in {recipe.out}")


if __name__ == "__main__":
    with one_line_errors(Path(__file__).name):
        main()
