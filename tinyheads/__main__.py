"""`python -m tinyheads download 124M`: fetch a GPT-2 of OpenAI's."""

import argparse

from tinyheads.config import OPENAI_SIZES
from tinyheads.files.weights import download
from tinyheads.errors import TinyheadsError

parser = argparse.ArgumentParser(prog="python -m tinyheads")
commands = parser.add_subparsers(dest="command", required=True)
fetch = commands.add_parser("download", help="fetch a GPT-2 of OpenAI's")
fetch.add_argument("size", choices=OPENAI_SIZES)
fetch.add_argument("--folder", help="where to put the files (default: weights/<size>)")
fetch.add_argument("--base-url", help="address before /<size>/<file> (default: OpenAI's)")
arguments = parser.parse_args()
try:
    print(f"{arguments.size} is in {download(arguments.size, arguments.folder, arguments.base_url)}")
except TinyheadsError as error:
    raise SystemExit(f"download failed: {error}")
except KeyboardInterrupt:
    raise SystemExit("interrupted; run again to continue where it stopped")
