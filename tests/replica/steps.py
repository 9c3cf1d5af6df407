"""The seam between any two steps of a replica: before each statement of SQLite, before each request, after each answer.

A step is told where it happens: a statement's in the thread of its connection, the others' in the event loop. Whoever
is told may raise, cancel, kill, or change something first.
"""

import sqlite3
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
from yarl import URL

BeforeStatement = Callable[["Watched", str], None]
AtRequest = Callable[[str], Awaitable[None]]
_GOING_ON = ("/stream", "/snapshot")


class Watched(sqlite3.Connection):
    """A connection that tells each statement first, those of `executemany` one by one.

    `is_writing`: it holds the write lock, so that nobody else can write before it has ended its transaction.
    """

    before: BeforeStatement
    is_writing = False

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        """As ever."""
        self.before(self, sql)
        done = super().execute(sql, parameters)
        self.is_writing = self.in_transaction and (self.is_writing or sql.startswith("begin immediate"))
        return done

    def executemany(self, sql: str, rows: Iterable[Any], /) -> sqlite3.Cursor:
        """As ever."""
        done = self.cursor()
        for row in rows:
            done = self.execute(sql, row)
        return done


@contextmanager
def watching(path: Path, before: BeforeStatement, at_request: AtRequest) -> Iterator[None]:
    """Connections to the file at `path` that are opened inside, and all requests, tell their steps."""
    connect, request = sqlite3.connect, aiohttp.ClientSession._request

    def opened(database: Any, *arguments: Any, **options: Any) -> sqlite3.Connection:
        if database != path:
            other: sqlite3.Connection = connect(database, *arguments, **options)
            return other
        db: Watched = connect(database, *arguments, factory=Watched, **options)
        db.before = before
        return db

    async def asked(self: aiohttp.ClientSession, method: str, url: Any, **arguments: Any) -> aiohttp.ClientResponse:
        await at_request(f"{method} {URL(url).path}")
        response = await request(self, method, url, **arguments)
        if not any(part in URL(url).path for part in _GOING_ON):
            await response.read()
        await at_request(f"{response.status} {URL(url).path}")
        return response

    _set(sqlite3, "connect", opened)
    _set(aiohttp.ClientSession, "_request", asked)
    try:
        yield
    finally:
        _set(sqlite3, "connect", connect)
        _set(aiohttp.ClientSession, "_request", request)


def _set(of: object, name: str, value: object) -> None:
    setattr(of, name, value)
