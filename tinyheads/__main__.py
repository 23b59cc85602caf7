"""The package's commands.

    python -m tinyheads download 124M     fetch a GPT-2 of OpenAI's, or a Pythia of EleutherAI's (pythia-160m)
    python -m tinyheads check 124M        hold what was loaded against published facts of the real model
    python -m tinyheads plant FOLDER      build a GPT-2 by hand, whose circuit for lists is known, for --model FOLDER
"""

import argparse
import os
import sys
from pathlib import Path

from tinyheads.config import OPENAI_SIZES, PYTHIA_SIZES, GPT2Config
from tinyheads.files.command import Parser, folder_to_write, number, one_line_errors
from tinyheads.files.weights import download, load_heads, load_tokenizer

SMALL = {"n_ctx": 128, "n_embd": 256, "n_layer": 4, "n_head": 4}  # of a planted model that is quick to try things on


def main() -> int:
    """The command: its arguments are those of the process. Gives the exit status, 1 where a check failed."""
    parser = Parser(prog="python -m tinyheads", description="Fetch a GPT-2 of OpenAI's, or a Pythia, check it, or "
                                                            "build a GPT-2 by hand.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="{download,check,plant}")
    fetch = commands.add_parser("download", help="fetch a GPT-2 of OpenAI's, or a Pythia of EleutherAI's")
    fetch.add_argument("name", help=", ".join([*OPENAI_SIZES, *PYTHIA_SIZES]))
    fetch.add_argument("--folder", type=folder_to_write, help="where to put the files (default: weights/<name>)")
    fetch.add_argument("--base-url", help="address before /<name>/<file> (default: OpenAI's, EleutherAI's on the hub)")
    held = commands.add_parser("check", help="hold a model against published facts of the real one")
    held.add_argument("model", help="a name (124M, pythia-160m) or a path; attention weights alone will do for a part")
    build = commands.add_parser("plant", help="build a GPT-2 by hand, whose circuit for lists is known")
    build.add_argument("folder", type=folder_to_write, help="where to write it, and planted.json: what was planted")
    build.add_argument("--seed", type=number(int, 0, 2**31 - 1), default=0,
                       help="decides which heads, components, dimensions and capacity (default: 0)")
    build.add_argument("--small", action="store_true", help="4 layers of width 256 in place of GPT-2 124M's 12 of 768")
    build.add_argument("--without-channel", action="store_true", help="inhibition heads write where no mover reads")
    arguments = parser.parse_args()
    again = "; run again to continue where it stopped" if arguments.command == "download" else ""
    with one_line_errors(f"{parser.prog} {arguments.command}", "interrupted" + again):
        if arguments.command == "download":
            print(f"{arguments.name} is in {download(arguments.name, arguments.folder, arguments.base_url)}")
            return 0
        return check_model(arguments.model) if arguments.command == "check" else plant_into(arguments)


def check_model(model: str) -> int:
    """Print what `check` finds; 0 where all of it agrees, else 1."""
    from tinyheads.check import check, report            # only here: a download need not wait for it

    facts, rows, left_out = check(model)
    print(report(model, facts, rows, left_out))
    return 0 if all(row.passed for row in rows) else 1


def plant_into(arguments: argparse.Namespace) -> int:
    """Build a planted model, write it, and print in a line what it is.

    The tokenizer and real attention weights are those in the folder that TINYHEADS_GPT2 names, as far as they are
    there; else the tokenizer is that of the bundled `named`, and noise stands in for heads.
    """
    from tinyheads.planted_gpt2 import plant, save_planted

    folder = os.environ.get("TINYHEADS_GPT2")
    tokenizer, attention = load_tokenizer(folder or "named"), Path(folder or "") / "model-attention.safetensors"
    real = load_heads(attention) if folder and attention.exists() and not arguments.small else None
    config = GPT2Config(n_vocab=tokenizer.n_vocab, **(SMALL if arguments.small else {}))
    planted = plant(tokenizer, arguments.seed, config, real, with_channel=not arguments.without_channel)
    heads, words = "OpenAI's" if real else "noise", "GPT-2's" if folder else "the bundled model's"
    save_planted(planted, arguments.folder, tokenizer, seed=arguments.seed, **{"other heads": heads})
    print(f"planted in {arguments.folder} (other heads: {heads}; tokenizer: {words}): {planted.circuit}; channel "
          f"{', '.join(map(str, planted.components))}; capacity {planted.capacity} places")
    return 0


if __name__ == "__main__":
    if status := main():
        sys.exit(status)
