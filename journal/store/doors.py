"""Who may come in: tokens, tickets and owners of clients' ids, as PostgreSQL has them."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec

from journal.core.grants import Grant
from journal.store.database import Database
from journal.store.queries import QUERY

_decode = msgspec.json.Decoder(tuple[Grant, ...]).decode


class Token(msgspec.Struct, frozen=True):
    """A token in force. `ends_at`: in seconds since 1970, None: it has no end."""

    id: int
    hash: bytes
    name: str
    grants: tuple[Grant, ...]
    ends_at: float | None


class Ticket(msgspec.Struct, frozen=True):
    """What a ticket was for: the number of a token, or the caller as it was told. `is_good`: it was in time."""

    token: int | None
    caller: str | None
    is_good: bool


class TokenRow(msgspec.Struct, frozen=True):
    """A token as it is listed."""

    id: int
    name: str
    grants: tuple[Grant, ...]
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    revoked_at: datetime | None
    revoked_by: str | None
    used_at: datetime | None


async def turn(database: Database) -> int:
    """How often the tokens have changed; 0: there never was one."""
    async with database.reading() as connection:
        found: int = await connection.fetchval(QUERY["door"])
    return found


async def by_hash(database: Database, hashes: list[bytes]) -> list[Token]:
    """The tokens of these hashes that are in force, as far as they have not expired."""
    async with database.reading() as connection:
        return [_token(row) for row in await connection.fetch(QUERY["tokens_by_hash"], hashes)]


async def by_id(database: Database, number: int) -> Token | None:
    """A token that is in force."""
    async with database.reading() as connection:
        row = await connection.fetchrow(QUERY["token_by_id"], number)
    return None if row is None else _token(row)


async def used(database: Database, at: dict[int, float]) -> None:
    """Write down when tokens were last used, in seconds since 1970."""
    async with database.operating() as connection:
        numbers = sorted(at)
        await connection.execute(QUERY["tokens_used"], numbers, [_moment(at[number]) for number in numbers])


async def every(database: Database) -> list[TokenRow]:
    """All tokens, the newest first."""
    async with database.reading() as connection:
        rows = await connection.fetch(QUERY["tokens"])
    return [TokenRow(**dict(row) | {"grants": _decode(row["grants"])}) for row in rows]


async def make(
    database: Database, hash_: bytes, name: str, grants: tuple[Grant, ...], *, by: str, expires_at: datetime | None
) -> int:
    """A new token's number."""
    async with database.operating() as connection:
        number: int = await connection.fetchval(QUERY["make_token"], hash_, name, _encode(grants), by, expires_at)
    return number


async def grant(
    database: Database, number: int, grants: tuple[Grant, ...], *, was: tuple[Grant, ...] | None = None
) -> bool:
    """Give a token other grants; False where none of this number is in force, or it has others by now than `was`."""
    known = None if was is None else _encode(was)
    async with database.operating() as connection:
        return await connection.fetchval(QUERY["grant_token"], number, _encode(grants), known) is not None


async def rotate(database: Database, number: int, hash_: bytes, expires_at: datetime | None) -> bool:
    """Give a token another secret; False where none of this number is in force."""
    async with database.operating() as connection:
        return await connection.fetchval(QUERY["rotate_token"], number, hash_, expires_at) is not None


async def revoke(database: Database, number: int, *, by: str) -> bool:
    """Revoke a token; False where none of this number is in force."""
    async with database.operating() as connection:
        return await connection.fetchval(QUERY["revoke_token"], number, by) is not None


async def make_ticket(
    database: Database, journal: int, hash_: bytes, *, token: int | None, caller: str | None, expires_at: float
) -> None:
    """A ticket for a journal's stream."""
    async with database.operating() as connection:
        await connection.execute(QUERY["make_ticket"], journal, hash_, token, caller, _moment(expires_at))


async def use_ticket(database: Database, journal: int, hash_: bytes, *, now: float) -> Ticket | None:
    """Use a ticket up; None where there is none."""
    async with database.operating() as connection:
        row = await connection.fetchrow(QUERY["use_ticket"], journal, hash_, _moment(now))
    return None if row is None else Ticket(**dict(row))


async def forget_tickets(database: Database, *, now: float) -> None:
    """Forget those that nobody used."""
    async with database.operating() as connection:
        await connection.execute(QUERY["forget_tickets"], _moment(now))


async def own(database: Database, journal: int, client: UUID, owner: str) -> str:
    """To whom a client's id belongs: its first user."""
    async with database.reading() as connection:
        known: str | None = await connection.fetchval(QUERY["owner_of"], journal, client)
    while known is None:  # one statement does not see what another commits meanwhile
        async with database.operating() as connection:
            known = await connection.fetchval(QUERY["own"], journal, client, owner)
    return known


def _token(row: Any) -> Token:
    ends_at = None if row["expires_at"] is None else row["expires_at"].timestamp()
    return Token(row["id"], row["hash"], row["name"], _decode(row["grants"]), ends_at)


def _encode(grants: tuple[Grant, ...]) -> str:
    return msgspec.json.encode(grants, order="sorted").decode()


def _moment(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)
