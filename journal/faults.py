"""Everything that is wrong with a request, where msgspec stops at the first thing.

Walks a value, as `json.loads` gives it, along the annotations of a Struct and asks msgspec about one leaf after the
other, so that what is a fault there is one here. Rules that msgspec has no word for are written in `Meta.extra`, as
`Meta(extra={"name": "atom"})`, and judged here only: RULES has them all, and an unknown one is a KeyError.
"""

import difflib
import enum
import functools
import json
import re
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

import msgspec

from journal.core import names
from journal.core.grants import EVERY
from journal.core.ijson import first_of
from journal.core.pointer import Path, pointer
from journal.errors import Fault


def faults(value: object, shape: type[msgspec.Struct]) -> list[Fault]:
    """Why `value` is no `shape`: as many reasons as an answer should carry, [] if it is one."""
    return first_of(wrong(value, kind_of(shape), None))


# What an annotation asks for.


class Rule(NamedTuple):
    """One entry of `Meta.extra`."""

    holds: Callable[[Any], bool]
    detail: str
    limit_bytes: int | None = None


def is_object(value: object) -> bool:
    return isinstance(value, dict)


def is_object_or_null(value: object) -> bool:
    return value is None or isinstance(value, dict)


RULES = {
    ("json", "object"): Rule(is_object, "must be a JSON object"),
    ("json", "object or null"): Rule(is_object_or_null, "must be a JSON object or null"),
    ("name", "journal"): Rule(
        names.journal_ok, "must be 1–63 of a-z 0-9 _ -, a letter or digit first", names.JOURNAL_BYTES
    ),
    ("name", "journal or *"): Rule(
        lambda name: name == EVERY or names.journal_ok(name), "must be a journal's name, or * for all of them"
    ),
    ("name", "collection"): Rule(
        names.collection_ok, "must be 1–128 bytes, no comma or control character", names.COLLECTION_BYTES
    ),
    ("name", "atom"): Rule(names.atom_ok, "must be 1–255 bytes, no control character", names.ATOM_BYTES),
}


class Kind(NamedTuple):
    """An annotation taken apart."""

    outer: Any  # what msgspec is asked: the annotation, but of a container only that it is one, and its length
    bare: Any  # the type without Annotated, null and UNSET
    container: Any  # dict (of a Struct too), list, or Any for what may hold anything
    parts: tuple["Kind", ...]  # of a list its items', of a dict its names' and its values'
    rules: tuple[Rule, ...]
    is_nullable: bool


def kind_of(annotation: Any) -> Kind:
    bare, metas, is_nullable = peeled(annotation)
    rules = tuple(RULES[rule] for meta in metas for rule in (meta.extra or {}).items())
    container = dict if is_struct(bare) else Any if bare is msgspec.Raw else get_origin(bare)
    if container not in (dict, list, Any):
        return Kind(annotation, bare, None, (), rules, is_nullable)
    outer: Any = Annotated[(container, *metas)] if metas else container
    parts = tuple(kind_of(part) for part in get_args(bare))
    return Kind(outer | None if is_nullable else outer, bare, container, parts, rules, is_nullable)


def peeled(annotation: Any) -> tuple[Any, tuple[msgspec.Meta, ...], bool]:
    """The type within Annotated and a union with null or UNSET, its Metas, and whether it may be null.

    A union of more than one other type stays whole: it is a leaf.
    """
    metas: tuple[msgspec.Meta, ...] = ()
    is_nullable = False
    while True:
        args = get_args(annotation)
        match get_origin(annotation):
            case origin if origin is Annotated:
                others = args[:1]
                metas += tuple(meta for meta in args[1:] if isinstance(meta, msgspec.Meta))
            case origin if origin in (Union, types.UnionType):
                others = tuple(arg for arg in args if arg not in (types.NoneType, msgspec.UnsetType))
                is_nullable |= types.NoneType in args
            case _:
                others = ()
        if len(others) != 1:
            return annotation, metas, is_nullable
        [annotation] = others


def is_struct(bare: Any) -> bool:
    return isinstance(bare, type) and issubclass(bare, msgspec.Struct)


class Member(NamedTuple):
    kind: Kind
    is_required: bool


@functools.cache
def members(shape: type[msgspec.Struct]) -> dict[str, Member]:
    return {field.encode_name: Member(kind_of(field.type), field.required) for field in msgspec.structs.fields(shape)}


# The walk.


def wrong(value: Any, kind: Kind, path: Path) -> Iterator[Fault]:
    """What is wrong with the value itself, then with what is in it."""
    if value is None and kind.is_nullable:
        return
    yield from itself(value, kind, path)
    match value:
        case dict() if kind.container is dict and is_struct(kind.bare):
            yield from in_struct(value, kind.bare, path)
        case dict() if kind.container is dict:
            for name, item in value.items():
                for fault in itself(name, kind.parts[0], (path, name)):
                    yield Fault(fault.pointer, f"its name: {fault.detail}", fault.limit)
                yield from wrong(item, kind.parts[1], (path, name))
        case list() if kind.container is list:
            for place, item in enumerate(value):
                yield from wrong(item, kind.parts[0], (path, place))


def in_struct(value: dict[str, Any], shape: type[msgspec.Struct], path: Path) -> Iterator[Fault]:
    known = members(shape)
    if shape.__struct_config__.forbid_unknown_fields:
        for name in value:
            if name not in known:
                yield Fault(pointer((path, name)), unknown(name, known))
    for name, (kind, is_required) in known.items():
        if name in value:
            yield from wrong(value[name], kind, (path, name))
        elif is_required:
            yield Fault(pointer((path, name)), "missing: this member is required")


def itself(value: Any, kind: Kind, path: Path) -> Iterator[Fault]:
    """What msgspec, or else a rule, says of one value without what is in it."""
    if type(value) is not kind.outer:  # most often it is: nothing to ask
        try:
            msgspec.convert(value, kind.outer)
        except msgspec.ValidationError as error:
            bound = BOUND.search(str(error))
            detail = one_of(kind.bare) or decapitalised(str(error))
            yield Fault(pointer(path), detail, int(bound[1]) if bound else None)
            return
    for rule in kind.rules:
        if not rule.holds(value):
            is_long = rule.limit_bytes and len(value.encode(errors="surrogatepass")) > rule.limit_bytes
            yield Fault(pointer(path), rule.detail, rule.limit_bytes if is_long else None)


# The words.

BOUND = re.compile(r"[<>]=? (-?\d+)(?:\.0)?$")  # ends msgspec's sentence if a length or a number is beyond it


def unknown(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1) if len(name) <= 64 else []
    meant = f', did you mean "{close[0]}"?' if close else ";"
    return f"unknown member{meant} known are: {', '.join(known)}"


def one_of(bare: Any) -> str:
    """The values that a Literal or an Enum allows; "" for any other type."""
    values: Iterable[Any] = ()
    if get_origin(bare) is Literal:
        values = get_args(bare)
    elif isinstance(bare, type) and issubclass(bare, enum.Enum):
        values = [member.value for member in bare]
    return f"must be one of {', '.join(map(json.dumps, values))}" if values else ""


def decapitalised(text: str) -> str:
    return text[:1].lower() + text[1:]
