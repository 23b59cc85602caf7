"""Checks of assignment 4: inhibition and mover heads. ../../grader/grading.py says what they are made of.

Expected values come from the library, closed forms, and the planted model, whose circuit is known. Which heads are
asked about is found anew on whatever model is bundled: nothing here knows its heads. attention.py has 4.1 to 4.4 and
4.6, channel.py 4.5 and 4.7, derivation.py 4.8, open_problem.py 4.9; mistakes.py what well-known mistakes give.
Tolerances: attention 1e-4, scores 1e-3.
"""

from grader.grading import Exercise, Part, all_but, all_of, functions
from grader.open_problems import scored
from tinyheads import composition

from .attention import (calls_look, calls_pick, calls_preference, calls_rank, calls_remove, check_look, check_pick,
                        check_preference, check_rank, check_remove, planted_look, shape_look, shape_remove)
from .channel import (calls_channel, calls_scores, check_chosen, check_cost, check_scores, planted_scores,
                      shape_scores)
from .derivation import calls_without, check_without
from .open_problem import calls_find, score_find

# What the starter names, and what that calls; and composition, which tells nothing of what a run does.
OPEN_IN_4_5 = (*functions(composition), "ablation.remove", "ablation.several", "ablation.derangement",
               "basis.following", "basis.check_basis", "circuit.preference_in", "circuit.attention_to",
               "circuit.answer_places")
OPEN_IN_4_7 = (*OPEN_IN_4_5, "ablation.inhibition_scores", "ablation.remove_components", "ablation.check_component",
               "ablation.preference", "last_token.patterns_at_end", "last_token.seen_at_end")
ALL, IN_4_5, IN_4_7 = all_but(), all_but(*OPEN_IN_4_5), all_but(*OPEN_IN_4_7)

EXERCISES = [
    Exercise("4.1 who looks where", "where_heads_look", 3, calls_look, [
        Part("two tables [L, H]", 0.5, shape_look),
        Part("attention on the mentions", 1, check_look(0, "on_mentions")),
        Part("attention on the answer", 1, check_look(0, "on_answer")),
        Part("another length, and a model built by hand", 0.5,
             all_of(check_look(1, "on_mentions on_answer"), planted_look))], "tinyheads", ALL),
    Exercise("4.2 the strongest of them", "pick_heads", 2, calls_pick, [
        Part("the right heads", 1, check_pick(False, (0, 1, 2))),
        Part("strongest first", 0.5, check_pick(True, (0, 1))),
        Part("none", 0.5, check_pick(True, (3, 4)))], "tinyheads", ALL),
    Exercise("4.3 take components out of a write", "remove", 4, calls_remove, [
        Part("a new write of the same shape", 0.5, shape_remove),
        Part("zero", 1, check_remove(0)), Part("mean", 1, check_remove(1)), Part("resample", 1, check_remove(2)),
        Part("several directions at once", 0.5, check_remove(3, 4, 5))], "tinyheads", ALL),
    Exercise("4.4 what a mover prefers", "preference", 2, calls_preference, [
        Part("short lists", 1, check_preference(0)), Part("longer lists", 1, check_preference(1))], "tinyheads", ALL),
    Exercise("4.5 the inhibition score", "inhibition_scores", 4, calls_scores, [
        Part("one score a component", 0.5, shape_scores),
        Part("mean removal", 1.5, check_scores(0)), Part("zero removal, another writer", 1, check_scores(1)),
        Part("a model built by hand", 1, planted_scores)], "tinyheads", IN_4_5),
    Exercise("4.6 do two orders agree?", "rank_correlation", 2, calls_rank, [
        Part("without equal numbers", 1, check_rank(0, 1)),
        Part("with equal numbers", 1, check_rank(2, 3))], "tinyheads", ALL),
    Exercise("4.7 what both point at", "channel", 3, calls_channel, [
        Part("the components that both name", 1, all_of(check_chosen(0), check_chosen(3))),
        Part("what they are worth, on other prompts", 1.5, check_cost(0)),
        Part("a model built by hand", 0.5, all_of(check_chosen(1), check_cost(1), check_chosen(2), check_cost(2)))],
        "tinyheads", IN_4_7),
    Exercise("4.8 the pattern without it", "pattern_without", 2, calls_without, [
        Part("zero", 1, check_without(0)), Part("mean", 0.5, check_without(1)),
        Part("a component that says the same in all prompts", 0.5, check_without(2))], "tinyheads", ALL),
    Exercise("4.9 open: an unknown channel", "find_channel", 3, calls_find, scored(
        3, score_find, "components whose removal costs the mover nothing", "the channel that was built in"),
        "tinyheads", IN_4_7, seconds=60),
]
