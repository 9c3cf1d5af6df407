"""Looking at a replica: how it stands, and what has changed for those who follow.

Each function is work inside a transaction of SQLite.
"""

import sqlite3
from datetime import UTC, datetime
from typing import Any

import msgspec

from journal.client import file, local, pulled
from journal.client.given import Data, decoded
from journal.client.live import State
from journal.core import cursor as cursors


class Changed(msgspec.Struct, frozen=True):
    """An atom that is another now, or gone (`data` is None). `atom` None: all of the collection may be.

    `is_local`: it was changed here, by whatever process.
    """

    collection: str
    atom: str | None
    data: Data | None
    is_local: bool


class Status(msgspec.Struct, frozen=True):
    """How a replica stands. `pending`: changes that wait to be pushed or answered; `conflicts`: that wait for somebody.

    `lag`: how many revisions the server was ahead when it was last heard. `error`: why the last sync failed.
    `taken`: collections that may not be read any more, of those that were asked for.
    """

    state: State
    pending: int
    conflicts: int
    revision: int | None
    head: int | None
    lag: int | None
    synced_at: datetime | None
    error: str | None
    client: str
    taken: list[str]


def feed_end(db: sqlite3.Connection) -> int:
    """Where the feed ends now."""
    end: int = db.execute("select coalesce(max(seq), 0) from feed").fetchone()[0]
    return end


def feed_since(db: sqlite3.Connection, at: int) -> tuple[int, list[Changed]]:
    """What changed since a place in the feed, each atom once; where it was trimmed, whole collections."""
    first, end = db.execute(
        "select coalesce((select min(seq) from feed), 0), coalesce((select max(seq) from feed), 0)"
    ).fetchone()
    if end <= at:
        return at, []
    if first > at + 1:
        return end, [Changed(name, None, None, is_local=False) for name in local.collections(db)]
    rows = db.execute(
        "select collection, atom, min(is_local) from feed where seq > ? group by collection, atom order by max(seq)",
        (at,),
    )
    return end, [
        Changed(collection, atom, None if atom is None else _seen(db, collection, atom), bool(is_local))
        for collection, atom, is_local in rows
    ]


def _seen(db: sqlite3.Connection, collection: str, atom: str) -> Data | None:
    data = local.read(db, collection, atom)
    return None if data is None else decoded(data)


def counted(db: sqlite3.Connection) -> dict[str, Any]:
    """What of a Status the file tells."""
    text, head, synced_at = (file.meta(db, name) for name in ("cursor", "head", "synced_at"))
    revision = None if text is None else cursors.parse(text, parameter="cursor").revision
    return {
        "pending": local.waiting(db),
        "conflicts": db.execute("select count(*) from conflict where settled is null").fetchone()[0],
        "revision": revision,
        "head": head,
        "lag": None if revision is None or head is None else max(0, head - revision),
        "synced_at": None if synced_at is None else datetime.fromtimestamp(synced_at, UTC),
        "client": file.meta(db, "client"),
        "taken": sorted(pulled.taken(db)),
    }
