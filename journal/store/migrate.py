"""Migrations: numbered, forward only; the functions are put in place anew whenever their text has changed.

Several processes may start at once: one migrates, the others wait for it.
"""

from hashlib import sha256

import asyncpg

from journal.store.database import Unusable, translated
from journal.store.queries import SQL

OLDEST = 150000  # PostgreSQL 15


async def migrate(dsn: str) -> list[str]:
    """Bring the database at `dsn` up to date; what was done, by name, [] where nothing was."""
    with translated():
        connection = await asyncpg.connect(dsn, timeout=10)
        try:
            await _check_server(connection)
            async with connection.transaction():
                await connection.execute("select pg_advisory_xact_lock(hashtext('journal.migrate'))")
                return await _apply(connection)
        finally:
            await connection.close(timeout=5)


async def pending(dsn: str) -> list[str]:
    """What `migrate` would do, by name."""
    with translated():
        connection = await asyncpg.connect(dsn, timeout=10)
        try:
            await _check_server(connection)
            return [name for name, _, _ in await _missing(connection)]
        finally:
            await connection.close(timeout=5)


async def _check_server(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    version = connection.get_server_version()
    if version.major < OLDEST // 10000:
        raise Unusable(f"PostgreSQL 15 or later is needed; this one is {version.major}.{version.minor}")
    encoding = await connection.fetchval("show server_encoding")
    if encoding != "UTF8":
        raise Unusable(f"a database in UTF8 is needed; this one is in {encoding}")


async def _missing(connection: "asyncpg.Connection[asyncpg.Record]") -> list[tuple[str, str | None, str]]:
    is_there = await connection.fetchval("select to_regclass('journal.migration') is not null")
    rows = await connection.fetch("select m.name, m.hash from journal.migration m") if is_there else []
    applied = {row["name"]: row["hash"] for row in rows}
    missing: list[tuple[str, str | None, str]] = []
    for name, text in _texts("migrations"):
        if name not in applied:
            missing.append((name, None, text))
    for name, text in _texts("functions"):
        digest = sha256(text.encode()).hexdigest()
        if applied.get(name) != digest:
            missing.append((name, digest, text))
    return missing


async def _apply(connection: "asyncpg.Connection[asyncpg.Record]") -> list[str]:
    await connection.execute("create schema if not exists journal")
    await connection.execute("set local check_function_bodies = off")  # they call each other
    missing = await _missing(connection)
    for name, digest, text in missing:
        await connection.execute(text)
        await connection.execute(
            """insert into journal.migration (name, hash) values ($1, $2)
               on conflict (name) do update set hash = excluded.hash, applied_at = now()""",
            name,
            digest,
        )
    return [name for name, _, _ in missing]


def _texts(folder: str) -> list[tuple[str, str]]:
    found = [file for file in (SQL / folder).iterdir() if file.name.endswith(".sql")]
    return sorted((f"{folder}/{file.name}", file.read_text()) for file in found)
