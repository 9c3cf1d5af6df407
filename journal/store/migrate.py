"""Migrations: numbered, forward only; the functions are put in place anew whenever their text has changed.

Several processes may start at once: one migrates, the others wait for it. Where nothing is to be done nothing is asked
for: a role that may not migrate finds that out only when it would have to. A version that starts again while a later
one takes its place finds a database that is ahead of it, and leaves it so: its functions go with that one's tables.
"""

from hashlib import sha256
from typing import TYPE_CHECKING

import asyncpg

from journal.store.database import Unusable, translated
from journal.store.queries import SQL
from journal.store.servers import Servers

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

OLDEST = 150000  # PostgreSQL 15
ROLES = "roles/"


async def migrate(dsn: str, *, role: str | None = None) -> list[str]:
    """Bring the database at `dsn` up to date; what was done, by name, [] where nothing was.

    `role`: give this one what the service needs (sql/roles.sql), now and with each later migration.
    """
    with translated():
        connection = await Servers(dsn).connect(dsn, timeout=10)
        try:
            await _check_server(connection)
            async with connection.transaction():
                await connection.execute("select pg_advisory_xact_lock(hashtext('journal.migrate'))")
                return await _apply(connection, role)
        except asyncpg.InsufficientPrivilegeError as error:
            user = await connection.fetchval("select current_user")
            raise Unusable(f"{user} may not migrate it, and something is to be done: {error}") from error
        finally:
            await connection.close(timeout=5)


async def pending(dsn: str, *, role: str | None = None) -> list[str]:
    """What `migrate` would do, by name."""
    with translated():
        connection = await Servers(dsn).connect(dsn, timeout=10)
        try:
            await _check_server(connection)
            missing = [name for name, _, _ in await _missing(connection)]
            return missing + [ROLES + one for one in await _roles(connection, role, is_changed=bool(missing))]
        finally:
            await connection.close(timeout=5)


async def _check_server(connection: "Connection") -> None:
    version = connection.get_server_version()
    if version.major < OLDEST // 10000:
        raise Unusable(f"PostgreSQL 15 or later is needed; this one is {version.major}.{version.minor}")
    encoding = await connection.fetchval("show server_encoding")
    if encoding != "UTF8":
        raise Unusable(f"a database in UTF8 is needed; this one is in {encoding}")


async def _applied(connection: "Connection") -> dict[str, str | None]:
    is_there = await connection.fetchval("select to_regclass('journal.migration') is not null")
    rows = await connection.fetch("select m.name, m.hash from journal.migration m") if is_there else []
    return {row["name"]: row["hash"] for row in rows}


async def _missing(connection: "Connection") -> list[tuple[str, str | None, str]]:
    applied = await _applied(connection)
    missing: list[tuple[str, str | None, str]] = []
    migrations = _texts("migrations")
    if _is_ahead(applied, [name for name, _ in migrations]):
        return missing
    for name, text in migrations:
        if name not in applied:
            missing.append((name, None, text))
    for name, text in _texts("functions"):
        digest = _digest(text)
        if applied.get(name) != digest:
            missing.append((name, digest, text))
    return missing


async def _roles(connection: "Connection", asked: str | None, *, is_changed: bool) -> list[str]:
    """Who is to be given rights: who is `asked` for, and of those that had them and are there still whose have changed.

    They change with sql/roles.sql, and with every new table or function.
    """
    digest = _digest(_rights())
    applied = await _applied(connection)
    if _is_ahead(applied, [name for name, _ in _texts("migrations")]):
        return [] if asked is None else [asked]
    known = [name.removeprefix(ROLES) for name, had in applied.items() if name.startswith(ROLES)]
    changed = [role for role in known if is_changed or applied[ROLES + role] != digest]
    there = [role for role in sorted(changed) if await _is_role(connection, role)]
    return there if asked is None or asked in there else [*there, asked]


def _is_ahead(applied: dict[str, str | None], ours: list[str]) -> bool:
    """Whether a later version has migrated it."""
    return any(name.startswith("migrations/") and name not in ours for name in applied)


async def _apply(connection: "Connection", role: str | None) -> list[str]:
    missing = await _missing(connection)
    if missing:
        await connection.execute("create schema if not exists journal")
        await connection.execute("set local check_function_bodies = off")  # they call each other
    for name, digest, text in missing:
        await connection.execute(text)
        await _note(connection, name, digest)
    if missing:  # some run as the owner, and everybody may run what nobody has forbidden
        await connection.execute("revoke execute on all functions in schema journal from public")
    roles = await _roles(connection, role, is_changed=bool(missing))
    for one in roles:
        await _allow(connection, one)
    return [name for name, _, _ in missing] + [ROLES + one for one in roles]


async def _allow(connection: "Connection", role: str) -> None:
    """Give a role what the service needs, and nothing else; Unusable where it is none to be limited."""
    if not await _is_role(connection, role):
        raise Unusable(f"there is no role {role}: an owner of roles makes it, with create role … login password …")
    if await connection.fetchval(
        """select r.rolsuper or pg_has_role(r.oid, n.nspowner, 'member')
             from pg_roles r cross join pg_namespace n where r.rolname = $1 and n.nspname = 'journal'""",
        role,
    ):
        raise Unusable(f"{role} may do everything, as the owner of the tables or a superuser: name a role that is none")
    quoted = '"' + role.replace('"', '""') + '"'
    await connection.execute(_rights().replace(':"role"', quoted))
    await _note(connection, ROLES + role, _digest(_rights()))


async def _is_role(connection: "Connection", role: str) -> bool:
    return bool(await connection.fetchval("select exists (select from pg_roles r where r.rolname = $1)", role))


async def _note(connection: "Connection", name: str, digest: str | None) -> None:
    await connection.execute(
        """insert into journal.migration (name, hash) values ($1, $2)
           on conflict (name) do update set hash = excluded.hash, applied_at = now()""",
        name,
        digest,
    )


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()


def _rights() -> str:
    return (SQL / "roles.sql").read_text()


def _texts(folder: str) -> list[tuple[str, str]]:
    found = [file for file in (SQL / folder).iterdir() if file.name.endswith(".sql")]
    return sorted((f"{folder}/{file.name}", file.read_text()) for file in found)
