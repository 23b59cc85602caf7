"""Commands: `python -m tinyheads download 124M` fetches a GPT-2 of OpenAI's, `plant FOLDER` builds one by hand."""

import argparse
import os
from pathlib import Path

from tinyheads.config import OPENAI_SIZES, GPT2Config
from tinyheads.files.command import Parser, folder_to_write, number, one_line_errors
from tinyheads.files.weights import download, load_heads, load_tokenizer
from tinyheads.planted_gpt2 import plant, save_planted

SMALL = {"n_ctx": 128, "n_embd": 256, "n_layer": 4, "n_head": 4}  # of a planted model that is quick to try things on


def main() -> None:
    """The command: its arguments are those of the process."""
    parser = Parser(prog="python -m tinyheads", description="Fetch a GPT-2 of OpenAI's, or build one by hand.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="download | plant")
    fetch = commands.add_parser("download", help="fetch a GPT-2 of OpenAI's")
    fetch.add_argument("size", help=", ".join(OPENAI_SIZES))
    fetch.add_argument("--folder", type=folder_to_write, help="where to put the files (default: weights/<size>)")
    fetch.add_argument("--base-url", help="address before /<size>/<file> (default: OpenAI's)")
    build = commands.add_parser("plant", help="build a GPT-2 whose circuit for lists is known, for --model FOLDER")
    build.add_argument("folder", type=folder_to_write, help="where to write it, and planted.json: what was planted")
    build.add_argument("--seed", type=number(int, 0, 2**31 - 1), default=0, help="which heads, components and capacity")
    build.add_argument("--small", action="store_true", help="4 layers of width 256 in place of GPT-2 124M's 12 of 768")
    build.add_argument("--without-channel", action="store_true", help="inhibition heads write where no mover reads")
    with one_line_errors("python -m tinyheads", interrupted="interrupted; run again to continue where it stopped"):
        arguments = parser.parse_args()
        if arguments.command == "plant":
            print(plant_into(arguments))
        else:
            print(f"{arguments.size} is in {download(arguments.size, arguments.folder, arguments.base_url)}")


def plant_into(arguments: argparse.Namespace) -> str:
    """Build a planted model and write it: what it is, in a line.

    The tokenizer and real attention weights are those in the folder that TINYHEADS_GPT2 names, as far as they are
    there; else the tokenizer is that of the bundled `named`, and noise stands in for heads.
    """
    folder = os.environ.get("TINYHEADS_GPT2")
    tokenizer, attention = load_tokenizer(folder or "named"), Path(folder or "") / "model-attention.safetensors"
    real = load_heads(attention) if folder and attention.exists() and not arguments.small else None
    config = GPT2Config(n_vocab=tokenizer.n_vocab, **(SMALL if arguments.small else {}))
    planted = plant(tokenizer, arguments.seed, config, real, with_channel=not arguments.without_channel)
    heads, words = "OpenAI's" if real else "noise", "GPT-2's" if folder else "the bundled model's"
    save_planted(planted, arguments.folder, tokenizer, seed=arguments.seed, **{"other heads": heads})
    return (f"planted in {arguments.folder} (other heads: {heads}; tokenizer: {words}): {planted.circuit}; channel "
            f"{', '.join(map(str, planted.components))}; capacity {planted.capacity} places")


if __name__ == "__main__":
    main()
