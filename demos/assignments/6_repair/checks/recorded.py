"""What the starter's main prints of the bundled model with right functions, HOLDS and TRAIN_LENGTH as they come.

Only a short cut: with other figures the grader runs main with the submission's functions (judgement.py). Where the
starter's main or the bundled model changes, these change with them: put the worked solution's functions into the
starter, run it, and paste its lines MEASURED = ... here.
"""

RECORDED = [
    {"lists of 5": (1.0, 0.2125), "lists of 8": (1.0, 0.14), "lists of 10": (0.795, 0.1825),
     "lists of 12": (0.5525, 0.1725), "lists of 16": (0.1625, 0.0925), "recall of 8": (1.0, 0.16),
     "recall of 12": (1.0, 0.085), "IOI": (1.0, 0.7575), "perplexity": (3.960187, 152.332535)},
    {"lists of 5": (1.0, 1.0), "lists of 8": (1.0, 0.99), "lists of 10": (0.795, 0.7725),
     "lists of 12": (0.5525, 0.5975), "lists of 16": (0.1625, 0.2025), "recall of 8": (1.0, 1.0),
     "recall of 12": (1.0, 1.0), "IOI": (1.0, 1.0), "perplexity": (3.960187, 3.976693)},
    {"lists of 5": (1.0, 1.0), "lists of 8": (1.0, 1.0), "lists of 10": (0.795, 0.7925),
     "lists of 12": (0.5525, 0.5625), "lists of 16": (0.1625, 0.1675), "recall of 8": (1.0, 1.0),
     "recall of 12": (1.0, 1.0), "IOI": (1.0, 1.0), "perplexity": (3.960187, 3.960847)},
]
