"""Checks of assignment 5: the positional subspace of the bundled model, and of a planted one, where it is known.

Expected values come from the library, closed forms, and the planted model. Heads are found anew on whatever model is
bundled. subspaces.py has 5.1 to 5.4, steering.py 5.5 to 5.7, derivation.py 5.8, open_problem.py 5.9; mistakes.py what
well-known mistakes give. Tolerances: values 1e-3 of the largest, angles 0.1 degrees, rates one prompt.
../../grader/grading.py says what the checks are made of.
"""

from grader.grading import Exercise, Part, all_but, all_of
from grader.open_problems import scored

from .derivation import calls_chance, check_deviation, check_mean
from .open_problem import calls_plane, score_plane
from .steering import (calls_draw, calls_test, calls_traverse, check_attention, check_codes, check_control,
                       check_drawn, check_owners, check_picture, check_rate, shape_traverse)
from .subspaces import (calls_angles, calls_components, calls_setting, calls_write, check_angles, check_components,
                        check_setting, check_write, elsewhere, orthonormal, planted_components, shape_write)

# What the starter names, and what that calls.
OPEN_IN_5_5 = ("basis.coordinates", "basis.following", "basis.check_basis", "steering.set_coordinates",
               "steering.at_positions", "steering.fitting")
OPEN_IN_5_6 = (*OPEN_IN_5_5, "scoring.by_index", "subspace.stream_at_end", "last_token.seen_at_end")
OPEN_IN_5_7 = (*OPEN_IN_5_6, "steering.mean_codes", "subspace.check_every_index", "steering.traverse",
               "last_token.before_end", "last_token.run_end", "last_token.patterns_of_end_alone")

ALL = all_but()
IN_5_4 = (*ALL, "positions.changed_at")
IN_5_5, IN_5_6 = all_but(*OPEN_IN_5_5), all_but(*OPEN_IN_5_6)
IN_5_7 = (*all_but(*OPEN_IN_5_7), "plots_of_space.draw_regions")

EXERCISES = [
    Exercise("5.1 what is written, by place", "mean_write", 3, calls_write, [
        Part("one row a place", 0.5, shape_write), Part("recall", 1, check_write(0)),
        Part("lists of 7, other heads", 1, check_write(1)), Part("a model built by hand", 0.5, check_write(2))],
        "tinyheads", ALL),
    Exercise("5.2 the directions along which they differ", "principal_components", 3, calls_components, [
        Part("orthonormal rows", 0.5, orthonormal), Part("values", 1, check_components(0)),
        Part("another size", 1, check_components(1)), Part("a model built by hand", 0.5, planted_components)],
        "tinyheads", ALL),
    Exercise("5.3 two subspaces", "principal_angles", 2, calls_angles, [
        Part("equal dimensions", 1, check_angles(0)), Part("other dimensions", 0.5, check_angles(1, 2)),
        Part("two bases of one subspace", 0.5, check_angles(3))], "tinyheads", ALL),
    Exercise("5.4 setting coordinates", "set_coordinates", 3, calls_setting, [
        Part("other positions stay", 0.5, elsewhere), Part("at the last position", 1.5, check_setting(0)),
        Part("at another position", 1, check_setting(1))], "tinyheads", IN_5_4),
    Exercise("5.5 walking through it", "traverse", 3, calls_traverse, [
        Part("shapes", 0.5, shape_traverse), Part("attention", 1, check_attention(0, 1)),
        Part("owners", 0.5, check_owners(0, 1)),
        Part("a model built by hand", 1, all_of(check_attention(2), check_owners(2)))], "tinyheads", IN_5_5),
    Exercise("5.6 the test", "random_index_test", 4, calls_test, [
        Part("codes", 1, check_codes(0)), Part("the rate", 1, check_rate(0)),
        Part("the control", 1, check_control(0)),
        Part("lists of 6, two dimensions", 0.5, all_of(check_codes(1), check_rate(1))),
        Part("a model built by hand", 0.5, all_of(check_codes(2), check_rate(2), check_control(2)))],
        "tinyheads", IN_5_6),
    Exercise("5.7 drawing it", "draw_regions", 2, calls_draw, [
        Part("the data", 1, check_drawn), Part("the figure", 1, check_picture)],
        "tinyheads", IN_5_7),
    Exercise("5.8 what chance gives", "chance_overlap", 2, calls_chance, [
        Part("the mean", 0.5, check_mean(0, 1, 2)), Part("the standard deviation, of a line", 0.5, check_deviation(0)),
        Part("of wider subspaces", 1, check_deviation(1, 2))], "tinyheads", ALL),
    Exercise("5.9 open: six places in a plane", "plane_for_six", 3, calls_plane, scored(
        3, score_plane, "the first two principal components with their mean codes", "every random index followed"),
        "tinyheads", all_but(*OPEN_IN_5_7), seconds=90),
]
