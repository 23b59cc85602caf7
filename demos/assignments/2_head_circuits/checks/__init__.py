"""Checks of assignment 2: a head's circuits. ../../grader/grading.py says what they are made of.

Compared with the library, on random heads and on the bundled model's. Where an answer is that of a well-known mistake,
the message says which. weights.py has 2.1 to 2.3, and what all use; pattern.py 2.4; components.py 2.5 to 2.7;
derivation.py 2.8, open_problem.py 2.9. Tolerance: 1 part in 1,000 of the largest entry.
"""

from .components import circuit_norm, split_write, thin_svd
from .derivation import derivation
from .open_problem import open_problem
from .pattern import attention_pattern
from .weights import fold_reading, fold_writing, split_heads

EXERCISES = [split_heads, fold_reading, fold_writing, attention_pattern, thin_svd, circuit_norm, split_write,
             derivation, open_problem]
