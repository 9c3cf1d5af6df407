"""A change journal and sync service: every change numbered, everything since revision N on request."""

__version__ = "0.1.0"
