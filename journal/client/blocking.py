"""A replica for code without an event loop: the same one, on a thread of its own.

The rule: nothing is decided here. Each method waits for that of the same name in replica.py, which says what it does.
"""

import asyncio
import contextvars
import queue
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from journal.client.conflicts import Conflict, Keep
from journal.client.problems import Closed
from journal.core.model import Policy

if TYPE_CHECKING:
    from journal.client.bearer import Token
    from journal.client.given import Data, Value
    from journal.client.looking import Changed, Status
    from journal.client.replica import Collection, Replica

T = TypeVar("T")


class BlockingReplica:
    """Use it with `with Replica.open_sync(…)`, from any thread; what each thread does in a transaction is its own."""

    def __init__(self, replica: "Replica") -> None:
        self._replica = replica
        self._local = threading.local()
        self._guard = threading.Lock()
        self._waited_for: set[asyncio.Task[Any]] = set()
        self._is_over = True  # not begun yet

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="replica", daemon=True)
        self._thread.start()
        self._is_over = False
        try:
            self._run(self._replica.__aenter__())
        except BaseException:
            self._end(asyncio.sleep(0))
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop syncing and close the file. What other threads wait for ends: Closed."""
        self._end(self._replica.close())

    def collection(self, name: str, *, on_conflict: Policy | None = None) -> "BlockingCollection":
        """A collection."""
        return BlockingCollection(self, self._replica.collection(name, on_conflict=on_conflict))

    def collections(self) -> list[str]:
        """The names of those that have atoms."""
        return self._run(self._replica.collections())

    @contextmanager
    def transaction(self, *, on_conflict: Policy | None = None) -> Iterator[None]:
        """What this thread changes inside is one commit."""
        opened = self._replica.transaction(on_conflict=on_conflict)
        self._run(opened.__aenter__())
        try:
            yield
        except BaseException as error:
            if not self._run(opened.__aexit__(type(error), error, error.__traceback__)):
                raise
        else:
            self._run(opened.__aexit__(None, None, None))

    def sync(self) -> None:
        """Push what waits, pull what is new, recover if need be."""
        self._run(self._replica.sync())

    def verify(self) -> int:
        """Sync, compare all data with the server's, mend what differs."""
        return self._run(self._replica.verify())

    def start(self) -> None:
        """Sync in the background."""
        self._run(self._replica.start())

    def stop(self) -> None:
        """Sync in the background no more."""
        self._run(self._replica.stop())

    def wake(self) -> None:
        """Try again at once."""

        async def wake() -> None:
            self._replica.wake()

        self._run(wake())

    def renew(self, token: "Token") -> None:
        """From now on with this token."""

        async def renew() -> None:
            self._replica.renew(token)

        self._run(renew())

    def status(self) -> "Status":
        """How it stands."""
        return self._run(self._replica.status())

    def conflicts(self) -> list[Conflict]:
        """Changes that were refused."""
        return self._run(self._replica.conflicts())

    def settle(self, conflict: Conflict, keep: Keep, *, atom: str | None = None) -> None:
        """Settle a conflict."""
        self._run(self._replica.settle(conflict, keep, atom=atom))

    def follow(self, *collections: str) -> "Iterator[Changed]":
        """What changes from now on; close it, or leave the loop, to look no longer."""
        changes = self._replica.follow(*collections)
        one = self._run(_next(changes))
        try:
            while one is not None:
                yield one
                try:
                    one = self._run(_next(changes))
                except Closed:
                    return
        finally:
            with suppress(Closed):
                self._run(changes.aclose())

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait for something in the loop; all that a thread has done there is done in one context.

        Who is interrupted meanwhile (Ctrl-C) goes on when it has ended.
        """
        if not hasattr(self._local, "context"):
            self._local.context = contextvars.copy_context()
        context: contextvars.Context = self._local.context
        done: queue.SimpleQueue[asyncio.Task[T]] = queue.SimpleQueue()
        begun: list[asyncio.Task[T]] = []

        def begin() -> None:
            task = self._loop.create_task(work, context=context)
            begun.append(task)
            self._waited_for.add(task)
            task.add_done_callback(self._waited_for.discard)
            task.add_done_callback(done.put)

        self._submit(begin, work)
        try:
            task = done.get()
        except BaseException:
            self._loop.call_soon_threadsafe(lambda: begun[0].cancel())
            _forget(done.get())
            raise
        if task.cancelled():
            raise Closed
        return task.result()

    def _submit(self, begin: Callable[[], None], work: Coroutine[Any, Any, Any]) -> None:
        """Have the loop begin something, unless it has ended or would wait for itself."""
        refusal: Exception | None = None
        if threading.current_thread() is self._thread:
            refusal = RuntimeError("what a replica calls, in its own thread, cannot wait for the replica")
        with self._guard:
            if refusal is None and self._is_over:
                refusal = Closed()
            if refusal is None:
                self._loop.call_soon_threadsafe(begin)
        if refusal is not None:
            work.close()
            raise refusal

    def _end(self, last: Coroutine[Any, Any, None]) -> None:
        """End what threads wait for, then do the last work, then the loop; once."""
        done: queue.SimpleQueue[asyncio.Task[None]] = queue.SimpleQueue()

        async def end() -> None:
            waited_for = list(self._waited_for)
            for task in waited_for:
                task.cancel()
            await asyncio.gather(*waited_for, return_exceptions=True)
            try:
                await last
            finally:
                await self._loop.shutdown_asyncgens()

        with self._guard:
            is_first, self._is_over = not self._is_over, True
        if not is_first:
            last.close()
            return
        self._loop.call_soon_threadsafe(lambda: self._loop.create_task(end()).add_done_callback(done.put))
        task = done.get()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        task.result()


async def _next(changes: "AsyncGenerator[Changed, None]") -> "Changed | None":
    return await anext(changes, None)


def _forget(task: "asyncio.Task[Any]") -> None:
    """Whatever became of it: it was told to end."""
    if not task.cancelled():
        task.exception()


class BlockingCollection:
    """A collection of a BlockingReplica."""

    def __init__(self, replica: BlockingReplica, collection: "Collection") -> None:
        self._run, self._collection, self.name = replica._run, collection, collection.name

    def insert(self, atom: str, data: Mapping[str, Any]) -> None:
        """Add an atom."""
        self._run(self._collection.insert(atom, data))

    def put(self, atom: str, data: Mapping[str, Any]) -> None:
        """Have an atom so."""
        self._run(self._collection.put(atom, data))

    def update(self, atom: str, fields: Mapping[str, Any] | None = None, *, unset: Iterable[str] = ()) -> None:
        """Set some fields of an atom, and take others away."""
        self._run(self._collection.update(atom, fields, unset=unset))

    def delete(self, atom: str) -> bool:
        """Remove an atom."""
        return self._run(self._collection.delete(atom))

    def get(self, atom: str) -> "Data | None":
        """An atom's data."""
        return self._run(self._collection.get(atom))

    def find(self, fields: "Mapping[str, Value]") -> "list[tuple[str, Data]]":
        """The atoms whose fields have these values."""
        return self._run(self._collection.find(fields))

    def count(self, fields: "Mapping[str, Value] | None" = None) -> int:
        """How many atoms there are."""
        return self._run(self._collection.count(fields))

    def index(self, field: str) -> None:
        """Make finding atoms by a field quick."""
        self._run(self._collection.index(field))

    def __iter__(self) -> "Iterator[tuple[str, Data]]":
        """All atoms, by name."""
        after = ""
        while found := self._run(self._collection.page(after)):
            yield from found
            after = found[-1][0]
