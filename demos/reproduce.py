"""Run every numbered demo on the best weights there are, and print one table of what they found.

    python demos/reproduce.py [--model NAME_OR_PATH] [--out FOLDER]

Without --model each demo takes the best it can use: a whole model to run, attention weights to
read. The table also goes to `out/results.json`.
"""

import json
import runpy
import sys
import time
from dataclasses import asdict
from pathlib import Path

from common import options, say, table

arguments = options(__doc__.split("\n")[0])
demos = sorted(Path(__file__).parent.glob("[0-9][0-9]_*.py"))
out = Path(arguments.out)
results, start = [], time.perf_counter()
for demo in demos:
    say(f"\n===== {demo.stem} =====\n")
    sys.argv = [str(demo), "--out", str(out)] + (["--model", arguments.model] if arguments.model else [])
    results += runpy.run_path(str(demo), run_name="__main__")["results"]
    say(f"({time.perf_counter() - start:.0f} s so far)")

out.mkdir(parents=True, exist_ok=True)
(out / "results.json").write_text(json.dumps([asdict(result) for result in results], indent=2) + "\n")
say("\n===== summary =====\n")
for result in results:
    say(f"{result.chapter}\n    {result.measured}\n    on {result.model}, {result.sample}; figure: {result.figure}")
say(f"\n{len(demos)} demos in {time.perf_counter() - start:.0f} s; this table: {out / 'results.json'}")
