"""Checks of assignment 6: edits of the bundled model, and repairs of a planted one whose damage is known exactly.

Expected values come from the library, closed forms, and the planted model. Heads are found anew on whatever model is
bundled; no gain is expected of it. codes.py has 6.1 and 6.2, weight_edit.py 6.3 and 6.4, damage.py 6.5, judgement.py
6.6, derivation.py 6.7, open_problem.py 6.8; mistakes.py what well-known mistakes give. Tolerances: values 1e-3 of the
largest, a fit 1e-2, rates one prompt. ../../grader/grading.py says what the checks are made of.
"""

from grader.grading import Exercise, Part, all_but, all_of
from grader.open_problems import scored

from .codes import calls_code, calls_setting, check_codes, check_control, check_rates, check_setting, elsewhere
from .damage import broken_calls, check_accuracies, check_perplexity, shape_broken
from .derivation import calls_least, check_least, exact, shape_least
from .judgement import judgement_exercise
from .open_problem import calls_repair, score_repair
from .weight_edit import (calls_edit, calls_fit, check_held, check_repairs, check_report, check_weights, harmless,
                          others_stay, planted_edit, shape_fit)

# What the starter names, and what that calls.
STEERING = ("steering.set_coordinates", "steering.at_positions", "steering.fitting", "basis.coordinates",
            "basis.following", "basis.check_basis", "subspace.stream_at_end", "last_token.seen_at_end")
OPEN_IN_6_2 = (*STEERING, "scoring.by_index", "basis.random_subspace")
OPEN_IN_6_4 = (*STEERING, "steering.add_coordinates", "repair.edit_output", "repair.output_weights",
               "repair.change_inside")
OPEN_IN_6_8 = (*OPEN_IN_6_4, "scoring.by_index", "steering.mean_codes", "subspace.check_every_index",
               "steering.traversed_codes", "steering.traverse", "steering.grid", "last_token.before_end",
               "last_token.run_end", "last_token.patterns_of_end_alone")

ALL = all_but()
IN_6_1 = (*ALL, "positions.changed_at")
IN_6_2, IN_6_4 = all_but(*OPEN_IN_6_2), all_but(*OPEN_IN_6_4)
IN_6_8 = all_but(*OPEN_IN_6_8)

EXERCISES = [
    Exercise("6.1 setting coordinates", "set_coordinates", 2, calls_setting, [
        Part("other positions stay", 0.5, elsewhere), Part("at one position", 0.75, check_setting(0)),
        Part("at several", 0.75, check_setting(1))], "tinyheads", IN_6_1),
    Exercise("6.2 the right code, given", "give_the_code", 4, calls_code, [
        Part("codes", 1, check_codes(0)), Part("before and after", 1, check_rates(0)),
        Part("the control", 1, check_control(0, 1)),
        Part("lists of 12, two dimensions", 1, all_of(check_codes(1), check_rates(1)))],
        "tinyheads", IN_6_2),
    Exercise("6.3 the same head, other weights", "edit_weights", 5, calls_edit, [
        Part("everything else stays", 1, others_stay), Part("the weights", 1.5, check_weights(0)),
        Part("another model and head", 1, check_weights(1)), Part("the report", 1, check_report),
        Part("a model built by hand, its damage undone", 0.5, planted_edit)], "tinyheads", ALL),
    Exercise("6.4 which M?", "fit", 4, calls_fit, [
        Part("a matrix [k, k]", 0.5, shape_fit), Part("a turned channel, repaired", 1, check_repairs(0)),
        Part("a weakened one", 0.5, check_repairs(1)), Part("no damage elsewhere", 0.5, harmless),
        Part("held back", 0.75, check_held(2)), Part("on the bundled model", 0.75, check_held(3))],
        "tinyheads", IN_6_4),
    Exercise("6.5 what it broke", "what_it_broke", 3, broken_calls, [
        Part("a pair for each", 0.5, shape_broken), Part("accuracies", 1, check_accuracies(0)),
        Part("perplexity", 1, check_perplexity(0)),
        Part("another model", 0.5, all_of(check_accuracies(1), check_perplexity(1)))], "tinyheads", ALL),
    judgement_exercise(ALL),
    Exercise("6.7 the least change", "least_change", 2, calls_least, [
        Part("a matrix [K, D]", 0.25, shape_least), Part("coordinates set exactly", 0.5, exact),
        Part("the least of all that do so", 0.5, check_least(0)), Part("held back", 0.75, check_least(1, 2))],
        "tinyheads", ALL),
    Exercise("6.8 open: the best repair under a bound", "best_repair", 3, calls_repair, scored(
        3, score_repair, "the damaged model", "all of the accuracy back, within the bound"), "tinyheads", IN_6_8,
        seconds=120),
]
