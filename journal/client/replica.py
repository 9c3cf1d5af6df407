"""Replica: a journal's data in a file of SQLite, to be read and written offline, and synced.

What is written is there at once and waits to be pushed; what others wrote comes with a sync. Nothing that was written
is lost: it is recorded, or kept as a conflict, or still waiting (docs/replica.md).
"""

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from contextvars import ContextVar
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from uuid import uuid4

from journal.client import conflicts, file, given, local, looking, pulled, role
from journal.client.bearer import Bearer, Token
from journal.client.calls import Journal, split
from journal.client.change import Patch
from journal.client.clock import Clock
from journal.client.conflicts import Conflict, Keep
from journal.client.connection import Connection, T, Work
from journal.client.given import Data, Value
from journal.client.http import Http, connected
from journal.client.live import Live, State, refusal
from journal.client.local import Wish
from journal.client.looking import Changed, Status
from journal.client.problems import Closed, InvalidChange, NotSynced
from journal.client.role import Role
from journal.client.syncing import Syncing
from journal.client.told import Progress, Told
from journal.core.model import Policy, PushOp
from journal.errors import JournalError

if TYPE_CHECKING:
    from journal.client.blocking import BlockingReplica

READ_AT_ONCE = 1000
LOOK_S = 0.25
ASKED_S = 0.05


class _Transaction:
    """Changes that are made and recorded together."""

    def __init__(self, replica: "Replica", policy: Policy, outer: "_Transaction | None") -> None:
        self.replica, self.policy, self.outer = replica, policy, outer
        self.id, self.is_open = uuid4().hex, True


_within: ContextVar[_Transaction | None] = ContextVar("journal_replica_transaction", default=None)


class Replica:
    """A copy of a journal. Open it with `async with Replica.open(…)`."""

    def __init__(
        self,
        path: str | Path,
        url: str,
        *,
        collections: Iterable[str] | None,
        on_conflict: Policy,
        token: Token,
        headers: Mapping[str, str] | None,
        progress: Callable[[Progress], None] | None,
        conflict: Callable[[Conflict], None] | None,
        keep_days: float,
        clock: Clock | None,
    ) -> None:
        self.path, self.url = Path(path).absolute(), url  # whatever folder the process goes to
        self.service, self.journal = split(url)
        self.wanted = None if collections is None else frozenset(map(given.collection, collections))
        if self.wanted is not None and not self.wanted:
            raise ValueError("a replica of no collections: leave `collections` out for all of them")
        self.on_conflict, self.clock = given.policy(on_conflict), clock or Clock()
        self._bearer = Bearer(token)
        self._headers, self._keep_s, self._conflict = headers, keep_days * 86_400, conflict
        self._told = Told(
            progress=progress or (lambda _: None), conflicts=self._tell_conflicts, changed=self._tell_lookers
        )
        self._writer, self._reader, self._engine = (Connection(self.path) for _ in range(3))
        self._role = Role(self.path)
        self._writing = asyncio.Lock()
        self._looking: set[asyncio.Event] = set()
        self._live: Live | None = None
        self._running: asyncio.Task[None] | None = None
        self._is_started = False  # else it runs for those who look, if at all
        self._open: AsyncExitStack | None = None
        self._error: JournalError | None = None
        self._is_syncing = False
        self._telling: set[asyncio.Task[None]] = set()

    @classmethod
    def open(
        cls,
        path: str | Path,
        url: str,
        *,
        collections: Iterable[str] | None = None,
        on_conflict: Policy = "server",
        token: Token = None,
        headers: Mapping[str, str] | None = None,
        progress: Callable[[Progress], None] | None = None,
        conflict: Callable[[Conflict], None] | None = None,
        keep_days: float = 7.0,
        clock: Clock | None = None,
    ) -> Self:
        """The replica at `path` of the journal at `url`, `http://…/v1/journals/NAME`; entering it makes the file.

        `collections`: only these, else all. `on_conflict`: the policy of what is written here, unless a collection or
        transaction says another. `token`: what shows who asks, or what gives a fresh one when it is asked for.
        `headers` go with each request. `progress` and `conflict` are called in the event loop, `conflict` for each that
        is kept. `keep_days`: how long acknowledged pushes are kept, to be offered again should the server lose them.
        """
        return cls(
            path, url, collections=collections, on_conflict=on_conflict, token=token, headers=headers,
            progress=progress, conflict=conflict, keep_days=keep_days, clock=clock,
        )  # fmt: skip

    @classmethod
    def open_sync(cls, path: str | Path, url: str, **options: Any) -> "BlockingReplica":
        """The same for code without an event loop: `with Replica.open_sync(…)`. The options are those of `open`."""
        from journal.client.blocking import BlockingReplica

        return BlockingReplica(cls.open(path, url, **options))

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            for connection in (self._writer, self._reader, self._engine):
                await connection.open()
                stack.push_async_callback(connection.close)
            await self._writer.call(lambda db: file.prepare(db, self.path, self.journal))
            if self.wanted is not None:
                wanted = self.wanted
                await self._writer.write(lambda db: pulled.keep_only(db, wanted))
            http = await stack.enter_async_context(self._connected())
            raw = await stack.enter_async_context(self._connected(is_raw=True))
            self._syncing = Syncing(
                self._engine, Journal(http, self.journal), raw, self.path,
                wanted=self.wanted, clock=self.clock, keep_s=self._keep_s, told=self._told,
            )  # fmt: skip
            self._open = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Stop syncing and close the file; what waits is pushed when it is opened again."""
        await self.stop()
        if self._open is not None:
            stack, self._open = self._open, None
            self._tell_changed()
            async with stack:
                await self._writer.call(_rollback)
                await self._writer.call(lambda db: file.renew(db, self.path))

    def collection(self, name: str, *, on_conflict: Policy | None = None) -> "Collection":
        """A collection, with a policy of its own for what is written to it. InvalidChange for one not asked for."""
        if self.wanted is not None and given.collection(name) not in self.wanted:
            raise InvalidChange(f"this replica was opened for {', '.join(sorted(self.wanted))}, not for {name}")
        return Collection(self, given.collection(name), self._policy_of(on_conflict))

    async def collections(self) -> list[str]:
        """The names of those that have atoms."""
        return await self._read(local.collections)

    @asynccontextmanager
    async def transaction(self, *, on_conflict: Policy | None = None) -> AsyncIterator[None]:
        """What this task changes inside is one commit, here and at the server: all of it or nothing.

        Other writers wait meanwhile: do nothing that takes long. If the server refuses any of it, all of it is kept
        as conflicts. It has one policy, `on_conflict` or the replica's, whatever those of its collections are.
        """
        if self._transaction() is not None:
            raise RuntimeError("transactions cannot be nested")
        policy = self._policy_of(on_conflict)
        async with self._writing:
            transaction = _Transaction(self, policy, _within.get())
            token = _within.set(transaction)
            try:
                await self._writer.call(lambda db: db.execute("begin immediate"))  # goes on where this is cancelled
                yield
                await self._writer.call(lambda db: db.execute("commit"))
            except BaseException:
                with contextlib.suppress(Closed):
                    await self._writer.call(_rollback)
                raise
            finally:
                transaction.is_open = False
                _within.reset(token)
        self._tell_changed()

    async def sync(self) -> None:
        """Push what waits, pull what is new, recover if need be: when it returns, the data is the server's at the end.

        Unreachable, Refused, NotRecovered: what was written still waits. If another process syncs this file, it is
        asked to do so, and waited for.
        """
        await self._work(lambda: self._syncing.sync())

    async def verify(self) -> int:
        """Sync, compare all data with the server's by its content, and mend what differs; how many atoms that were."""
        mended = 0

        async def verify() -> None:
            nonlocal mended
            mended = await self._syncing.verify()

        await self._work(verify, is_own=True)
        return mended

    async def start(self) -> None:
        """Sync in the background until `stop`: at once, soon after each change here, and as others change something."""
        self._begin()
        self._is_started = True

    async def stop(self) -> None:
        """Sync in the background no more."""
        self._is_started = False
        await self._end()

    def _begin(self) -> None:
        self._must_be_open()
        if self._running is None:
            self._live = Live(self._syncing, self._role)
            self._running = asyncio.create_task(self._live.run())

    async def _end(self) -> None:
        if self._running is not None:
            running, self._running, self._live = self._running, None, None
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running

    def wake(self) -> None:
        """Try again at once, whatever pause the background syncing is in: the network is back, the screen is on."""
        if self._live is not None:
            self._live.wake()

    def renew(self, token: Token) -> None:
        """From now on this token shows who asks, or what this gives; what waited for one is tried again at once."""
        self._bearer.renew(token)
        self.wake()

    async def follow(self, *collections: str) -> AsyncGenerator[Changed, None]:
        """What changes from now on, here and at the server; syncs in the background as long as somebody looks.

        Several changes of an atom may come as one. Who looks too slowly is told that whole collections may have
        changed. It ends when the replica is closed.
        """
        self._begin()
        news = asyncio.Event()
        self._looking.add(news)
        try:
            at = await self._reader.read(looking.feed_end)
            while self._open is not None:
                news.clear()
                at, found = await self._reader.read(lambda db, at=at: looking.feed_since(db, at))  # type: ignore[misc]
                for one in found:
                    if not collections or one.collection in collections:
                        yield one
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(news.wait(), LOOK_S)
        finally:
            self._looking.discard(news)
            if not self._is_started and not self._looking:
                await self._end()

    async def status(self) -> Status:
        """How it stands."""
        counted = await self._reader.read(looking.counted)
        state: State = "syncing" if self._is_syncing else refusal(self._error) or "idle"
        error = None if self._error is None else str(self._error)
        if self._live is not None:
            state, error = self._live.state, None if self._live.error is None else str(self._live.error)
        if self._running is not None and self._running.done() and not self._running.cancelled():
            state, error = "idle", repr(self._running.exception())
        return Status(state=state, error=error, **counted)

    async def conflicts(self) -> list[Conflict]:
        """Changes that were refused and that nobody has settled, oldest first."""
        return await self._read(conflicts.waiting)

    async def settle(self, conflict: Conflict, keep: Keep, *, atom: str | None = None) -> None:
        """Settle a conflict: keep what stands (`server`), make the change again on it (`client`), or `both`.

        For `both`, `atom` is the name under which the version from here is inserted. AtomExists where it is taken.
        """
        if keep == "both":
            if atom is None:
                raise InvalidChange("to keep both, the copy needs a name")
            given.atom(atom)
        elif atom is not None:
            raise InvalidChange("only a copy has a name of its own")
        self._must_be_alone()
        policy, now = self.on_conflict, self.clock.now()
        async with self._writing:
            await self._writer.write(lambda db: conflicts.settle(db, conflict.id, keep, atom, policy, now))
        self._tell_changed()

    def _connected(self, *, is_raw: bool = False) -> AbstractAsyncContextManager[Http]:
        return connected(self.service, is_raw=is_raw, more=self._headers, bearer=self._bearer)

    async def _work(self, work: Callable[[], Any], *, is_own: bool = False) -> None:
        """Work that only one may do. `is_own`: this very work is wanted, not just a sync by whoever syncs."""
        self._must_be_open()
        self._must_be_alone()
        while not self._role.take():
            if not is_own and await self._ask_whoever_syncs():
                return None
            if is_own and self._live is not None and self._role.is_taken:
                await self._end()
                try:
                    return await self._work(work, is_own=True)
                finally:
                    if self._is_started or self._looking:
                        self._begin()
            if is_own:
                await self._reader.write(role.want)
            await asyncio.sleep(ASKED_S)
        try:
            self._is_syncing, self._error = True, None
            await work()
            self.wake()  # the background syncing may be in a pause, for a reason that is over
        except JournalError as error:
            self._error = error
            raise
        finally:
            self._is_syncing = False
            await role.leave(self._role, self._engine)

    async def _ask_whoever_syncs(self) -> bool:
        """Ask for a sync and wait for the answer; False where nobody syncs any more."""
        number = await self._reader.write(role.ask)
        if self._live is not None:
            self._live.poke()
        while True:
            answered, error = await self._reader.read(lambda db: (file.meta(db, "answered"), file.meta(db, "answer")))
            if answered is not None and answered >= number:
                if error is None:
                    return True
                raise (self._live and self._live.error) or NotSynced(error)
            if not self._role.is_taken and self._role.take():
                self._role.leave()
                return False
            await asyncio.sleep(ASKED_S)

    async def _write(self, collection: str, atom: str, patch: Patch, policy: Policy) -> bool:
        transaction, now = self._transaction(), self.clock.now()
        if transaction is not None:
            wish = Wish(collection, given.atom(atom), patch, transaction.policy, now, transaction.id)
            return await self._writer.call(lambda db: local.write(db, wish))
        wish = Wish(collection, given.atom(atom), patch, policy, now)
        async with self._writing:
            is_changed = await self._writer.write(lambda db: local.write(db, wish))
        if is_changed:
            self._tell_changed()
        return is_changed

    async def _read(self, work: Work[T]) -> T:
        """Inside a transaction, what it has written so far is seen."""
        return await (self._reader.read(work) if self._transaction() is None else self._writer.call(work))

    def _policy_of(self, said: Policy | None) -> Policy:
        return self.on_conflict if said is None else given.policy(said)

    def _must_be_open(self) -> None:
        if self._open is None:
            raise Closed

    def _must_be_alone(self) -> None:
        """What waits for open transactions would wait for this task's own for ever."""
        if self._transaction() is not None:
            raise RuntimeError("a transaction is open: do this after it")

    def _transaction(self) -> _Transaction | None:
        transaction = _within.get()
        while transaction is not None and (transaction.replica is not self or not transaction.is_open):
            transaction = transaction.outer
        return transaction

    def _tell_lookers(self) -> None:
        for news in self._looking:
            news.set()

    def _tell_changed(self) -> None:
        """Something was changed here, which is to be pushed as well."""
        self._tell_lookers()
        if self._live is not None:
            self._live.poke()

    def _tell_conflicts(self, ids: list[int]) -> None:
        if self._conflict is not None:
            telling = asyncio.ensure_future(self._tell_each(ids, self._conflict))
            self._telling.add(telling)
            telling.add_done_callback(self._telling.discard)

    async def _tell_each(self, ids: list[int], told: Callable[[Conflict], None]) -> None:
        for conflict in await self._reader.read(lambda db: conflicts.some(db, ids)):
            told(conflict)


class Collection:
    """A collection of a replica. Atoms are JSON objects by name."""

    def __init__(self, replica: Replica, name: str, policy: Policy) -> None:
        self.replica, self.name, self.policy = replica, name, policy

    async def insert(self, atom: str, data: Mapping[str, Any]) -> None:
        """Add an atom; AtomExists if there is one of its name."""
        await self._change(atom, "insert", data)

    async def put(self, atom: str, data: Mapping[str, Any]) -> None:
        """Have an atom so, whether it is there or not: its whole data."""
        await self._change(atom, "put", data)

    async def update(self, atom: str, fields: Mapping[str, Any] | None = None, *, unset: Iterable[str] = ()) -> None:
        """Set some fields of an atom, and take others away; AtomMissing if it is not there."""
        names = tuple(dict.fromkeys(unset))
        if not fields and not names:
            raise InvalidChange("an update sets fields, unsets some, or both")
        if fields is not None and not given.are_apart(fields, names):
            raise InvalidChange("an update cannot set and unset the same field")
        await self._change(atom, "update", fields or None, names)

    async def delete(self, atom: str) -> bool:
        """Remove an atom; False if it was not there."""
        return await self._change(atom, "delete", None)

    async def get(self, atom: str) -> Data | None:
        """An atom's data, as it was last written here or pulled; None where there is none."""
        data = await self.replica._read(lambda db: local.read(db, self.name, atom))
        return None if data is None else given.decoded(data)

    async def find(self, fields: Mapping[str, Value]) -> list[tuple[str, Data]]:
        """The atoms whose fields have these values: name and data, by name. Quick for a field that has an index."""
        return [pair async for pair in self._items(fields)]

    async def count(self, fields: Mapping[str, Value] | None = None) -> int:
        """How many atoms there are, or how many with these values."""
        sought = given.sought(fields or {})
        return await self.replica._read(lambda db: local.count(db, self.name, sought))

    async def index(self, field: str) -> None:
        """Make finding atoms by a field quick, from now on and whenever this file is opened."""
        self.replica._must_be_alone()
        async with self.replica._writing:
            await self.replica._writer.write(lambda db: local.add_index(db, field))

    def __aiter__(self) -> AsyncIterator[tuple[str, Data]]:
        """All atoms, by name; what is changed while this goes on is told or not."""
        return self._items()

    async def page(self, after: str = "", fields: Mapping[str, Value] | None = None) -> list[tuple[str, Data]]:
        """A thousand atoms from behind a name on, as of one moment; [] at the end."""
        sought = given.sought(fields or {})
        work: Work[list[tuple[str, bytes]]] = lambda db: local.items(db, self.name, after, READ_AT_ONCE, sought)  # noqa: E731
        return [(atom, given.decoded(data)) for atom, data in await self.replica._read(work)]

    async def _items(self, fields: Mapping[str, Value] | None = None) -> AsyncIterator[tuple[str, Data]]:
        after = ""
        while found := await self.page(after, fields):
            for pair in found:
                yield pair
            after = found[-1][0]

    async def _change(self, atom: str, op: PushOp, data: Mapping[str, Any] | None, unset: tuple[str, ...] = ()) -> bool:
        patch = Patch(op, None if data is None else given.encoded(data), unset)
        return await self.replica._write(self.name, atom, patch, self.policy)


def _rollback(db: sqlite3.Connection) -> None:
    if db.in_transaction:
        db.execute("rollback")
