"""The package's commands.

    python -m tinyheads download 124M     fetch a GPT-2 of OpenAI's, or a Pythia of EleutherAI's (pythia-160m)
    python -m tinyheads check 124M        hold what was loaded against published facts of the real model
"""

import sys

from tinyheads.config import OPENAI_SIZES, PYTHIA_SIZES
from tinyheads.files.command import Parser, folder_to_write, one_line_errors
from tinyheads.files.weights import download


def main() -> int:
    """The command: its arguments are those of the process. Gives the exit status, 1 where a check failed."""
    parser = Parser(prog="python -m tinyheads", description="Fetch a GPT-2 of OpenAI's, or a Pythia, and check it.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="{download,check}")
    fetch = commands.add_parser("download", help="fetch a GPT-2 of OpenAI's, or a Pythia of EleutherAI's")
    fetch.add_argument("name", help=", ".join([*OPENAI_SIZES, *PYTHIA_SIZES]))
    fetch.add_argument("--folder", type=folder_to_write, help="where to put the files (default: weights/<name>)")
    fetch.add_argument("--base-url", help="address before /<name>/<file> (default: OpenAI's, EleutherAI's on the hub)")
    held = commands.add_parser("check", help="hold a model against published facts of the real one")
    held.add_argument("model", help="a name (124M, pythia-160m) or a path; attention weights alone will do for a part")
    arguments = parser.parse_args()
    again = "; run again to continue where it stopped" if arguments.command == "download" else ""
    with one_line_errors(f"{parser.prog} {arguments.command}", "interrupted" + again):
        if arguments.command == "download":
            print(f"{arguments.name} is in {download(arguments.name, arguments.folder, arguments.base_url)}")
            return 0
        return check_model(arguments.model)


def check_model(model: str) -> int:
    """Print what `check` finds; 0 where all of it agrees, else 1."""
    from tinyheads.check import check, report            # only here: a download need not wait for it

    facts, rows, left_out = check(model)
    print(report(model, facts, rows, left_out))
    return 0 if all(row.passed for row in rows) else 1


if __name__ == "__main__":
    if status := main():
        sys.exit(status)
