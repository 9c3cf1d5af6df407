"""What a fuzzer is: a check, what it begins with, and words that get it further than chance."""

from collections.abc import Callable
from typing import NamedTuple


class Target(NamedTuple):
    """A parser under test. `check` raises where something is wrong; `longest`: bytes of an input."""

    name: str
    check: Callable[[bytes], None]
    seeds: list[bytes]
    words: list[bytes]
    longest: int = 4096


def text_of(data: bytes) -> str:
    """As a header comes in: what is not UTF-8 as lone surrogates (PEP 383)."""
    return data.decode(errors="surrogateescape")
