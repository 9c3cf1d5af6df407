"""The registry: which clients sync, and how far each is. Kept in memory and written every few seconds.

A client's row is where it last asked from, not what it was sent: what it asks from it has. Processes write what they
saw independently; the latest wins.
"""

import asyncio
import contextlib
import logging
import time
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
from msgspec import Raw

from journal.core.cursor import Cursor
from journal.errors import Fault, InvalidRequest, NotFound, Unavailable
from journal.service.judge import admitted
from journal.service.tails import Tails
from journal.store import recovery
from journal.store.database import Database
from journal.store.recovery import Registered, Seen
from journal.wire import ClientAnswer, ClientPush, ClientRow, ClientsAnswer, rfc3339

_log = logging.getLogger(__name__)
SOON = 20_000  # clients that are written before their time
AGENT_LENGTH = 200
PUSHES = 20


class Registry:
    """Who syncs."""

    def __init__(self, database: Database, tails: Tails, every_s: float) -> None:
        self.database, self.tails, self.every_s = database, tails, every_s
        self._seen: dict[tuple[str, str], _Sight] = {}
        self._is_full = asyncio.Event()
        self._writing = asyncio.Lock()

    @property
    def unwritten(self) -> int:
        """How many sights of clients are not written yet."""
        return len(self._seen)

    async def admit(self, journal: str, client: str) -> None:
        """ClientForgotten where an operator forgot it."""
        tail = await self.tails.of(journal)
        if client not in tail.admitted:
            gone = tail.head.gone
            admitted(UUID(client), is_gone=await recovery.is_forgotten(self.database, tail.head.id, UUID(client)))
            if tail.head.gone == gone:
                tail.admit(client)

    def saw(self, journal: str, client: str, cursor: Cursor | None, agent: str | None) -> None:
        """A client asked, from a cursor or without one."""
        now = time.monotonic()
        known = self._seen.get((journal, client))
        if cursor is None and known is not None:
            self._seen[journal, client] = _Sight(known.cursor, known.cursor_at, agent, now)
        else:
            self._seen[journal, client] = _Sight(cursor, now, agent, now)
        if len(self._seen) > SOON:
            self._is_full.set()

    async def run(self) -> None:
        """Write every few seconds, until cancelled; then once more."""
        try:
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self.every_s):
                        await self._is_full.wait()
                try:
                    await self.flush()
                except Unavailable:
                    pass
                except Exception:
                    _log.exception("where clients were seen could not be written")
        finally:
            with contextlib.suppress(Unavailable):
                await self.flush()

    async def flush(self) -> None:
        """Write what was seen; what cannot be written now is written later."""
        async with self._writing:
            taken, self._seen, now = self._seen, {}, time.monotonic()
            self._is_full.clear()
            try:
                if taken:
                    await recovery.see(
                        self.database,
                        [
                            Seen(journal, UUID(client), s.cursor, _text(s.agent), now - s.cursor_at, now - s.at)
                            for (journal, client), s in taken.items()
                        ],
                    )
            except (Unavailable, asyncio.CancelledError):
                self._seen = taken | self._seen
                raise

    async def clients(self, journal: str, after: str | None, limit: int) -> ClientsAnswer:
        """A page of clients, the furthest behind first."""
        tail = await self.tails.of(journal)
        await self.flush()
        found = await recovery.clients_after(self.database, tail.head.id, _place(after), limit + 1)
        is_more = len(found) > limit
        last = found[limit - 1] if is_more else None
        return ClientsAnswer(
            epoch=tail.head.epoch,
            head=tail.head.head,
            clients=[ClientRow(**_told(client)) for client in found[:limit]],
            more=is_more,
            next=None if last is None else f"{-1 if last.revision is None else last.revision}:{last.client}",
        )

    async def client(self, journal: str, client: UUID) -> ClientAnswer:
        """One client, with its last pushes; NotFound where it was not seen."""
        tail = await self.tails.of(journal)
        await self.flush()
        found = await recovery.client_named(self.database, tail.head.id, client)
        if found is None:
            raise NotFound("no client of this id was seen here")
        pushes = await recovery.pushes_of(self.database, tail.head.id, client, PUSHES)
        told = []
        for push in pushes:
            kept = _kept(push.answer)
            told.append(ClientPush(push.push, rfc3339(push.at), push.status, kept.revision, kept.outcomes))
        return ClientAnswer(**_told(found), pushes=told)

    async def forget(self, journal: str, client: UUID, *, by: str) -> None:
        """Forget a client: it must take a new id."""
        tail = await self.tails.of(journal)
        await self.flush()
        if not await recovery.forget_client(self.database, tail.head.id, client, by=by):
            raise NotFound("no client of this id was seen here")
        await self.tails.refresh(tail)


class _Sight(NamedTuple):
    """Where a client was seen, by this process's clock."""

    cursor: Cursor | None
    cursor_at: float
    agent: str | None
    at: float


def _text(agent: str | None) -> str | None:
    """What a header says, as text that can be kept: it may be any bytes."""
    if agent is None:
        return None
    return agent[:AGENT_LENGTH].encode("utf-8", "replace").decode().replace("\0", "")


class _Kept(msgspec.Struct):
    """What is kept of a push's answer."""

    outcomes: Raw
    revision: int | None = None


_kept = msgspec.json.Decoder(_Kept).decode


def _told(found: Registered) -> dict[str, Any]:
    return {
        "client": found.client,
        "cursor": found.cursor,
        "revision": found.revision,
        "lag": found.lag,
        "lag_s": None if found.lag_s is None else round(max(found.lag_s, 0.0), 3),
        "first_seen": rfc3339(found.first_seen),
        "last_seen": rfc3339(found.last_seen),
        "agent": found.agent,
        "resync": found.resync,
        "resynced": found.resynced,
        "resynced_at": None if found.resynced_at is None else rfc3339(found.resynced_at),
        "pushed": found.pushed,
    }


def _place(after: str | None) -> tuple[int, UUID] | None:
    if after is None:
        return None
    revision, _, client = after.partition(":")
    try:
        return int(revision), UUID(client)
    except ValueError:
        raise InvalidRequest([Fault("/after", "must be the `next` of the page before")]) from None
