"""The explorer's page: its JavaScript, run in Node as the page holds it, beside the library."""

import base64
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import tinyheads as th

DEMOS = Path(__file__).parents[1] / "demos"
SCRIPTS = [DEMOS / "explorer" / name for name in ("model.js", "page.js")]

# Takes the model's program and numbers out of the page, and does some jobs with them; numbers go to a file in float64.
IN_NODE = """
const fs = require("fs"), page = fs.readFileSync("page.html", "utf8"), numbers = [];
const inside = (id) => page.match(new RegExp(`<script[^>]* id="${id}">([^]*?)</script>`))[1];
const program = inside("program"), data = JSON.parse(inside("data"));
new Function(program);                                             // all of it can be parsed; a part of it runs
new Function("data", "jobs", "keep", program.slice(0, program.indexOf("/* The page:")) + `
  const tensors = tensors_of(data.weights, data.sizes), model = new GPT2(data.config, tensors);
  const D = data.config.n_embd, basis = rows(tensors.basis, D), components = rows(tensors.components, D);
  const edit = (made) => made.point ? {name: data.circuit.where, of: "stream",
    change: set_coordinates(basis, made.point, made.at)} : remove(components[made.component], made.writer);
  for (const job of jobs) {
    const edits = job.edits.map(edit), end = job.tokens.length - 1, stream = new Stream(edits);
    if (job.points) {
      const prompt = {tokens: job.tokens, end, positions: job.positions, candidates: job.candidates};
      const {attended, answered} = traverse(model, prompt, data.circuit, basis, job.points, edits);
      keep([...attended.flat(), ...answered.flat()]);
      continue;
    }
    for (const row of model.forward(job.tokens, stream)) keep(row);
    for (const pattern of Object.values(stream.patterns)) for (const head of pattern) keep(head[end]);
    const parts = job.token === undefined ? {} : logit_attribution(model, stream, model.unembedding[job.token], end);
    if (job.names && job.names.join() !== Object.keys(parts).join()) throw Error(Object.keys(parts));
    keep(Object.values(parts));
  }`)(data, JSON.parse(fs.readFileSync("jobs.json", "utf8")), (row) => { for (const x of row) numbers.push(x); });
fs.writeFileSync("numbers", new Uint8Array(Float64Array.from(numbers).buffer));
"""
PROMPTS_IN_NODE = """
const fs = require("fs"), {data, lists} = JSON.parse(fs.readFileSync("jobs.json", "utf8"));
const write = new Function(fs.readFileSync("model.js", "utf8") + "; return laundry_list;")();
process.stdout.write(JSON.stringify(lists.map(({verb, words, crossed}) => write(data, verb, words, crossed))));
"""


@pytest.fixture(scope="module")
def explorer():
    """The module demos/explorer.py."""
    sys.path.insert(0, str(DEMOS))
    try:
        import explorer
    finally:
        sys.path.remove(str(DEMOS))
    return explorer


@pytest.fixture(scope="module")
def tiny():
    return th.load("tiny"), th.load_tokenizer("tiny")


@pytest.fixture(scope="module")
def data(explorer, tiny):
    """What the page of tiny is given, with fewer lists measured."""
    patch = pytest.MonkeyPatch()
    patch.setattr(explorer, "N_FIND", 150)
    patch.setattr(explorer, "N_JUDGE", 20)
    yield explorer.page_data("tiny", *tiny)
    patch.undo()


@pytest.fixture(scope="module")
def node(explorer, data, tmp_path_factory):
    """A function that runs a program in Node, in a folder with the page, on some jobs, and gives that folder."""
    path = shutil.which("node")
    if path is None:
        pytest.skip("node is not installed here: the page's JavaScript runs in it beside the library")
    folder = tmp_path_factory.mktemp("page")
    (folder / "page.html").write_text(explorer.page(data), encoding="utf-8")
    shutil.copy(SCRIPTS[0], folder)

    def run(program: str, jobs) -> tuple[str, Path]:
        (folder / "run.js").write_text(program, encoding="utf-8")
        (folder / "jobs.json").write_text(json.dumps(jobs), encoding="utf-8")
        done = subprocess.run([path, "run.js"], cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout, folder
    return run


def basis_of(data: dict) -> torch.Tensor:
    """The subspace [k, D] that the page holds."""
    start = sum(n for name, n in data["sizes"] if name not in ("basis", "components"))
    numbers = np.frombuffer(base64.b64decode(data["weights"]), "<f4")
    return torch.tensor(numbers[start:start + dict(data["sizes"])["basis"]].reshape(-1, data["config"]["n_embd"]))


def in_node(node, jobs: list[dict], sizes: list[list[int]]) -> list[list[np.ndarray]]:
    """What Node makes of the jobs: for each its arrays, of these sizes in turn."""
    numbers = np.fromfile(node(IN_NODE, [{"edits": [], **job} for job in jobs])[1] / "numbers", "<f8")
    assert len(numbers) == sum(map(sum, sizes))
    return [np.split(of_job, np.cumsum(some)[:-1]) for of_job, some in
            zip(np.split(numbers, np.cumsum([sum(some) for some in sizes])[:-1]), sizes)]


def test_logits_are_the_librarys_on_50_prompts(tiny, node):
    """Within 1e-4 at END. Before it float32 alone rounds by up to 1e-4; in float64 they agree within 1e-9."""
    (model, tokenizer), exact = tiny, th.load("tiny").double()
    V, LH = model.config.n_vocab, model.config.n_layer * model.config.n_head
    groups = [th.laundry_list(tokenizer, 7, N, "ordinal", seed=N).tokens for N in (3, 5, 8, 12, 16)]
    groups += [th.ordinal_recall(tokenizer, 7, 6, seed=1).tokens, th.ioi(tokenizer, 8, seed=2).tokens]
    rows = [row for tokens in groups for row in tokens.tolist()]
    ours = iter(in_node(node, [{"tokens": row} for row in rows], [[len(row) * V, LH * len(row)] for row in rows]))
    assert len(rows) == 50
    with torch.no_grad():
        for tokens in groups:
            for theirs, precise, (logits, _) in zip(model(tokens).numpy(), exact(tokens).numpy(), ours):     # [T, V]
                logits = logits.reshape(-1, V)
                assert np.abs(logits[-1] - theirs[-1]).max() < 1e-4 and np.abs(logits - theirs).max() < 2e-4
                assert np.abs(logits - precise).max() < 1e-9
                assert np.abs(theirs).max() > 5                                              # not all of them near 0


def test_an_edit_a_removed_component_attention_and_attribution_are_the_librarys(tiny, data, node):
    (model, tokenizer), exact = tiny, th.load("tiny").double()
    L, H, K, V = model.config.n_layer, model.config.n_head, model.config.d_head, model.config.n_vocab
    lists = th.laundry_list(tokenizer, 3, 5, "ordinal", seed=9)
    circuit = th.find_circuit(model, th.laundry_list(tokenizer, 400, 5, "ordinal", seed=40))
    basis, code = basis_of(data), data["codes"][5][1]
    component, T = th.Component.of(circuit.inhibition[0], 0), lists.end + 1
    off = th.remove_components(th.ov_svd(th.Heads.of(model)), [component], "zero")
    there = th.Edit(circuit.where, th.set_coordinates(basis, torch.tensor(code), lists.end), of="stream")
    moved = {"point": code, "at": lists.end}
    gone = {"component": (component.layer * H + component.head) * K, "writer": str(component.of_head)}
    assert data["circuit"]["where"] == circuit.where and data["roles"][str(circuit.movers[0])] == "mover"
    for edits, of_page in (([there], [moved]), (off, [gone]), ([*off, there], [gone, moved])):
        stream = th.Stream(record=True, edits=edits)
        with torch.no_grad():
            theirs, plain = exact(lists.tokens, stream), exact(lists.tokens)                           # [B, T, V]
            parts = th.logit_attribution(exact, stream, lists.answer, lists.end)                       # {write: [B]}
        assert (theirs - plain)[:, -1].abs().max() > 0.1   # it does something
        jobs = [{"tokens": row, "token": answer, "edits": of_page, "names": list(parts)}
                for row, answer in zip(lists.tokens.tolist(), lists.answer.tolist())]
        for b, (logits, looks, ours) in enumerate(in_node(node, jobs, [[T * V, L * H * T, len(parts)]] * 3)):
            patterns = torch.cat([stream.patterns[f"L{layer}"][b, :, -1] for layer in range(L)])       # [L * H, T]
            for mine, other in ((logits, theirs[b]), (looks, patterns), (ours, torch.stack([*parts.values()])[:, b])):
                np.testing.assert_allclose(mine, other.flatten().numpy(), rtol=0, atol=1e-6)


def test_the_plane_is_walked_as_the_library_walks_it(tiny, data, node):
    """END alone behind a cache, a component being off: as the whole prompt with both edits, in the library."""
    (model, tokenizer), exact = tiny, th.load("tiny").double()
    prompts, points = th.laundry_list(tokenizer, 1, 5, "ordinal", seed=3), data["codes"][5]
    circuit = th.find_circuit(model, th.laundry_list(tokenizer, 400, 5, "ordinal", seed=40))
    basis, N = basis_of(data), 5
    off = th.remove_components(th.ov_svd(th.Heads.of(model)), [th.Component(0, 0, 0)], "zero")
    job = {"tokens": prompts.tokens[0].tolist(), "positions": prompts.positions[0].tolist(), "points": points,
           "candidates": prompts.candidates[0].tolist(), "edits": [{"component": 0, "writer": "L0.H0"}]}
    ((attended, answered),) = in_node(node, [job], [[N * len(points)] * 2])
    for point, looks, logits in zip(points, attended.reshape(-1, N), answered.reshape(-1, N)):
        there = th.Edit(circuit.where, th.set_coordinates(basis, torch.tensor(point), prompts.end), of="stream")
        stream = th.Stream(record=True, edits=[*off, there])
        with torch.no_grad():
            theirs = exact(prompts.tokens, stream)[0, -1]                                              # [V]
        on_items = torch.stack([stream.patterns[f"L{m.layer}"][0, m.head, -1] for m in circuit.movers]).mean(0)    # [T]
        np.testing.assert_allclose(looks, on_items[prompts.positions[0]], rtol=0, atol=1e-6)
        np.testing.assert_allclose(logits, theirs[prompts.candidates[0]], rtol=0, atol=1e-6)


@pytest.mark.parametrize("by", ["ordinal", "name"])
def test_the_page_writes_prompts_as_the_library_does(tiny, data, node, by):
    lists, jobs = th.laundry_list(tiny[1], 4, 6, by, seed=5), []
    for text in lists.texts:
        verb, listed, done = re.fullmatch(r"To (\w+): (.*)\. Done: (.*)\. Still to \w+: the", text).groups()
        words = listed.split(", ")
        known = words if by == "name" else data["ordinals"]
        jobs.append({"verb": verb, "words": words, "crossed": [known.index(word) for word in done.split(", ")]})
    given = {key: data[key] for key in ("pieces", "ordinals")} | {"by": by}
    for ours, *theirs in zip(json.loads(node(PROMPTS_IN_NODE, {"data": given, "lists": jobs})[0]),
                             lists.tokens.tolist(), lists.positions.tolist(), lists.candidates.tolist(), lists.texts):
        assert [ours["tokens"], ours["positions"], ours["candidates"], "".join(ours["texts"])] == theirs
        assert ours["end"] == lists.end


def test_the_page_is_one_file_and_its_program_is_short(explorer, data):
    text = explorer.page(data)
    lines = {path.name: path.read_text(encoding="utf-8").splitlines() for path in SCRIPTS}
    assert sum(map(len, lines.values())) <= 400
    assert [line for some in lines.values() for line in some if len(line) > 120] == []
    assert re.findall(r"https?://|<link|<img|\bsrc=|@import|url\(|fetch\(|import\(", text) == []
    assert "{{" not in text.replace("${{", "") and text.count("</script>") == 2


def test_a_model_without_lists_or_too_large_is_one_line(explorer, tiny):
    random, large = th.GPT2(th.GPT2Config(2016, 128, 32, 2, 4)), th.GPT2(th.GPT2Config(50257, 64, 128, 1, 2), seed=None)
    with pytest.raises(th.TaskError, match=r"big has 6,6.* parameters, 35 MB as text: too many .*--model tiny"):
        explorer.page_data("big", large, tiny[1])
    with pytest.raises(th.TaskError, match="cannot write lists of 3 to 12 items; by ordinal, .*; by name, .*tiny"):
        explorer.page_data("bytes", random, th.Tokenizer.bytes_only())
    with pytest.raises(th.TaskError, match="none has no circuit for lists .*--model tiny"):
        explorer.page_data("none", random, tiny[1])
