"""The page to share: what was claimed, measured and on what, in Markdown and as one HTML file with its pictures."""

import base64
import re
import sys
from pathlib import Path

import pytest
import torch

import tinyheads as th

DEMOS = Path(__file__).parents[1] / "demos"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))


@pytest.fixture
def shared_page(monkeypatch):
    monkeypatch.syspath_prepend(str(DEMOS))
    import shared_page
    return shared_page


@pytest.fixture
def written(shared_page, tmp_path):
    """The two pages of three results, of which two share a figure and one has none."""
    figure = tmp_path / "05_a.png"
    figure.write_bytes(PNG)
    results = [shared_page.Result("5 rate", "0.99 | a < b & c", "<tiny>", "n=1000", str(figure)),
               shared_page.Result("5 more", "0.11", "content", "n=12", str(figure))]
    check = [shared_page.Result("0 none", "0.5", "by hand", "n=3", str(tmp_path / "missing.png"))]
    sections = [shared_page.Section("0", "Each is found.", check), shared_page.Section("5", "Three suffice.", results)]
    path = shared_page.share(tmp_path, sections, 12.3, "124M")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["05_a.png", "report.html", "report.md"]
    return (tmp_path / "report.md").read_text(encoding="utf-8"), path.read_text(encoding="utf-8")


def test_both_say_the_claim_whose_it_is_the_figures_and_the_run(written):
    for text in written:
        assert "The paper claims: Three suffice." in text and "Ours, as a check of the methods: Each is found." in text
        said = ("0.11", "n=1000", "n=12", "content", "--model 124M", "12 s", "seeds", "CPUs")
        assert all(word in text for word in said)
        assert f"torch {torch.__version__.split('+')[0]}" in text and f"tinyheads {th.__version__}" in text
        assert re.search(r"ended: \d{4}-\d\d-\d\d \d\d:\d\d UTC", text)


def test_the_html_holds_its_pictures_once_each_and_needs_no_other_file(written):
    pictures = re.findall(r'src="([^"]*)"', written[1])
    assert [base64.b64decode(picture.removeprefix("data:image/png;base64,")) for picture in pictures] == [PNG]
    assert re.findall(r"<link|<script|url\(|@import", written[1]) == []


def test_what_was_measured_cannot_break_a_table(written):
    markdown, page = written
    assert "| rate | 0.99 \\| a &lt; b & c | &lt;tiny> | n=1000 |" in markdown and "![05_a](05_a.png)" in markdown
    assert "<td>0.99 | a &lt; b &amp; c</td><td>&lt;tiny&gt;</td>" in page and "missing" not in markdown + page
