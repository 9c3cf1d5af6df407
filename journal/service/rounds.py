"""Rounds: a request for deltas, and its place in a round of pages (protocol, section 3.1).

Pure. The base of a round chooses fields, and insert or replace; the position of a page chooses what was cancelled.
"""

import msgspec

from journal.core import chain
from journal.core.cursor import Cursor
from journal.core.grants import Names, within
from journal.errors import Fault, Forbidden, InvalidRequest
from journal.service.answer import Form
from journal.store.heads import Head


class Page(msgspec.Struct, frozen=True):
    """A request for a page: where its round began (`base`), where it begins itself (`position`), and what it is for.

    `until` None: the head; `collections` None: all. `is_fixed`: the request itself named the end. `may`: all that its
    caller may read.
    """

    since: Cursor | int
    base: int
    position: int
    until: int | None = None
    is_fixed: bool = False
    collections: frozenset[str] | None = None
    client: str | None = None
    limit: int = 10_000
    wait_s: float = 0.0
    with_meta: bool = False
    with_revisions: bool = False
    form: Form = "json"
    may: Names = None

    @property
    def identity(self) -> tuple[object, ...]:
        """What two requests share that are answered alike at one head."""
        names = None if self.collections is None else tuple(sorted(self.collections))
        return (
            str(self.since), self.until, names, self.client, self.limit, self.with_meta, self.with_revisions, self.form
        )  # fmt: skip

    def within(self, reads: Names) -> "Page":
        """The same of what its caller may read; Forbidden where it asks for anything else.

        What its cursor had may have been taken away since: judging the cursor tells that.
        """
        if reads is None:
            return self
        names = self.collections
        if names is None:
            names = reads
        elif not names <= reads:
            if isinstance(self.since, int) or not within(names, self.since.collections):
                raise not_granted(reads)
            names &= reads
        return msgspec.structs.replace(self, collections=names, may=reads)

    @property
    def is_of_more(self) -> bool:
        """Whether its cursor has what its caller may not read."""
        return isinstance(self.since, Cursor) and not within(self.since.collections, self.may)

    def cursor(self, head: Head, at: int, chain_there: bytes, *, is_over: bool) -> Cursor:
        """The cursor that ends the page at revision `at`."""
        there = Cursor(head.epoch, at, chain.told(chain_there), self.collections)
        if is_over:
            return there
        return msgspec.structs.replace(there, base=self.base, until=self.until, client=self.client)


def not_granted(reads: Names) -> Forbidden:
    """Told alike of collections that are there and of those that are not."""
    return Forbidden(f"the collections that may be read: {', '.join(sorted(reads or ()))}")


def page(
    since: Cursor | int,
    *,
    until: int | None = None,
    collections: frozenset[str] | None = None,
    client: str | None = None,
    limit: int = 10_000,
    wait_s: float = 0.0,
    with_meta: bool = False,
    with_revisions: bool = False,
    form: Form = "json",
) -> Page:
    """The page that is asked for; InvalidRequest where the parameters contradict the cursor."""
    base = position = since if isinstance(since, int) else since.revision
    is_fixed = until is not None
    if isinstance(since, int):
        if client is not None and since != 0:
            raise InvalidRequest([Fault("/since", "a request that names its client needs a cursor here, or 0")])
    elif since.base is not None:
        if since.until is not None and until not in (None, since.until):
            raise InvalidRequest([Fault("/until", "the cursor is of a round with another end", since.until)])
        if since.until is None and (is_fixed or with_revisions):  # it told what a fold cancels: test_pages.py
            raise InvalidRequest([Fault("/since", "the cursor is of a round to the head: without until or revisions")])
        if client not in (None, since.client):
            raise InvalidRequest([Fault("/client", "the cursor is of another client's round")])
        base, until, client = since.base, until if since.until is None else since.until, since.client
        collections = since.collections if collections is None else collections
    return Page(
        since, base, position, until, is_fixed, collections, client, limit, wait_s, with_meta, with_revisions, form
    )
