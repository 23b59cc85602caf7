"""Train the bundled model, weights/tiny: a small GPT-2 whose circuit for lists can be seen.

    python weights/train_tiny.py                     # five minutes on one core
    python weights/train_tiny.py --seed 1 --out /tmp/other

Every step takes a batch of each task of tinyheads.prompts, all lists of a batch being equally long, and adds the
losses up: the tasks' on the answer alone, that of everyday text on every token. Lists to recall from have 2 to
20 items, uniformly; lists to cross off from are the rarer the longer, by a factor of 0.6 for each item. IOI and
text use four fifths of all pairs of names; the others are left for testing.

These tasks have more than one solution, and the loss does not care which. Left alone, most runs find look-ups ("the
mention of the third if there is one, else the third item", a head for each place), some find movers, some
subtract a bag of words. So for the first three quarters of the training a nudge asks for one division of labour,
the paper's, by where END looks (`division_of_labour`): one layer at what was mentioned, all mentions alike; the next
at the answer's place. The last quarter has the tasks' losses alone. What is written there and read there, how
strongly, in how many dimensions, and how far it carries, nothing but the tasks' losses says.
"""

import argparse
import math
import time
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

import tinyheads as th
from tinyheads.files.array_file import write_atomically
from tinyheads.files.command import Parser, folder_to_write, number, one_line_errors
from tinyheads.files.progress import Progress
from vocabulary import make_tokenizer

CONTEXT = 128
LENGTHS = range(2, 21)
NUDGED = 0.75  # the part of the training in which END is nudged
BY_HAND = "## Over seeds"


# ---- training ---------------------------------------------------------------------------------------------------


def draw_length(draw: torch.Generator, ratio: float) -> int:
    """A list's length from LENGTHS, each `ratio` times as likely as the one before."""
    weights = torch.tensor([float(ratio)**k for k in range(len(LENGTHS))])
    return LENGTHS[int(torch.multinomial(weights, 1, generator=draw))]


def answer_loss(model: th.GPT2, prompts: th.Prompts, nudge: float = 0.0, crossed_off: bool = True) -> Tensor:
    """Cross-entropy of the answers, and `nudge` times how far END is from the division of labour.

    Only END is turned into logits, which saves a third of the time.
    """
    device = model.wte.weight.device
    stream, patterns = keeping_patterns(model) if nudge else (None, {})
    logits = model.final(prompts.tokens.to(device), stream)[:, -1] @ model.unembedding.T            # [B, V]
    loss = F.cross_entropy(logits, prompts.answer.to(device))
    return loss + nudge * division_of_labour(patterns, prompts, crossed_off) if nudge else loss


def keeping_patterns(model: th.GPT2) -> tuple[th.Stream, dict[str, Tensor]]:
    """A stream for one run, and where it puts the attention patterns, so that gradients pass through them.

    A stream that records would hold each head's write as well, one by one: slower, and rounded otherwise.
    """
    patterns: dict[str, Tensor] = {}
    keep = lambda name: th.Edit(name, lambda pattern: patterns.setdefault(name, pattern), of="patterns")
    return th.Stream(edits=[keep(name) for name in th.pattern_names(model.config)]), patterns


def division_of_labour(patterns: Mapping[str, Tensor], prompts: th.Prompts, crossed_off: bool) -> Tensor:
    """How far END's attention is from the paper's division of labour, in nats; 0 at best. A mean over heads.

    In the last layer END should look at the answer's place: -log of its attention there. Where items are crossed off,
    in the last layer but one it should look at the mentions, at all of them alike (`unevenness`), and in the others
    away from them: -log of the rest.
    """
    *before, inhibition, moving = patterns.values()
    found = -attention_of_end(moving, prompts, th.answer_places(prompts)).clamp_min(1e-6).log().mean()
    if crossed_off:
        found = found + unevenness(inhibition, prompts)
        for pattern in [*before, moving]:
            away = 1 - attention_of_end(pattern, prompts, prompts.mentions).sum(-1)                 # [B, H]
            found = found - 0.6 * away.clamp_min(1e-6).log().mean()
        found = found + from_mentions_back(patterns["L0"], prompts)
    return found


def attention_of_end(pattern: Tensor, prompts: th.Prompts, places: Tensor) -> Tensor:
    """END's attention on some places [B, M] in a pattern [B, H, T, T]: [B, H, M]."""
    seen = pattern[:, :, prompts.end]                                                               # [B, H, T]
    return seen.gather(2, places[:, None].to(seen.device).expand(-1, seen.shape[1], -1))


def unevenness(pattern: Tensor, prompts: th.Prompts) -> Tensor:
    """How far END's attention is from looking at all mentions alike and at nothing else: a divergence, in nats."""
    seen = attention_of_end(pattern, prompts, prompts.mentions).clamp_min(1e-9)                     # [B, H, M]
    return -seen.log().mean() - math.log(prompts.mentions.shape[1])


def from_mentions_back(pattern: Tensor, prompts: th.Prompts) -> Tensor:
    """Where items are crossed off by name: -log of layer 0's attention [B, H, T, T] from each mention to that item.

    The duplicate-token heads of Wang et al. (2022). Elsewhere no mention is of a candidate: there is nothing to add.
    """
    mentioned = prompts.tokens.gather(1, prompts.mentions)                                          # [B, M]
    same = mentioned[:, :, None] == prompts.candidates[:, None]                                     # [B, M, N]
    if not same.any(2).all():
        return pattern.new_zeros(())
    first = prompts.positions.gather(1, same.int().argmax(2))                                       # [B, M]
    back = pattern[torch.arange(len(first))[:, None], :, prompts.mentions, first]                   # [B, M, H]
    return -back.clamp_min(1e-6).log().mean()


def text_loss(model: th.GPT2, tokens: Tensor) -> Tensor:
    """Cross-entropy of every token of plain text [B, T] but the first."""
    tokens = tokens.to(model.wte.weight.device)
    return F.cross_entropy((model.final(tokens)[:, :-1] @ model.unembedding.T).flatten(0, 1), tokens[:, 1:].flatten())


def losses(model: th.GPT2, tokenizer: th.Tokenizer, draw: torch.Generator, batch: int, ratio: float, nudge: float,
           by_name: bool) -> dict[str, Tensor]:
    """One batch of every task, and its loss. The lists' have the nudge in them."""
    recall = th.ordinal_recall(tokenizer, batch * 3 // 4, draw_length(draw, 1), draw)
    laundry = th.laundry_list(tokenizer, batch, draw_length(draw, ratio), "ordinal", draw)
    found = {
        "recall": answer_loss(model, recall, nudge, crossed_off=False),
        "laundry": answer_loss(model, laundry, nudge),
        "ioi": answer_loss(model, th.ioi(tokenizer, batch, "mixed", draw, pairs="train")),
        "text": text_loss(model, th.everyday_text(tokenizer, batch // 8, draw)),
    }
    if nudge:  # how to look at long lists, which are rare, but not how to answer them
        long = th.laundry_list(tokenizer, batch // 2, draw_length(draw, 1), "ordinal", draw)
        stream, patterns = keeping_patterns(model)
        model.final(long.tokens.to(model.wte.weight.device), stream)
        found["long"] = nudge * unevenness(list(patterns.values())[-2], long)
    if by_name:
        named = th.laundry_list(tokenizer, batch, draw_length(draw, ratio), "name", draw)
        found["name"] = answer_loss(model, named, nudge)
    return found


def new_model(arguments: argparse.Namespace, n_vocab: int) -> th.GPT2:
    """A model with random weights; positions start larger than GPT-2's, which teaches recall sooner."""
    config = th.GPT2Config(n_vocab, CONTEXT, arguments.width, arguments.layers, arguments.heads)
    model = th.GPT2(config, seed=arguments.seed)
    with torch.no_grad():
        model.wpe.weight *= arguments.positions
    return model.to(arguments.device)


def train(arguments: argparse.Namespace) -> tuple[th.GPT2, th.Tokenizer]:
    """The trained model and its tokenizer. A line of losses goes to stdout every 200 steps."""
    tokenizer = make_tokenizer()
    model = new_model(arguments, tokenizer.n_vocab)
    matrices = [p for p in model.parameters() if p.dim() > 1]
    optimizer = torch.optim.AdamW([{"params": matrices, "weight_decay": arguments.decay},
                                   {"params": [p for p in model.parameters() if p.dim() < 2], "weight_decay": 0.0}],
                                  betas=(0.9, 0.98))
    draw = torch.Generator().manual_seed(arguments.seed + 1)
    start, mean = time.time(), {}
    with Progress("training", arguments.steps, "steps") as bar:
        for step in range(arguments.steps):
            done = step / arguments.steps
            rate = arguments.rate * min(1, (step + 1) / 200) * (0.02 + 0.98 * (1 + math.cos(math.pi * done)) / 2)
            for group in optimizer.param_groups:
                group["lr"] = rate
            nudge = arguments.nudge if done < NUDGED else 0.0
            found = losses(model, tokenizer, draw, arguments.batch, arguments.ratio, nudge, arguments.by_name)
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
    return model.requires_grad_(False), tokenizer


# ---- what came of it --------------------------------------------------------------------------------------------


def figures(model: th.GPT2, tokenizer: th.Tokenizer, n: int = 1000) -> str:
    """The model's accuracy by task and length, and its channel at 5 items, as Markdown; n prompts of each kind."""
    lengths = [2, 3, 4, 5, 6, 8, 10, 12, 14, 16, 20]
    lines = ["| task, accuracy among | " + " | ".join(map(str, lengths)) + " |", "| --- |" + " --- |" * len(lengths)]
    for name, task in [("ordinal recall", lambda N: th.ordinal_recall(tokenizer, n, N, 1001)),
                       ("Laundry List", lambda N: th.laundry_list(tokenizer, n, N, "ordinal", 1002))]:
        for among in ("candidates", "vocabulary"):
            row = th.accuracy_by_length(model, task, lengths, among)
            lines.append(f"| {name}, {among} | " + " | ".join(f"{value:.3f}" for value in row.values()) + " |")
    lines.append("")
    for order in ("ABBA", "BABA"):
        prompts = th.ioi(tokenizer, n, order, 1003, pairs="test")
        right = th.accuracy(model, prompts, "vocabulary")
        lines.append(f"- IOI, {order}, pairs of names never seen in training, whole vocabulary: {right:.3f}")
    text = th.everyday_text(tokenizer, n, 1004, pairs="test")
    lines.append(f"- perplexity on everyday text, unseen pairs: {th.perplexity(model, text):.3f}")
    prompts = th.laundry_list(tokenizer, n, 5, "ordinal", 1005)
    circuit = th.find_circuit(model, prompts)
    for what, heads, places in [
            ("inhibition heads, END's attention on the mentions", circuit.inhibition, prompts.mentions),
            ("mover heads, END's attention on the answer's place", circuit.movers, th.answer_places(prompts))]:
        attention = th.attention_on(model, prompts, places)                                             # [L, H]
        lines.append(f"- {what} at 5 items{'' if circuit.found else ' (no circuit: the nearest)'}: "
                     + ", ".join(f"{head} {attention[head.layer, head.head]:.2f}" for head in heads))
    edges = th.predict_edges(th.Heads.of(model), "Q", 4, circuit.movers[0])
    lines.append("- edges into the first mover, by weights alone: "
                 + ", ".join(f"{edge} ({edge.score:.2f})" for edge in edges))
    return "\n".join(lines) + "\n"


def readme(arguments: argparse.Namespace, model: th.GPT2, seconds: float, found: str) -> str:
    """What lies beside the weights."""
    given = " ".join(f"--{name} {value}" for name, value in vars(arguments).items()
                     if name not in ("by_name", "device", "threads", "out"))
    return f"""# The bundled model

A GPT-2 of {arguments.layers} layers, {arguments.heads} heads, width {arguments.width}, context {CONTEXT} and a
vocabulary of {model.config.n_vocab} ({sum(p.numel() for p in model.parameters()):,} parameters), made by

    python weights/train_tiny.py {given}

in {seconds / 60:.0f} minutes on torch {torch.__version__}. It knows short English prompts, nothing else: ordinal
recall, the Laundry List by ordinal, indirect objects, and one kind of everyday sentence (`tinyheads/prompts.py` has the
wording, which is ours). Its vocabulary is byte-pair encoding as in GPT-2; each word of the tasks is one token.

Figures on fresh prompts, 1,000 of each kind (`figures` in the script), accuracy by list length:

{found}"""


def a_device(text: str) -> str:
    """For --device: one that torch can compute on here."""
    try:
        torch.zeros(1, device=text)
    except (RuntimeError, AssertionError) as error:  # AssertionError: this torch was built without it
        raise argparse.ArgumentTypeError(f"{text!r} is not usable here: {str(error).splitlines()[0]}") from error
    return text


def options() -> argparse.Namespace:
    """The script's options; a wrong one ends it with one line."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("--seed", type=number(int, 0, 2**31), default=2, help="2 made the bundled model")
    parser.add_argument("--steps", type=number(int, 1, 10**7), default=2600)
    parser.add_argument("--batch", type=number(int, 8, 10**5), default=48, help="lists to cross off from in a step")
    parser.add_argument("--rate", type=number(float, 1e-9, 1), default=3e-3, help="highest learning rate")
    parser.add_argument("--positions", type=number(float, 0, 1000), default=3.0,
                        help="positions start from GPT-2's times this")
    parser.add_argument("--nudge", type=number(float, 0, 1000), default=0.5,
                        help="weight of the division of labour; 0 leaves it open")
    parser.add_argument("--ratio", type=number(float, 1e-3, 10), default=0.6,
                        help="how much rarer a list of one more item is")
    parser.add_argument("--decay", type=number(float, 0, 1000), default=0.01, help="weight decay")
    parser.add_argument("--layers", type=number(int, 2, 100), default=2)
    parser.add_argument("--heads", type=number(int, 1, 100), default=4)
    parser.add_argument("--width", type=number(int, 1, 10**4), default=64)
    parser.add_argument("--by-name", action="store_true", help="cross off by name too; give it 3 layers")
    parser.add_argument("--device", type=a_device, default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=number(int, 1, 1024), default=1,
                        help="more do not help a model of this size")
    parser.add_argument("--out", type=folder_to_write, default=str(Path(__file__).parent / "tiny"))
    return parser.parse_args()


def main() -> None:
    arguments = options()
    torch.set_num_threads(arguments.threads)
    start = time.time()
    model, tokenizer = train(arguments)
    seconds, model = time.time() - start, model.cpu()
    th.save(model, arguments.out, tokenizer)
    found = figures(model, tokenizer)
    page = arguments.out / "README.md"
    old = page.read_text() if page.exists() else ""
    by_hand = old[old.index(BY_HAND):] if BY_HAND in old else ""  # what was written below the figures is kept
    with write_atomically(page) as file:
        file.write((readme(arguments, model, seconds, found) + (f"\n{by_hand}" if by_hand else "")).encode("utf-8"))
    print(f"{found}saved in {arguments.out}")


if __name__ == "__main__":
    with one_line_errors(Path(__file__).name):
        main()
