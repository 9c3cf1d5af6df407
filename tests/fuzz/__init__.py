"""Fuzzers of all that reads what others wrote: a module a parser, each with an oracle that is not the parser's code.

A target's `check` takes any bytes and raises where the parser does what it must not: an error that it does not declare,
another answer than the oracle's, a value that does not come back from its text. `python -m tests.fuzz` runs them for
long, guided by coverage where atheris is installed; test_targets.py runs each for a moment in the ordinary suite.
"""
