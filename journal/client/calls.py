"""The calls of the protocol that a replica makes, on one journal: Structs in, Structs out.

The rule: what will pass by waiting a little (429, 503) is waited for here, as long as the service says and a little
more, so that not all come back at once; everything else is the caller's. Pushes are not: whoever sends one again has
to know that it does.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, TypeVar

import msgspec
from msgspec import UNSET, Raw, UnsetType

from journal.client.descent import Of
from journal.client.http import READ_S, Http, Refused, Unreachable
from journal.core.consolidate import Delta
from journal.core.grants import Caller, Grant, Names
from journal.core.model import Key, Outcome
from journal.wire import (
    CallerAnswer,
    ConflictAnswer,
    CursorAnswer,
    Deltas,
    DigestAnswer,
    HeadAnswer,
    ManifestAnswer,
    PushAnswer,
)

T = TypeVar("T")
LOOKED_UP = 5000
WAITS = 5
PATIENCE_S = 60  # who is to come back later than that is told so at once
_V1 = "/v1/journals/"


class Resync(msgspec.Struct, frozen=True):
    """What a 410 says (protocol, section 7)."""

    reason: str
    reconcile: str
    epoch: str
    head: int
    horizon: int
    retry_after: float = 0
    collections: list[str] | None = None
    granted: list[str] | None = None


class Synced(msgspec.Struct):
    """What …/sync answers: the push's members, and deltas or a resync."""

    epoch: str | UnsetType = UNSET
    outcomes: list[Outcome] | None = None
    first: int | None = None
    revision: int | None = None
    replayed: bool = False
    since: int | UnsetType = UNSET
    more: bool = False
    cursor: str | UnsetType = UNSET
    deltas: list[Delta] | UnsetType = UNSET
    until: int | UnsetType = UNSET
    head: int | UnsetType = UNSET
    horizon: int | UnsetType = UNSET
    digest: str | UnsetType = UNSET
    resync: Resync | UnsetType = UNSET

    @property
    def pushed(self) -> PushAnswer:
        """What became of the push."""
        epoch = "" if self.epoch is UNSET else self.epoch
        head = self.resync.head if isinstance(self.resync, Resync) else self.revision or 0
        head = head if self.head is UNSET else self.head
        return PushAnswer(epoch, self.first, self.revision, head, "", self.outcomes, self.replayed)

    @property
    def pulled(self) -> Deltas | None:
        """What has happened since; None where that cannot be told."""
        if self.cursor is UNSET or self.deltas is UNSET or self.epoch is UNSET or self.since is UNSET:
            return None
        return Deltas(
            self.epoch, self.since, self.more, self.cursor, self.deltas,
            until=self.until, head=self.head, horizon=self.horizon, digest=self.digest,
        )  # fmt: skip


class _Decided(msgspec.Struct):
    """What a problem says besides of a push that was decided: 409 `not_applied`, 410 `client_forgotten`."""

    outcomes: list[Outcome] | None
    replayed: bool = False
    head: int = 0


class _Held(msgspec.Struct):
    revision: int
    data: Raw


class _Looked(msgspec.Struct):
    revision: int
    atoms: dict[str, dict[str, _Held | None]]


class Journal:
    """A journal of a service."""

    def __init__(self, http: Http, name: str) -> None:
        self.http, self.name = http, name

    async def head(self) -> HeadAnswer:
        """Where it stands."""
        return await self._get(HeadAnswer)

    async def readable(self) -> Names:
        """The collections that may be read."""
        body = await patiently(lambda: self.http.get("caller"))
        told = self._read(CallerAnswer, body)
        if told.name is None:
            return None
        grants = (
            Grant(one.journal, frozenset(one.can), None if one.collections is None else frozenset(one.collections))
            for one in told.grants
        )
        return Caller("", told.name, tuple(grants)).reach(self.name).reads

    async def deltas(
        self,
        since: str,
        *,
        limit: int,
        client: str | None = None,
        collections: Iterable[str] | None = None,
        until: int | None = None,
    ) -> Deltas:
        """A page of everything since a cursor, or since 0."""
        return await self._get(
            Deltas, "deltas", since=since, limit=limit, client=client, collections=listed(collections), until=until
        )

    async def push(self, body: Mapping[str, Any]) -> PushAnswer:
        """What became of a push, also of an atomic one of which nothing was recorded."""
        try:
            return await self._once(PushAnswer, "changes", body=body)
        except Refused as error:
            if error.code != "not_applied":
                raise
            return decided(error)

    async def sync(self, body: Mapping[str, Any]) -> Synced:
        """A push and everything since, in one request."""
        return await self._once(Synced, "sync", body=body)

    async def cursor(self, at: str, collections: Iterable[str] | None) -> str:
        """The cursor that stands where `at` does, for these collections."""
        return (await self._get(CursorAnswer, "cursor", at=at, collections=listed(collections))).cursor

    async def lookup(self, names: Iterable[Key]) -> dict[Key, tuple[int, bytes] | None]:
        """Revision and data of atoms; None for those that do not live."""
        found: dict[Key, tuple[int, bytes] | None] = {}
        wanted = list(names)
        for start in range(0, len(wanted), LOOKED_UP):
            asked: dict[str, list[str]] = {}
            for collection, atom in wanted[start : start + LOOKED_UP]:
                asked.setdefault(collection, []).append(atom)
            looked = await self._post(_Looked, "lookup", body={"get": asked})
            for collection, atoms in looked.atoms.items():
                for atom, held in atoms.items():
                    found[collection, atom] = None if held is None else (held.revision, bytes(held.data))
        return found

    async def digest(self, prefix: str, of: Of, collections: Iterable[str] | None) -> DigestAnswer:
        """What is beneath a prefix of places."""
        return await self._get(DigestAnswer, "digest", prefix=prefix, of=of, collections=listed(collections))

    async def manifest(
        self, prefix: str, of: Of, collections: Iterable[str] | None, after: str | None
    ) -> ManifestAnswer:
        """A page of the atoms beneath it."""
        asked = {"prefix": prefix, "of": of, "collections": listed(collections), "after": after}
        return await self._get(ManifestAnswer, "manifest", **asked)

    async def conflict(self, name: str) -> ConflictAnswer | None:
        """A conflict that the service keeps; None where it has none of this name."""
        try:
            return await self._get(ConflictAnswer, "conflicts", name)
        except Refused as error:
            if error.code != "not_found":
                raise
            return None

    async def keep_servers(self, conflict: str) -> None:
        """Settle a conflict that the service keeps: what stands is to stay. No harm in doing it again."""
        try:
            await self._post(dict[str, Any], "conflicts", conflict, body={"keep": "server"})
        except Refused as error:
            if error.status not in (404, 409):  # it was erased, or somebody else settled it
                raise

    async def _get(self, of: type[T], /, *path: str, **parameters: str | float | None) -> T:
        return self._read(of, await patiently(lambda: self.http.get("journals", self.name, *path, **parameters)))

    async def _post(self, of: type[T], *path: str, body: object) -> T:
        return await patiently(lambda: self._once(of, *path, body=body))

    async def _once(self, of: type[T], *path: str, body: object) -> T:
        return self._read(of, (await self.http.post("journals", self.name, *path, body=body, read_s=READ_S))[1])

    def _read(self, of: type[T], body: bytes) -> T:
        try:
            return msgspec.json.decode(body, type=of)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise Unreachable(self.http.url, f"what came is no answer of a journal service: {error}") from None


def decided(error: Refused) -> PushAnswer:
    """What became of a push whose answer is a problem."""
    told = msgspec.json.decode(msgspec.json.encode(error.problem), type=_Decided)
    return PushAnswer("", None, None, told.head, "", told.outcomes, told.replayed)


async def patiently(call: Callable[[], Awaitable[T]]) -> T:
    """What a call comes to, made again where the service asks for a little patience: a few times, then Refused."""
    for _ in range(WAITS):
        try:
            return await call()
        except Refused as error:
            if not error.will_pass or error.retry_after > PATIENCE_S:
                raise
            await asyncio.sleep(jittered(error.retry_after))
    return await call()


def jittered(seconds: float) -> float:
    """A little longer than that, never together with others."""
    return seconds * random.uniform(1.0, 1.25) + random.uniform(0.0, 0.25)  # noqa: S311 - nobody is kept out by it


def listed(collections: Iterable[str] | None) -> str | None:
    """Collections as a parameter has them."""
    return None if collections is None else ",".join(sorted(collections))


def split(url: str) -> tuple[str, str]:
    """The service and the journal of `http://…/v1/journals/NAME`; ValueError where it is another URL."""
    service, found, journal = url.rstrip("/").partition(_V1)
    if not found or not journal or "/" in journal:
        raise ValueError(f"{url}: a journal's URL is expected, like http://127.0.0.1:8470/v1/journals/demo")
    return service, journal
