"""`python -m tinyheads download 124M`: fetch a GPT-2 of OpenAI's, or a Pythia of EleutherAI's."""

from tinyheads.config import OPENAI_SIZES, PYTHIA_SIZES
from tinyheads.files.command import Parser, folder_to_write, one_line_errors
from tinyheads.files.weights import download


def main() -> None:
    """The command: its arguments are those of the process."""
    parser = Parser(prog="python -m tinyheads", description="Fetch a GPT-2 of OpenAI's, or a Pythia of EleutherAI's.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="download")
    fetch = commands.add_parser("download", help="fetch a GPT-2 of OpenAI's, or a Pythia of EleutherAI's")
    fetch.add_argument("name", help=", ".join([*OPENAI_SIZES, *PYTHIA_SIZES]))
    fetch.add_argument("--folder", type=folder_to_write, help="where to put the files (default: weights/<name>)")
    fetch.add_argument("--base-url", help="address before /<name>/<file> (default: OpenAI's, EleutherAI's on the hub)")
    with one_line_errors(fetch.prog, interrupted="interrupted; run again to continue where it stopped"):
        arguments = parser.parse_args()
        print(f"{arguments.name} is in {download(arguments.name, arguments.folder, arguments.base_url)}")


if __name__ == "__main__":
    main()
