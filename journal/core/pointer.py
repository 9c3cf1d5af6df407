"""JSON pointers (RFC 6901): where in a body something is.

Pure. A path is built cell by cell while walking and written out only for a fault, so a walk
through a large body costs no more than the pointers it tells.
"""

import re
from typing import TypeAlias

Path: TypeAlias = "tuple[Path, str | int] | None"
"""The way from the whole (`None`) to a value: the cell of its container, and its name or place there."""

SURROGATE = re.compile("[\ud800-\udfff]")


def pointer(path: Path) -> str:
    """The path as an RFC 6901 pointer; "" is the whole. Always writable as UTF-8."""
    tokens = []
    while path is not None:
        path, step = path
        tokens.append(f"/{escape(step) if isinstance(step, str) else step}")
    return "".join(reversed(tokens))


def escape(name: str) -> str:
    """One reference token: `~` and `/` escaped, a lone surrogate as U+FFFD since no answer can hold it."""
    return SURROGATE.sub("\ufffd", name.replace("~", "~0").replace("/", "~1"))
