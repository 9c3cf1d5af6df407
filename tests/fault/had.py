"""What a machine may lack for a fault: it is said, and fails where it must be there (CI=true)."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TypeVar

import pytest

from tests.fault.places import NotToBeHad

T = TypeVar("T")


def lacking(reason: NotToBeHad) -> None:
    """Skip, or fail where nothing may be skipped."""
    if os.environ.get("CI") == "true":
        pytest.fail(str(reason))
    pytest.skip(str(reason))


@contextmanager
def had(place: AbstractContextManager[T]) -> Iterator[T]:
    """The place, where it can be had."""
    try:
        made = place.__enter__()
    except NotToBeHad as reason:
        lacking(reason)
        raise AssertionError from reason
    try:
        yield made
    finally:
        place.__exit__(None, None, None)
