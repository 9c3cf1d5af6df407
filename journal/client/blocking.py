"""A replica for code without an event loop: the same one, on a thread of its own.

The rule: nothing is decided here. Each method waits for that of the same name in replica.py, which says what it does.
"""

import asyncio
import contextvars
import queue
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from journal.client.conflicts import Conflict, Keep
from journal.core.model import Policy

if TYPE_CHECKING:
    from journal.client.replica import Changed, Collection, Data, Replica, Status, Value

T = TypeVar("T")


class BlockingReplica:
    """Use it with `with Replica.open_sync(…)`, from any thread; what each thread does in a transaction is its own."""

    def __init__(self, opened: "Callable[[], Replica]") -> None:
        self._opened = opened
        self._local = threading.local()

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="replica", daemon=True)
        self._thread.start()
        try:
            self._replica = self._run(self._open())
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def _open(self) -> "Replica":
        return await self._opened().__aenter__()

    def close(self) -> None:
        """Stop syncing and close the file."""
        if self._thread.is_alive():
            try:
                self._run(self._replica.close())
            finally:
                self._end()

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
        self._loop.call_soon_threadsafe(self._replica.wake)

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
        found: queue.SimpleQueue[Changed | BaseException] = queue.SimpleQueue()

        async def look() -> None:
            try:
                async for one in self._replica.follow(*collections):
                    found.put(one)
            except BaseException as error:
                found.put(error)
                raise

        looking = asyncio.run_coroutine_threadsafe(look(), self._loop)
        try:
            while True:
                one = found.get()
                if isinstance(one, BaseException):
                    raise one
                yield one
        finally:
            looking.cancel()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait for something in the loop; all that a thread has done there is done in one context."""
        if not hasattr(self._local, "context"):
            self._local.context = contextvars.copy_context()
        context: contextvars.Context = self._local.context
        done: queue.SimpleQueue[asyncio.Task[T]] = queue.SimpleQueue()

        def begin() -> None:
            self._loop.create_task(work, context=context).add_done_callback(done.put)

        self._loop.call_soon_threadsafe(begin)
        return done.get().result()

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


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
