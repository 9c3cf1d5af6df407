"""Rounds: a request for deltas, and its place in a round of pages (protocol, section 3.1).

Pure. The base of a round chooses fields, and insert or replace; the position of a page chooses what was cancelled.
"""

import msgspec

from journal.core import chain
from journal.core.cursor import Cursor
from journal.errors import Fault, InvalidRequest
from journal.service.answer import Form
from journal.store.heads import Head


class DeltasAsked(msgspec.Struct, frozen=True):
    """What was asked for. `until` None: the head; `collections` None: all."""

    since: Cursor | int
    limit: int = 10_000
    until: int | None = None
    collections: frozenset[str] | None = None
    client: str | None = None
    wait_s: float = 0.0
    with_meta: bool = False
    with_revisions: bool = False
    form: Form = "json"


class Round(msgspec.Struct, frozen=True):
    """A request within its round of pages: where the round began, where this page does, and what it is for."""

    since: Cursor | int
    base: int
    position: int
    until: int | None
    collections: frozenset[str] | None
    client: str | None

    def cursor(self, head: Head, at: int, chain_there: bytes, *, is_over: bool) -> Cursor:
        """The cursor that ends a page at revision `at`."""
        there = Cursor(head.epoch, at, chain.told(chain_there), self.collections)
        if is_over:
            return there
        return msgspec.structs.replace(there, base=self.base, until=self.until, client=self.client)


def round_of(asked: DeltasAsked) -> Round:
    """The round that a request belongs to; InvalidRequest where its parameters contradict its cursor."""
    since = asked.since
    if isinstance(since, int):
        if asked.client is not None and since != 0:
            raise InvalidRequest([Fault("/since", "a request that names its client needs a cursor here, or 0")])
        return Round(since, since, since, asked.until, asked.collections, asked.client)
    if since.until is not None and asked.until not in (None, since.until):
        raise InvalidRequest([Fault("/until", "the cursor is of a round with another end", since.until)])
    if since.base is not None and asked.client not in (None, since.client):
        raise InvalidRequest([Fault("/client", "the cursor is of another client's round")])
    is_unfinished = since.base is not None
    return Round(
        since=since,
        base=since.round_base,
        position=since.revision,
        until=since.until if asked.until is None else asked.until,
        collections=since.collections if asked.collections is None and is_unfinished else asked.collections,
        client=since.client if asked.client is None else asked.client,
    )
