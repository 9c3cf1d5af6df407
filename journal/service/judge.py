"""Judging a cursor: whether a journal can go on from where a client stands (protocol, section 7).

Pure, on a head that PostgreSQL's own rows have confirmed. The order of the checks is the protocol's.
"""

from collections.abc import Iterable

from journal.core.cursor import Cursor
from journal.errors import Reason, ResyncRequired
from journal.store.heads import Head


def judge(since: Cursor | int, head: Head, chain_there: str | None, *, horizon_at: int | None = None) -> None:
    """ResyncRequired where `since` leads nowhere. `chain_there`: the chain at its revision, None where no commit ends.

    `horizon_at`: the revision that must not be below the horizon, where it is not that of `since`.
    """
    if isinstance(since, Cursor) and since.epoch != head.epoch:
        raise resync(head, "epoch")
    revision = since if isinstance(since, int) else since.revision
    if revision > head.head:
        raise resync(head, "future")
    if (revision if horizon_at is None else horizon_at) < head.horizon:
        raise resync(head, "horizon")
    if isinstance(since, Cursor) and since.chain != chain_there:
        raise resync(head, "diverged")


def judge_scope(since: Cursor | int, head: Head, asked: frozenset[str] | None) -> None:
    """ResyncRequired where a cursor that was earned on some collections is used for more (trap 17).

    A collection that is not there yet has no past that could be missed.
    """
    if isinstance(since, int) or since.collections is None:
        return
    wanted: Iterable[str] = head.collections if asked is None else asked
    missing = sorted(name for name in wanted if name not in since.collections and name in head.collections)
    if missing:
        raise resync(head, "scope", missing)


def resync(head: Head, reason: Reason, collections: list[str] | None = None) -> ResyncRequired:
    """Section 7's answer."""
    return ResyncRequired(
        reason=reason,
        journal=head.journal,
        epoch=head.epoch,
        head=head.head,
        horizon=head.horizon,
        collections=collections,
    )
