"""What of the library a submission may call, exercise by exercise: no more than is listed here, and what starters name.

A new verb of the library cannot give an answer away unnoticed: it, or its module, must first be put into a list here.
"""

import importlib
import pkgutil

import pytest
from grader import marks
from grader.comparing import close
from grader.grading import Call, Exercise, Model, Part, functions
from grader.session import Session, Submission

import tinyheads as th
from tinyheads.planted import laundry_prompts, planted

# What a submission may call of the library's functions, besides those of modules that hold no analysis; and what of
# these it may not.
STEERING = {"basis.coordinates", "basis.following", "basis.check_basis", "steering.set_coordinates",
            "steering.at_positions", "steering.fitting"}
SEEN = {"subspace.stream_at_end", "last_token.seen_at_end"}
OPEN = {
    "4.5": {"ablation.remove", "ablation.several", "ablation.derangement", "basis.following", "basis.check_basis",
            "circuit.preference_in", "circuit.attention_to", "circuit.answer_places", "composition.composition_score",
            "composition.component_score", "composition.read_circuits", "composition.at_all_distances",
            "composition.later", "composition.narrow",
            "composition.component_scores", "composition.composition_scores", "composition.gram_core",
            "composition.safe_divisor"},
    "5.5": STEERING,
    "5.6": STEERING | SEEN | {"scoring.by_index"},
    "5.7": STEERING | SEEN | {"scoring.by_index", "steering.mean_codes", "subspace.check_every_index",
                              "steering.traverse", "last_token.before_end", "last_token.run_end",
                              "last_token.patterns_of_end_alone"},
    "6.2": STEERING | SEEN | {"scoring.by_index", "basis.random_subspace"},
    "6.4": STEERING | SEEN | {"steering.add_coordinates", "repair.edit_output", "repair.output_weights",
                              "repair.change_inside"},
}
OPEN["4.7"] = OPEN["4.5"] | {"ablation.inhibition_scores", "ablation.remove_components", "ablation.check_component",
                             "ablation.preference", "last_token.patterns_at_end", "last_token.seen_at_end"}
OPEN["4.9"] = OPEN["4.7"]
OPEN["5.9"] = OPEN["5.7"]
OPEN["6.8"] = OPEN["6.4"] | OPEN["5.7"] | {"steering.traversed_codes", "steering.grid"}
NO_ANALYSIS = {"config", "errors", "stream", "generation", "model", "pythia", "heads", "prompts", "words", "positions",
               "plots", "plots_of_space", "published", "check", "upper_layers", "course"}
CLOSED_TOO = {"5.4": {"positions.changed_at"}, "5.7": {"plots_of_space.draw_regions"}, "6.1": {"positions.changed_at"}}


@pytest.mark.parametrize("number", range(1, 7))
def test_what_stays_open_is_what_is_listed_here(number):
    """A module or a function that the library gains must be put in one list or the other."""
    modules = [importlib.import_module(f"tinyheads.{each.name}") for each in pkgutil.iter_modules(th.__path__)
               if each.name not in NO_ANALYSIS | {"files", "__main__"}]
    everything = set(functions(*modules))
    for exercise in marks.load_assignment(number).exercises:
        if number <= 3:
            assert exercise.uses == "torch"                            # there the library cannot be imported at all
        else:
            name, closed = exercise.name.split()[0], {*exercise.forbidden}
            assert everything - closed == OPEN.get(name, set()), exercise.name
            assert closed - everything == CLOSED_TOO.get(name, set()), exercise.name


NAMED = """
import copy, torch
import tinyheads as th

def the_4_5(model, prompts, circuit, basis):
    th.remove(basis, str(circuit.inhibition[0]), "mean")
    return bool(th.preference_in(torch.ones(prompts.tokens.shape), prompts) < 0)

def the_4_7(model, prompts, circuit, basis):
    few = [th.Component.of(circuit.inhibition[0], 0)]
    scores = th.inhibition_scores(model, prompts, circuit, "mean", components=few)
    edits = th.remove_components(th.ov_svd(th.Heads.of(model)), few, "mean")
    whole, without = (th.preference(model, prompts, circuit.movers, those) for those in ([], edits))
    return scores == {few[0]: whole - without} and th.component_scores(th.Heads.of(model), "Q").dim() == 5

def the_5_6(model, prompts, circuit, basis):
    here = th.stream_at_end(model, prompts, circuit.where)
    codes = th.by_index(th.coordinates(here, basis), prompts)
    th.set_coordinates(basis, codes[0], 0)(here[:, None])
    return codes.shape == (6, 3)

def the_5_7(model, prompts, circuit, basis):
    codes = th.mean_codes(model, prompts, circuit, basis)
    return bool((th.traverse(model, prompts, circuit, basis, codes)[0].argmax(1) == torch.arange(6)).all())

def the_6_2(model, prompts, circuit, basis):
    return the_5_6(model, prompts, circuit, th.random_subspace(64, 3, 0))

def the_6_4(model, prompts, circuit, basis):
    here = th.coordinates(th.stream_at_end(model, prompts, circuit.where), basis)
    th.add_coordinates(basis, here[0], 0)(torch.zeros(2, 1, 64))
    th.set_coordinates(basis, here[0], 0)(torch.zeros(2, 1, 64))
    return th.edit_output(copy.deepcopy(model), circuit.inhibition[0], basis, 2 * torch.eye(3)).rank == 3
"""


def test_what_the_starters_name_can_be_called(tmp_path):
    built = planted()
    circuit = th.Circuit([built.inhibition], [built.mover])
    arguments = (Model(built.model), laundry_prompts(60, 0), circuit, built.channel)
    is_true = [Part("said", 1, lambda calls, outputs: close(outputs[0], True))]
    forbidden = {each.name.split()[0]: each.forbidden for number in (4, 5, 6)
                 for each in marks.load_assignment(number).exercises}
    exercises = [Exercise(name, f"the_{name.replace('.', '_')}", 1, lambda generator: [Call(arguments)], is_true,
                          "tinyheads", forbidden[name]) for name in ("4.5", "4.7", "5.6", "5.7", "6.2", "6.4")]
    (tmp_path / "named.py").write_text(NAMED)
    with Session() as session:
        submission = Submission("named", tmp_path / "named.py")
        result = marks.grade(session, marks.Assignment(0, tmp_path, exercises), submission, 0)
    assert [mark.output for mark in result.exercises if not mark.full] == []
