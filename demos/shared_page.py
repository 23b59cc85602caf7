"""One page to share: what `reproduce.py` measured, beside what the paper claims, as Markdown and as one HTML file.

`report.md` names its pictures, which lie beside it; `report.html` holds them, so that it can be sent as it is.
"""

import base64
import html
import os
import platform
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path

import torch

import tinyheads as th
from common import Result
from tinyheads.files.array_file import write_atomically

TITLE = "What tinyheads measured"
COLUMNS = ("what", "measured", "model", "sample")
PAPER = "https://arxiv.org/abs/2406.09519"
OURS = ("0",)                                                    # chapters whose claim is not the paper's
STYLE = """body { max-width: 60rem; margin: auto; padding: 0 1rem 3rem; }
body { font: 1rem/1.45 system-ui, sans-serif; color: #111; background: #fff; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th, td { border: 1px solid #999; padding: .25rem .5rem; text-align: left; vertical-align: top; }
td { overflow-wrap: anywhere; }
td:first-child, td:nth-child(3) { min-width: 4.5rem; }
blockquote { margin: .5rem 0; padding: .2rem .8rem; border-left: 4px solid #111; }
img { max-width: 100%; }"""


@dataclass
class Section:
    """One chapter: its number, what is claimed, whose claim that is, and its results."""

    number: str
    claim: str
    results: list[Result]

    @property
    def whose(self) -> str:
        return "Ours, as a check of the methods" if self.number in OURS else "The paper claims"

    @property
    def figures(self) -> list[Path]:
        """Each figure once, in order; those that are there."""
        names = dict.fromkeys(result.figure for result in self.results if result.figure)
        return [Path(name) for name in names if Path(name).is_file()]

    @property
    def rows(self) -> list[tuple[str, ...]]:
        return [(result.chapter[2:], result.measured, result.model, result.sample) for result in self.results]


def facts(seconds: float, asked: str | None) -> dict[str, str]:
    """What a reader of the page has to know of the run: when, how long, what with, on what."""
    versions = [f"{name} {metadata.version(name)}" for name in ("torch", "numpy", "matplotlib")]
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return {
        "asked for": f"--model {asked}" if asked else "the best weights on this machine, chapter by chapter",
        "ended": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"), "took": f"{seconds:.0f} s",
        "versions": ", ".join([f"tinyheads {th.__version__}", f"Python {platform.python_version()}", *versions]),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs, {device}",
        "seeds": "fixed in each chapter's text, so that a run can be repeated; n stands with each result",
    }


def as_markdown(run: dict[str, str], sections: list[Section]) -> str:
    """The page in Markdown. Figures are named as files beside it."""
    cell = lambda text: text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
    line = lambda cells: f"| {' | '.join(map(cell, cells))} |"
    lines = [f"# {TITLE}", "", f"Claims are those of [Merullo et al. 2024]({PAPER}), in short.", "",
             *(f"- {name}: {value}" for name, value in run.items())]
    for section in sections:
        lines += ["", f"## Chapter {section.number}", "", f"> {section.whose}: {section.claim}", "",
                  line(COLUMNS), line(["---"] * len(COLUMNS)), *map(line, section.rows), ""]
        lines += [f"![{path.stem}]({path.name})" for path in section.figures]
    return "\n".join(lines) + "\n"


def as_html(run: dict[str, str], sections: list[Section]) -> str:
    """The same as one file that needs no other: figures are embedded as data URIs."""
    e = html.escape
    line = lambda cells, kind: f"<tr>{''.join(f'<{kind}>{e(text)}</{kind}>' for text in cells)}</tr>"
    image = lambda path: (f'<p><img alt="{e(path.stem)}" src="data:image/png;base64,'
                          f'{base64.b64encode(path.read_bytes()).decode("ascii")}"></p>')
    parts = [f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{TITLE}</title>',
             '<meta name="viewport" content="width=device-width, initial-scale=1">',
             f"<style>\n{STYLE}\n</style>\n</head>\n<body>\n<h1>{TITLE}</h1>",
             f'<p>Claims are those of <a href="{PAPER}">Merullo et al. 2024</a>, in short.</p>\n<ul>',
             *(f"<li>{e(name)}: {e(value)}</li>" for name, value in run.items()), "</ul>"]
    for section in sections:
        parts += [f"<h2>Chapter {e(section.number)}</h2>",
                  f"<blockquote>{section.whose}: {e(section.claim)}</blockquote>\n<table>", line(COLUMNS, "th"),
                  *(line(row, "td") for row in section.rows), "</table>", *map(image, section.figures)]
    return "\n".join([*parts, "</body>\n</html>\n"])


def share(out: Path, sections: list[Section], seconds: float, asked: str | None = None) -> Path:
    """Write out/report.md and out/report.html, each whole or not at all; gives the second."""
    run = facts(seconds, asked)
    for name, text in (("report.md", as_markdown(run, sections)), ("report.html", as_html(run, sections))):
        with write_atomically(Path(out) / name) as file:
            file.write(text.encode("utf-8"))
    return Path(out) / "report.html"
