"""Spans: what takes long says so to whoever traces the request that it is for.

The rule: where nobody traces, a span is one look at a variable.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Protocol


class Spans(Protocol):
    """Where spans go; those that are begun within one are its children."""

    def span(self, name: str) -> AbstractContextManager[object]:
        """While something is done; an exception that leaves it is told too."""
        ...

    def past(self, name: str, began: float, ended: float) -> None:
        """Something that was done from one moment to another of this process's monotonic clock."""
        ...


TRACED: ContextVar[Spans | None] = ContextVar("traced", default=None)


@contextmanager
def span(name: str) -> Iterator[None]:
    """While something is done."""
    spans = TRACED.get()
    if spans is None:
        yield
        return
    with spans.span(name):
        yield


def past(name: str, began: float, ended: float) -> None:
    """Something that was done."""
    spans = TRACED.get()
    if spans is not None:
        spans.past(name, began, ended)
