"""Figures: each path of the service against its reference, as a ratio within one run (bench/README.md)."""
