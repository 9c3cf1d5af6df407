"""Operations: what takes long runs by itself, says how far it is, and ends as done or failed.

The row in PostgreSQL is the truth, so that any process can be asked. One that its process has not spoken of for a
while has failed: the process is gone.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import msgspec
from msgspec import Raw

from journal.errors import JournalError, NotFound, Unavailable
from journal.service.tails import Tails
from journal.store import operators
from journal.store.database import Database
from journal.store.operators import Operation
from journal.wire import OperationAnswer, OperationsAnswer, rfc3339

Report = Callable[[float], None]
Work = Callable[[Report], Awaitable[msgspec.Struct]]

TOLD_EVERY_S = 1.0
SILENT_S = 30.0
AT_ONCE = 2
LISTED = 20
KEPT_DAYS = 30

_log = logging.getLogger(__name__)
_encode = msgspec.json.Encoder().encode


class Operations:
    """Runs what takes long."""

    def __init__(self, database: Database, tails: Tails) -> None:
        self.database, self.tails = database, tails
        self._running: dict[UUID, asyncio.Task[None]] = {}
        self._begun: dict[tuple[int, str, bytes], asyncio.Future[UUID]] = {}
        self._admission = asyncio.Semaphore(AT_ONCE)

    async def start(self, journal: str, kind: str, asked: object, work: Work, *, by: str) -> UUID:
        """Begin `work`, or join the same that runs here already; its id."""
        tail = await self.tails.of(journal)
        key = (tail.head.id, kind, _encode(asked))
        begun = self._begun.get(key)
        if begun is None:
            begun = self._begun[key] = asyncio.ensure_future(self._begin(key, work, by))
        return await asyncio.shield(begun)

    async def _begin(self, key: tuple[int, str, bytes], work: Work, by: str) -> UUID:
        journal, kind, asked = key
        number = uuid4()
        try:
            await operators.begin(self.database, journal, number, kind, asked.decode(), by)
        except BaseException:
            del self._begun[key]
            raise
        task = self._running[number] = asyncio.create_task(self._run(journal, number, work))
        task.add_done_callback(lambda _: (self._running.pop(number), self._begun.pop(key)))
        return number

    async def wait(self, number: UUID, seconds: float) -> None:
        """Wait for the end, if it runs here, for so long."""
        task = self._running.get(number)
        if task is not None:
            await asyncio.wait([task], timeout=seconds)

    async def one(self, journal: str, number: UUID) -> OperationAnswer:
        """How far it is."""
        tail = await self.tails.of(journal)
        found = await operators.operations(self.database, tail.head.id, number, 1)
        if not found:
            raise NotFound("no such operation")
        return _told(found[0])

    async def all(self, journal: str) -> OperationsAnswer:
        """The newest ones."""
        tail = await self.tails.of(journal)
        found = await operators.operations(self.database, tail.head.id, None, LISTED)
        return OperationsAnswer([_told(one) for one in found])

    async def forget(self) -> None:
        """Forget what ended long ago."""
        await operators.forget_operations(self.database, datetime.now(UTC) - timedelta(days=KEPT_DAYS))

    async def close(self) -> None:
        """End what runs; it says of itself that it failed."""
        for task in self._running.values():
            task.cancel()
        await asyncio.gather(*self._running.values(), return_exceptions=True)

    async def _run(self, journal: int, number: UUID, work: Work) -> None:
        progress = 0.0

        def report(share: float) -> None:
            nonlocal progress
            progress = max(progress, min(share, 1.0))

        async def tell() -> None:
            while True:
                await asyncio.sleep(TOLD_EVERY_S)
                try:
                    await operators.tell(self.database, journal, number, progress, "running", None)
                except Unavailable:
                    pass
                except Exception:
                    _log.exception("how far operation %s is could not be told", number)

        telling = asyncio.create_task(tell())
        try:
            async with self._admission:
                result: object = await work(report)
            state: operators.State = "done"
            progress = 1.0
        except asyncio.CancelledError:
            state, result = "failed", _Failed("the service was stopped")
        except JournalError as error:
            state, result = "failed", _Failed(str(error))
        except Exception:
            _log.exception("operation %s failed", number)
            state, result = "failed", _Failed("an internal error: the service's log has it")
        telling.cancel()
        await asyncio.gather(telling, return_exceptions=True)
        with contextlib.suppress(Unavailable):
            await operators.tell(self.database, journal, number, progress, state, _encode(result).decode())


class _Failed(msgspec.Struct):
    detail: str


def _told(found: Operation) -> OperationAnswer:
    is_lost = found.state == "running" and found.silent_s > SILENT_S
    result = (found.result or "null").encode()
    if is_lost:
        result = _encode(_Failed(f"its process has said nothing for {found.silent_s:.0f} s: it is gone"))
    return OperationAnswer(
        id=found.id,
        kind=found.kind,
        state="failed" if is_lost else found.state,
        progress=round(found.progress, 4),
        result=Raw(result),
        by=found.by,
        begun_at=rfc3339(found.begun_at),
        ended_at=None if found.ended_at is None else rfc3339(found.ended_at),
    )
