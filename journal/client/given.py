"""What an application gives: names, data and policies, taken only where every reader takes them for the same."""

import json
from collections.abc import Iterable, Mapping
from typing import Any, get_args

from journal.client.local import Sought
from journal.client.problems import InvalidChange
from journal.core import ijson
from journal.core.model import Policy
from journal.core.names import atom_ok, collection_ok

NESTING = 64
Data = dict[str, Any]
Value = str | float | bool | None

decoded = json.loads


def are_apart(fields: Mapping[str, Any], unset: Iterable[str]) -> bool:
    """Whether nothing is both set and unset."""
    return fields.keys().isdisjoint(unset)


def encoded(data: Mapping[str, Any]) -> bytes:
    """Data as JSON that every reader takes for the same; InvalidChange where that is not to be had."""
    try:
        text = json.dumps(data, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
        encoded = text.encode()
        is_same = json.loads(text) == data
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidChange(f"not JSON: {error}") from None
    if not is_same or not isinstance(data, dict):
        raise InvalidChange("not JSON: an object of strings, numbers, booleans, null, lists and objects is expected")
    faults = ijson.check(encoded, depth=NESTING)
    if faults:
        raise InvalidChange("; ".join(f"{fault.pointer}: {fault.detail}" for fault in faults[:3]))
    return encoded


def collection(name: str) -> str:
    """A collection's name; InvalidChange where it is none."""
    if not collection_ok(name):
        raise InvalidChange(f"{name!r} is no name of a collection: 1–128 bytes, no comma, no control character")
    return name


def atom(name: str) -> str:
    """An atom's name; InvalidChange where it is none."""
    if not atom_ok(name):
        raise InvalidChange(f"{name!r} is no name of an atom: 1–255 bytes, no control character")
    return name


def policy(name: Policy) -> Policy:
    """What is no policy would be refused with all that is pushed with it, for ever."""
    if name not in get_args(Policy):
        raise InvalidChange(f"{name!r} is no policy: {', '.join(get_args(Policy))}")
    return name


def sought(fields: Mapping[str, Value]) -> list[Sought]:
    """Fields and the values that they are to have; ValueError where one is no value to find an atom by."""
    for field, value in fields.items():
        if not isinstance(value, str | int | float | bool | None):
            raise ValueError(f"{field}: an atom is found by a string, number, boolean or null")
    return [Sought(field, value) for field, value in fields.items()]
