"""Grants: who a caller is, and what it may do with a journal and its collections (protocol, section 13).

Pure. What several grants say of one journal is put together; what no grant says is not allowed.
"""

from collections.abc import Iterable
from typing import Literal

import msgspec

Permission = Literal["read", "write", "operate"]
PERMISSIONS: tuple[Permission, ...] = ("read", "write", "operate")
EVERY = "*"
Names = frozenset[str] | None
"""Names of collections; None: all, also those to come."""


class Grant(msgspec.Struct, frozen=True):
    """What may be done with a journal, or with all of them (`*`). `collections` None: with all of its collections."""

    journal: str
    can: frozenset[Permission]
    collections: Names = None


class Reach(msgspec.Struct, frozen=True):
    """What a caller may do with one journal. Who operates it reads all of it; who writes a collection reads it."""

    reads: Names
    writes: Names
    operates: bool

    @property
    def is_nothing(self) -> bool:
        """Whether to this caller the journal is not there."""
        return self.reads is not None and not self.reads

    def reads_all(self, names: Names) -> bool:
        """Whether all of `names` may be read."""
        return within(names, self.reads)

    def writes_all(self, names: Iterable[str]) -> bool:
        """Whether all of `names` may be written."""
        return self.writes is None or self.writes.issuperset(names)


ALL = Reach(None, None, operates=True)
NOTHING = Reach(frozenset(), frozenset(), operates=False)


class Caller(msgspec.Struct, frozen=True):
    """Who makes a request. `owner`: stands for it for ever, None where nobody needs to say who they are.

    `ends_at`: in seconds since 1970, from when on it is nobody any more; None: it has no such time.
    """

    owner: str | None
    name: str
    grants: tuple[Grant, ...]
    ends_at: float | None = None

    def reach(self, journal: str) -> Reach:
        """What it may do with a journal."""
        if self.owner is None:
            return ALL
        reads: Names = frozenset()
        writes: Names = frozenset()
        operates = False
        for grant in self.grants:
            if grant.journal not in (journal, EVERY):
                continue
            if "operate" in grant.can:
                operates, reads = True, None
            if "read" in grant.can:
                reads = union(reads, grant.collections)
            if "write" in grant.can:
                writes = union(writes, grant.collections)
        return Reach(reads, writes, operates)

    @property
    def operates_service(self) -> bool:
        """Whether it may do what concerns all journals, and make and remove them."""
        return self.owner is None or any(grant.journal == EVERY and "operate" in grant.can for grant in self.grants)


OPEN = Caller(None, "anyone", ())


def union(these: Names, those: Names) -> Names:
    """All that is in either."""
    return None if these is None or those is None else these | those


def both(these: Names, those: Names) -> Names:
    """All that is in both."""
    if these is None or those is None:
        return those if these is None else these
    return these & those


def within(these: Names, those: Names) -> bool:
    """Whether all of `these` are in `those`."""
    return those is None or (these is not None and these <= those)


def faults_of(grant: Grant) -> list[str]:
    """What makes no sense in a grant, in words; [] where it does."""
    found: list[str] = []
    if not grant.can:
        found.append("it allows nothing: say read, write or operate")
    if "write" in grant.can and "read" not in grant.can:
        found.append("write needs read: who pushes is told what stands")
    if "operate" in grant.can and "write" in grant.can:
        found.append("operate and write are not given together: operators have tokens of their own")
    if "operate" in grant.can and grant.collections is not None:
        found.append("operate concerns a journal as a whole: it cannot be for some collections")
    if grant.collections is not None and not grant.collections:
        found.append("no collection is named")
    return found
