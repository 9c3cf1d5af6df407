"""Judging a cursor: whether a journal can go on from where a client stands (protocol, section 7).

On a head and floors that PostgreSQL's own rows have confirmed. The order of the checks is the protocol's.
"""

import math
import random
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from uuid import UUID

from journal.core import chain
from journal.core.cursor import Cursor
from journal.core.grants import Names, within
from journal.errors import ClientForgotten, Reason, ResyncRequired
from journal.store import heads, recovery
from journal.store.database import Connection
from journal.store.heads import Head
from journal.store.recovery import Floor


async def judged(
    connection: Connection,
    head: Head,
    since: Cursor | int,
    *,
    collections: frozenset[str] | None = None,
    client: str | None = None,
    horizon_at: int | None = None,
    may: Names = None,
) -> None:
    """Judge `since` by the rows of the connection's moment; ResyncRequired where it leads nowhere."""
    position = since if isinstance(since, int) else since.revision
    who = None if client is None else UUID(client)
    judge(
        since,
        head,
        told_or_none(await heads.chain_at(connection, head, position)),
        floors=await floors_for(connection, head, [since], [who]),
        collections=collections,
        client=who,
        horizon_at=horizon_at,
    )
    judge_scope(since, head, collections, may)


async def floors_for(
    connection: Connection, head: Head, cursors: Iterable[Cursor | int | None], clients: Iterable[UUID | None]
) -> list[Floor]:
    """The floors that may matter to any of `cursors`, of any of `clients`."""
    after = min(
        (c.round_base if c.epoch == head.epoch else head.horizon - 1 for c in cursors if isinstance(c, Cursor)),
        default=head.floor,
    )
    if after >= head.floor:
        return []
    return await recovery.floors_after(connection, head, after, [client for client in clients if client is not None])


def judge(
    since: Cursor | int,
    head: Head,
    chain_there: str | None,
    *,
    floors: Sequence[Floor] = (),
    collections: frozenset[str] | None = None,
    client: UUID | None = None,
    horizon_at: int | None = None,
) -> None:
    """ResyncRequired where `since` leads nowhere. `chain_there`: the chain at its revision, None where no commit ends.

    `horizon_at`: the revision that must not be below the horizon, where it is not that of `since`. `floors`: those
    that `floors_for` gives. `collections`: what is asked for, None for all.
    """
    least = since.round_base if isinstance(since, Cursor) and since.epoch == head.epoch else 0
    spread = [floor for floor in floors if floor.revision > least and _concerns(floor, collections, client)]
    if isinstance(since, Cursor) and since.epoch != head.epoch:
        raise resync(head, "epoch", spread=spread, client=client)
    revision = since if isinstance(since, int) else since.revision
    if revision > head.head:
        raise resync(head, "future", spread=spread, client=client)
    if (revision if horizon_at is None else horizon_at) < head.horizon:
        raise resync(head, "horizon", spread=spread, client=client)
    if isinstance(since, int):
        return
    if since.chain != chain_there:
        raise resync(head, "diverged", spread=spread, client=client)
    if spread:
        raise resync(head, "operator", _called_back(spread, collections), spread=spread, client=client)


def judge_scope(since: Cursor | int, head: Head, asked: Names, may: Names = None) -> None:
    """ResyncRequired where a cursor that was earned on some collections is used for more (trap 17).

    A collection that is not there yet has no past that could be missed. `may`: what may be read by now; a cursor that
    has more than that is of before, and what it was earned on has to go.
    """
    if isinstance(since, int):
        return
    if may is not None and not within(since.collections, may):
        raise resync(head, "scope", sorted(may if asked is None else asked), granted=sorted(may))
    if since.collections is None:
        return
    wanted: Iterable[str] = head.collections if asked is None else asked
    missing = sorted(name for name in wanted if name not in since.collections and name in head.collections)
    if missing:
        raise resync(head, "scope", missing)


def resync(
    head: Head,
    reason: Reason,
    collections: list[str] | None = None,
    *,
    spread: Sequence[Floor] = (),
    client: UUID | None = None,
    granted: list[str] | None = None,
) -> ResyncRequired:
    """Section 7's answer."""
    return ResyncRequired(
        reason=reason,
        journal=head.journal,
        epoch=head.epoch,
        head=head.head,
        horizon=head.horizon,
        collections=collections,
        granted=granted,
        retry_after=due_in(spread[-1], client, datetime.now(UTC)) if spread else 0,
    )


def due_in(floor: Floor, client: UUID | None, now: datetime) -> int:
    """In how many seconds a client is to come back: evenly spread over all clients, and always the same for one.

    Who named itself has a moment of its own within `spread_s` from the floor on; an anonymous one any.
    """
    left_s = floor.spread_s - max((now - floor.at).total_seconds(), 0.0)
    if client is None:
        return math.ceil(max(left_s, 0.0) * random.random())  # noqa: S311
    place = int.from_bytes(sha256(client.bytes + floor.revision.to_bytes(8, "big")).digest()[:8], "big") / 2**64
    return math.ceil(max(left_s - floor.spread_s * (1 - place), 0.0))


def admitted(client: UUID, *, is_gone: bool) -> None:
    """ClientForgotten where an operator forgot it."""
    if is_gone:
        raise ClientForgotten(f"{client} takes a new id, and verifies or starts again")


def told_or_none(found: bytes | None) -> str | None:
    """A chain as clients are told it."""
    return None if found is None else chain.told(found)


def _concerns(floor: Floor, collections: frozenset[str] | None, client: UUID | None) -> bool:
    if floor.client is not None:
        return floor.client == client
    return floor.collections is None or collections is None or not floor.collections.isdisjoint(collections)


def _called_back(floors: Sequence[Floor], asked: frozenset[str] | None) -> list[str] | None:
    """The collections that start again; None: all that were asked for."""
    named: frozenset[str] = frozenset()
    for floor in floors:
        if floor.collections is None:
            return None
        named |= floor.collections
    return sorted(named if asked is None else named & asked)
