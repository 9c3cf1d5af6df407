"""Curves: how each cost grows with what may grow, beside how it should (README.md)."""
