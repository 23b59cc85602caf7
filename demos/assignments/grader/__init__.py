"""The grader, for whoever sets an assignment or writes a new one; a student need not read it.

A submission is untrusted code. Each exercise runs it in a process of its own, and what comes back is compared here
with what the library computes. Read in this order:

    grading.py     what checks are made of: exercises, calls, parts
    comparing.py   what is wrong with an answer, in the student's terms
    inputs.py      what several assignments draw: prompts, models, the circuit of the bundled model
    codes.py       what assignments 5 and 6 share: each place's code, runs in which END is given one
    open_problems.py  answers that have a score, from a stated baseline to a stated best
    marks.py       from a submission to its marks, part by part
    stand_ins.py   our functions in place of those that an exercise calls and that lost points
    session.py     one exercise run in another process, as seen from the grader
    returned.py    what that process handed back, read without trusting it
    runner.py      the process itself: it calls the submission's functions, within limits
    values.py      how arguments and answers travel between the two, without pickles
    copies.py      the files that process works with: models, the library as it may be used, what else it may see
    closed.py      a copy of the library without what an exercise asks for
    wall.py        namespaces around a submission: what it cannot see it cannot use
    watching.py    waiting for a process, and ending it with all that it started
    noticed.py     what a submission tries that no exercise asks for
    folder.py      several submissions at a time
    gradescope.py  the zip that Gradescope is given
    handed_in.py   what lies in a folder of submissions, and why some of it cannot be graded
    notebook.py    a notebook's code cells as a submission
    reports.py     what is told of marks: table, CSV, feedback, Gradescope's JSON; late work
    similarity.py  which submissions are near-equal
    hints.py       an exercise's hints, read from the handout
    checkout.py    where this checkout lies, and how its modules are loaded

Then the checks of one assignment, ../3_composition/checks/ say, whose __init__.py lists the exercises and their points.
"""

from .checkout import LIBRARY, load_module

load_module("tinyheads", LIBRARY / "__init__.py")  # this checkout's library, installed or not
