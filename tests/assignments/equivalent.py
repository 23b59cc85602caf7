"""Mutants that no check can catch, since they are right: (function, pattern of the line, why), by assignment."""

EQUIVALENT = {number: [] for number in range(1, 7)}
