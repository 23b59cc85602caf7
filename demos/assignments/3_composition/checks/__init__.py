"""Checks of assignment 3: composition. ../../grader/grading.py says what they are made of.

Compared with the library, on random heads, the bundled model's, and those of the planted model, whose channel from one
head to another is known. Where an answer is that of a well-known mistake, the message says which. scores.py has 3.1 to
3.3, ranking.py 3.4 to 3.6; derivation.py 3.7, open_problem.py 3.8; circuits.py the heads that are handed in.
Tolerance: 1 part in 1,000 of the largest entry.
"""

from .derivation import derivation
from .open_problem import open_problem
from .ranking import roc_area, top_edges, whole_from_components
from .scores import component_scores, composition_score, composition_table

EXERCISES = [composition_score, composition_table, component_scores, whole_from_components, top_edges, roc_area,
             derivation, open_problem]
