"""The package's commands.

    python -m tinyheads download 124M     fetch a GPT-2 of OpenAI's
    python -m tinyheads check 124M        hold what was loaded against published facts of the real model
"""

import sys

from tinyheads.config import OPENAI_SIZES
from tinyheads.files.command import Parser, folder_to_write, one_line_errors
from tinyheads.files.weights import download


def main() -> int:
    """The command: its arguments are those of the process. Gives the exit status, 1 where a check failed."""
    parser = Parser(prog="python -m tinyheads", description="Fetch a GPT-2 of OpenAI's, and check it.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="{download,check}")
    fetch = commands.add_parser("download", help="fetch a GPT-2 of OpenAI's")
    fetch.add_argument("size", help=", ".join(OPENAI_SIZES))
    fetch.add_argument("--folder", type=folder_to_write, help="where to put the files (default: weights/<size>)")
    fetch.add_argument("--base-url", help="address before /<size>/<file> (default: OpenAI's)")
    held = commands.add_parser("check", help="hold a model against published facts of the real one")
    held.add_argument("model", help="a name (124M) or a path; attention weights alone will do for a part")
    with one_line_errors(parser.prog, interrupted="interrupted; a download continues where it stopped"):
        arguments = parser.parse_args()
        if arguments.command == "download":
            print(f"{arguments.size} is in {download(arguments.size, arguments.folder, arguments.base_url)}")
            return 0
        return check_model(arguments.model)


def check_model(model: str) -> int:
    """Print what `check` finds; 0 where all of it agrees, else 1."""
    from tinyheads.check import check, report            # only here: a download need not wait for it

    facts, rows, left_out = check(model)
    print(report(model, facts, rows, left_out))
    return 0 if all(row.passed for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
