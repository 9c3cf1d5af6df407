"""The file of a replica: its form, the single facts in it, and whether it is still the file that was left.

What is copied or restored from a backup has lost count of its pushes: it takes a new id, and is compared with the
server before it is trusted (docs/protocol.md, section 5: client ids are never used again).
"""

import sqlite3
from importlib import resources
from pathlib import Path
from typing import Any
from uuid import uuid4

from journal.client import incarnation
from journal.client.problems import FileTooNew, NotThisJournal
from journal.core import cursor as cursors
from journal.core.cursor import Cursor

FORM = 1
_SCHEMA = (resources.files("journal.client") / "replica.sql").read_text()


def prepare(db: sqlite3.Connection, path: Path, journal: str) -> None:
    """Give a new file its form; notice one that was copied or restored."""
    db.execute("begin immediate")
    try:
        form = db.execute("pragma user_version").fetchone()[0]
        if form > FORM:
            raise FileTooNew(f"{path} has form {form}, this version knows {FORM}")
        if form == 0:
            for statement in _statements(_SCHEMA):
                db.execute(statement)
            db.execute(f"pragma user_version = {FORM}")
            tell(db, "pushed", 0)
            tell(db, "generation", 0)
            take_new_identity(db)
            tell(db, "in_doubt", 0)
        _belongs(db, path, journal)
        known = meta(db, "nonce")
        if known is not None and not incarnation.is_same(path, known):
            take_new_identity(db)
        db.execute("commit")
    except BaseException:
        db.execute("rollback")
        raise
    renew(db, path)


def renew(db: sqlite3.Connection, path: Path) -> None:
    """Make what was copied of the file so far tell that it is a copy. Killed in between, the file is still the same."""
    nonce = uuid4().hex
    db.execute("begin immediate")
    try:
        known = meta(db, "nonce")
        incarnation.expect(path, *([nonce] if known is None else [known, nonce]))
        tell(db, "nonce", nonce)
        db.execute("commit")
        db.execute("begin immediate")
        if meta(db, "nonce") == nonce:  # else another process has renewed it meanwhile
            incarnation.expect(path, nonce)
        db.execute("commit")
    except BaseException:
        if db.in_transaction:
            db.execute("rollback")
        raise


def take_new_identity(db: sqlite3.Connection) -> None:
    """A new id with a count of its own; what the file holds is in doubt. What was sent keeps the id it had then."""
    tell(db, "client", str(uuid4()))
    tell(db, "pushed", 0)
    tell(db, "in_doubt", 1)
    at = cursor(db)
    if at is not None and at.base is not None:  # a round of pages goes on under the old id only: begin it again
        tell(db, "cursor", meta(db, "round_began"))


def meta(db: sqlite3.Connection, name: str) -> Any:
    """A single fact; None where it was never told."""
    row = db.execute("select value from meta where name = ?", (name,)).fetchone()
    return None if row is None else row[0]


def tell(db: sqlite3.Connection, name: str, value: Any) -> None:
    """Keep a single fact."""
    db.execute("insert or replace into meta values (?, ?)", (name, value))


def cursor(db: sqlite3.Connection) -> Cursor | None:
    """Where the replica stands; None before its first sync."""
    text = meta(db, "cursor")
    return None if text is None else cursors.parse(text, parameter="cursor")


def _belongs(db: sqlite3.Connection, path: Path, journal: str) -> None:
    """A journal may move to another host, but a file does not become that of another journal."""
    known = meta(db, "journal")
    if known is not None and known != journal:
        raise NotThisJournal(f"{path} is a replica of the journal {known}, not of {journal}")
    tell(db, "journal", journal)


def _statements(text: str) -> list[str]:
    """The statements of a file, one by one: executescript would commit."""
    found, statement = [], ""
    for line in text.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            found.append(statement)
            statement = ""
    return found
