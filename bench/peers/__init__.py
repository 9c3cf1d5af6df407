"""Peers: the same work against this service and against what else one would take, in one run (README.md)."""
