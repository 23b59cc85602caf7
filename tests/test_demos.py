"""The demos run from a plain shell, on whatever weights there are, and leave their figures."""

import html
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import tinyheads as th
from tinyheads import plots

DEMOS = Path(__file__).parents[1] / "demos"
PNG = b"\x89PNG\r\n\x1a\n"


def run(script, *arguments, **environment):
    """Run a demo in a process of its own: what it printed, and its exit status."""
    kept = {name: value for name, value in os.environ.items() if name not in ("TINYHEADS_GPT2", "TINYHEADS_WEIGHTS")}
    done = subprocess.run([sys.executable, str(DEMOS / script), *arguments], capture_output=True, text=True,
                          env={**kept, "MPLBACKEND": "agg", **environment})
    return done


def test_the_demos_run_on_the_bundled_model_and_their_results_are_kept(tmp_path):
    """The quick ones; .ci/run runs all eight, as the README's main command."""
    done = run("reproduce.py", "--only", "0123", "--out", str(tmp_path), HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "results.json").read_text())
    assert {result["chapter"][0] for result in results} == {"0", "1", "2", "3"}
    chapters = [json.loads((tmp_path / f"results_{number}.json").read_text()) for number in range(4)]
    assert [{**row, "claim": None} for row in results] == [{**row, "claim": None} for rows in chapters for row in rows]
    assert (tmp_path / "contact_sheet.png").read_bytes().startswith(PNG)
    pages = [(tmp_path / name).read_text(encoding="utf-8") for name in ("report.md", "report.html")]
    assert all(html.escape(text) in pages[1] for result in results for text in (result["claim"], result["measured"]))
    assert all(result["claim"] in pages[0] and Path(result["figure"]).name in pages[0] for result in results)
    for result in results:
        assert result["claim"]
        assert result["model"] and result["sample"] and result["measured"]
        assert Path(result["figure"]).parent == tmp_path and Path(result["figure"]).read_bytes().startswith(PNG)
        assert result["model"] == {"0": "written by hand", "1": "tiny"}.get(result["chapter"][0], "named")
    assert "found: L1.H1.C2, L1.H1.C1, L1.H1.C0; where it was taken out: none" in done.stdout  # what was planted


def test_the_circuit_demo_finds_the_inhibition_heads_of_real_gpt2(gpt2_folder, tmp_path):
    weights = gpt2_folder / "model-attention.safetensors"
    done = run("03_predict_circuit.py", "--model", str(weights), "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    first = next(line for line in done.stdout.splitlines() if "-> L9.H9 by Q" in line)
    assert first.startswith("L8.H3.C0")
    inhibition = [line.split()[0] for line in done.stdout.splitlines() if line.endswith("S-inhibition")]
    assert inhibition[:3] == ["L8.H10.C1", "L8.H6.C2", "L7.H3.C1"]
    assert "0.918" in done.stdout and "0.932" in done.stdout  # whole head and best component, by Q
    left = sorted(file.name for file in tmp_path.iterdir())
    assert left == ["03_composition_maps.png", "03_mover_head.png", "results_3.json"]


def test_a_wrong_model_ends_a_demo_with_one_line(tmp_path):
    done = run("01_residual_stream.py", "--model", "nothing-here", "--out", str(tmp_path))
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("01_residual_stream.py: error: no weights 'nothing-here'; looked for")


def test_importing_tinyheads_draws_nothing_and_needs_no_matplotlib():
    code = "import sys, tinyheads; print('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"


def test_a_figure_is_whole_or_not_there(tmp_path):
    figure, axes = plots.new_figure(4, 3)
    plots.draw_lines(axes[0, 0], {"one": torch.arange(4.0)}, "layer", "length (L2 norm)")
    assert axes[0, 0].get_xlabel() == "layer" and axes[0, 0].get_ylabel() == "length (L2 norm)"
    path = plots.save_figure(figure, tmp_path / "folder" / "figure.png")
    before = path.read_bytes()
    assert before.startswith(PNG)
    figure.savefig = lambda file, **options: file.write(b"half a figure") and 1 / 0
    with pytest.raises(ZeroDivisionError):
        plots.save_figure(figure, path)
    assert path.read_bytes() == before and [file.name for file in path.parent.iterdir()] == ["figure.png"]


def test_signed_maps_write_their_values_and_leave_holes_white():
    figure, axes = plots.new_figure(4, 3)
    values = torch.tensor([[1.25, -0.5], [0.0, 0.3]])
    plots.draw_map(axes[0, 0], values, "head", "layer", "title", "logits", signed=True)
    assert [text.get_text() for text in axes[0, 0].texts] == ["+1.2", "-0.5", "+0.3"]
    figure, axes = plots.new_figure(4, 3)
    plots.draw_map(axes[0, 0], torch.tensor([[1.0, torch.nan]]), "reader", "writer", "title", "score", top=0.5)
    assert axes[0, 0].images[0].get_array().mask.tolist() == [[False, True]]


def test_a_map_of_pairs_shows_only_later_readers_and_circles_the_pairs_it_is_told():
    figure, axes = plots.new_figure(4, 3)
    circled = torch.zeros(2, 2, 2, 2, dtype=torch.bool)
    circled[0, 1, 1, 0] = True
    plots.draw_pairs(axes[0, 0], torch.rand(2, 2, 2, 2), "title", "score", circled)
    shown = ~axes[0, 0].images[0].get_array().mask
    assert shown.tolist() == [[False, False, True, True]] * 2 + [[False] * 4] * 2
    assert [line.get_xydata().tolist() for line in axes[0, 0].lines] == [[[2, 1]]]  # reader across, writer down


def test_a_map_of_rates_stands_in_its_cells_on_one_scale():
    figure, axes = plots.new_figure(4, 3)
    values = torch.tensor([[0.25, torch.nan], [0.5, 0.75]])
    plots.draw_map(axes[0, 0], values, "k", "N", "title", "accuracy", written=True)
    assert [text.get_text() for text in axes[0, 0].texts] == ["0.25", "0.50", "0.75"]
    assert axes[0, 0].images[0].get_clim() == (0, 1)


def test_a_circuit_is_drawn_with_every_head_and_its_strongest_edge_darkest():
    figure, axes = plots.new_figure(4, 3)
    head = th.Head
    edges = {(head(0, 0), head(1, 0)): 0.1, (head(0, 0), head(1, 1)): 0.5, (head(0, 1), head(1, 0)): 0.3}
    plots.draw_circuit(axes[0, 0], 2, 2, edges, {head(1, 1): "mover"}, "title")
    assert [text.get_text() for text in axes[0, 0].texts] == ["L0.H0", "L0.H1", "L1.H0", "L1.H1\nmover"]
    lines = {(tuple(line.get_xdata()), tuple(line.get_ydata())): line for line in axes[0, 0].lines}
    assert set(lines) == {((w.head, r.head), (0, 1)) for w, r in edges}
    shades = {score: float(lines[(w.head, r.head), (0, 1)].get_color()) for (w, r), score in edges.items()}
    assert shades[0.1] > shades[0.3] > shades[0.5] == 0


def test_each_index_is_a_point_of_its_room_and_accuracy():
    figure, axes = plots.new_figure(4, 3)
    room, right = {"a": torch.tensor([0.0, 2.0]), "b": torch.tensor([1.0])}, {"a": torch.tensor([0.1, 1.0]),
                                                                             "b": torch.tensor([0.9])}
    plots.draw_room(axes[0, 0], room, right)
    points = {line.get_label(): (line.get_xdata().tolist(), line.get_ydata().tolist()) for line in axes[0, 0].lines}
    assert points["a"] == (pytest.approx([0, 2]), pytest.approx([0.1, 1])) and set(points) == {"a", "b"}


def test_a_pythia_takes_the_same_chapters_and_rows_of_padding_are_no_words(tmp_path):
    """Random weights with twice as many rows as the tokenizer has tokens: an id behind those would end the chapter."""
    tokenizer = th.load_tokenizer("tiny")
    model = th.Pythia(th.PythiaConfig(2 * tokenizer.n_vocab, 64, 32, 2, 2), seed=3)
    th.save(model, tmp_path / "pythia", tokenizer)
    for script, words in [("01_residual_stream.py", "9 writes sum to the stream"),
                          ("02_head_svd.py", "heads that look nearest:")]:
        done = run(script, "--model", str(tmp_path / "pythia"), "--out", str(tmp_path / "out"))
        assert done.returncode == 0 and words in done.stdout, done.stderr
