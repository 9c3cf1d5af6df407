"""Connections: a pool that reads, one that writes, one for operators, and what becomes of PostgreSQL's errors.

The rule: nobody waits for ever, and nothing of asyncpg's leaves. A connection that cannot be had, breaks or takes
too long is Unavailable; a group that was decided on an old state is Stale; anything else is a fault of ours.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

import asyncpg

from journal.errors import NoRoom, Stale, Unavailable
from journal.store import origin
from journal.store.pooler import STARTUP, ThroughPooler
from journal.store.servers import Servers
from journal.store.spans import span

if TYPE_CHECKING:
    Connection = asyncpg.pool.PoolConnectionProxy[asyncpg.Record]
    Pool = asyncpg.Pool[asyncpg.Record]
else:
    Connection, Pool = Any, Any

ACQUIRE_S = 5.0
# A push finds and writes rows by their keys, whatever the size of the tables. Planning that for each group took half of
# PostgreSQL's time; planned once, it must not be for tables that were small then.
PLANNED_ONCE = {
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
}
STATEMENT_S = 60.0
# What a process leaves that is stopped, or whose machine is gone without a word, in the middle of a group: the head's
# lock, which nobody else could take from it. Between two statements of a group there is never as much to do.
FORSAKEN = {"idle_in_transaction_session_timeout": "10s"}


def _in_short(record: logging.LogRecord) -> bool:
    """asyncpg's pool tells each failed attempt to connect with a traceback; what PostgreSQL said is enough."""
    if record.exc_info is not None:
        record.msg, record.args = f"{record.getMessage()}: {record.exc_info[1]}", ()
        record.exc_info = None
    return True


logging.getLogger("asyncpg.pool").addFilter(_in_short)


class LockBusy(Unavailable):
    """Somebody holds this journal's head for longer than was waited for."""


class Unusable(Exception):
    """The database cannot be used as it is: the text says why and what to do."""


@contextmanager
def translated() -> Iterator[None]:
    """asyncpg's errors as ours."""
    try:
        yield
    except asyncpg.LockNotAvailableError as error:
        raise LockBusy(str(error)) from error
    except asyncpg.PostgresError as error:
        if error.sqlstate == "JR001":
            raise Stale from error
        # 08 connection, 53 resources, 57P shut down or starting, 25006 a standby, 25P03 idle in a transaction,
        # 40 serialization and deadlock
        if error.sqlstate is not None and error.sqlstate.startswith(("08", "53", "57P", "25006", "25P03", "40")):
            raise Unavailable("PostgreSQL is away or busy") from error
        if isinstance(error, asyncpg.QueryCanceledError):
            raise Unavailable("PostgreSQL took too long") from error
        raise
    except (asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError) as error:
        if NoRoom.is_told_by(error):  # of a file here, that rows were read into
            raise NoRoom from error
        # A backend that dies in a transaction is an InterfaceError, at commit an InternalClientError.
        raise Unavailable("PostgreSQL is away or busy") from error


@contextmanager
def connecting() -> Iterator[None]:
    """The same while a connection is made: for whatever reason PostgreSQL lets nobody in, that may pass."""
    try:
        with translated():
            yield
    except asyncpg.PostgresError as error:
        raise Unavailable("PostgreSQL is away or busy") from error


class Pooled:
    """A pool, once it is open, and how it is used. `waiting`: who waits for a connection; `missed`: who got none.

    `leave`: has all pools make their connections anew.
    """

    def __init__(self, role: str, most: int, servers: Servers, leave: Callable[[], Awaitable[None]]) -> None:
        self.role, self.most, self.servers, self.leave = role, most, servers, leave
        self.pool: Pool | None = None
        self.waiting = self.missed = 0

    @property
    def size(self) -> int:
        """How many connections there are."""
        return 0 if self.pool is None else self.pool.get_size()

    @property
    def idle(self) -> int:
        """How many of them nobody uses."""
        return 0 if self.pool is None else self.pool.get_idle_size()

    @asynccontextmanager
    async def acquired(self) -> AsyncIterator[Connection]:
        """A connection, to be given back."""
        assert self.pool is not None
        with span(f"postgresql {self.role}"):
            self.waiting += 1
            try:
                with connecting():
                    connection = await self._of_the_right_server(self.pool)
            except Unavailable:
                self.missed += 1
                raise
            finally:
                self.waiting -= 1
            with translated():
                try:
                    yield connection
                except (TimeoutError, asyncpg.ReadOnlySQLTransactionError):
                    await self.leave()  # the others lead to the same server, which is silent, or the primary no more
                    raise
                finally:
                    await self.pool.release(connection)

    async def _of_the_right_server(self, pool: "Pool") -> Connection:
        connection = await pool.acquire(timeout=ACQUIRE_S)
        if self.servers.is_left(connection):
            await pool.release(connection)
            await self.leave()
            connection = await pool.acquire(timeout=ACQUIRE_S)
        return connection


class Database:
    """The pools of one process. `reading` answers requests, `writing` records, `operating` does what may wait.

    `is_pooled`: `dsn` leads to a pooler in transaction mode. What must be set for correctness the functions bring along
    (sql/functions): what is not set there would only make them quicker.
    """

    def __init__(
        self, dsn: str, *, reading: int, writing: int = 4, operating: int = 6, is_pooled: bool = False
    ) -> None:
        self.dsn, self.is_pooled = dsn, is_pooled
        self.servers = Servers(dsn)
        self._reading = Pooled("read", reading, self.servers, self._leave)
        self._writing = Pooled("write", writing, self.servers, self._leave)
        self._operating = Pooled("operate", operating, self.servers, self._leave)
        self.pools = self._reading, self._writing, self._operating

    async def open(self) -> None:
        """Connect; Unavailable where PostgreSQL does not answer, Unusable where a pooler does that nobody named."""
        with translated(), _unnamed_pooler():
            # A generic plan once chose a sequential scan for a page of deltas: plans are made for the values.
            await self._fill(self._reading, {"plan_cache_mode": "force_custom_plan"})
            # A group of several journals waits so long for a lock; then they part ways (service/writer.py).
            await self._fill(self._writing, {"lock_timeout": "250ms"} | PLANNED_ONCE | FORSAKEN)
            # An operator waits for a head that somebody holds, and takes no connection of who pushes meanwhile.
            await self._fill(self._operating, {"lock_timeout": "15s"}, least=0)
            if not self.is_pooled:
                await self._check_settings()

    async def _fill(self, pooled: Pooled, settings: dict[str, str], *, least: int = 1) -> None:
        settings = {"application_name": origin.named(pooled.role, ""), "jit": "off", "timezone": "UTC"} | settings
        options: dict[str, Any] = {}
        if self.is_pooled:
            settings = {name: settings[name] for name in STARTUP}
            options = {"connection_class": ThroughPooler, "statement_cache_size": 0}
        connect: Any = self.servers.connect  # which the stubs want to take all arguments by name
        pooled.pool = await asyncpg.create_pool(
            self.dsn,
            connect=connect,
            min_size=least,
            max_size=pooled.most,
            timeout=ACQUIRE_S,
            command_timeout=STATEMENT_S,
            server_settings=settings,
            max_inactive_connection_lifetime=300,
            reset=_as_it_is,
            **options,
        )

    async def _check_settings(self) -> None:
        """A pooler may be told to ignore what it cannot keep; then groups would wait for locks without an end."""
        async with self.writing() as connection:
            if await connection.fetchval("select current_setting('lock_timeout')") != "250ms":
                raise Unusable(_POOLER)

    async def close(self) -> None:
        """Close the pools; what still runs has 5 s."""
        for pooled in self.pools:
            if pooled.pool is not None:
                try:
                    await _closed(pooled.pool)
                except TimeoutError:
                    pooled.pool.terminate()

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Connection]:
        """A connection that reads; each statement sees what is committed by then."""
        async with self._reading.acquired() as connection:
            yield connection

    @asynccontextmanager
    async def moment(self) -> AsyncIterator[Connection]:
        """A connection that reads, all of it as of one moment."""
        async with self.reading() as connection, _begun(connection, _AT_ONE_MOMENT, origin.own("read")):
            if self.is_pooled:
                await connection.execute("set local jit = off")
            yield connection

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[Connection]:
        """A connection that writes; each statement commits on its own."""
        async with self._writing.acquired() as connection:
            yield connection

    @asynccontextmanager
    async def recording(self, name: str) -> AsyncIterator[Connection]:
        """The same, all of it in one transaction of this name."""
        async with self.writing() as connection, _begun(connection, "begin", name):
            yield connection

    @asynccontextmanager
    async def operating(self) -> AsyncIterator[Connection]:
        """The same for what is not a push: it may wait for a lock."""
        async with self._operating.acquired() as connection:
            name = origin.own("operate")
            if connection.get_settings().application_name != name:  # a round trip, where few pass
                await connection.execute(f"set application_name = '{name}'")
            yield connection

    async def _leave(self) -> None:
        """See to it that each connection is made anew before it is used again."""
        for pooled in self.pools:
            if pooled.pool is not None:
                await pooled.pool.expire_connections()


_AT_ONE_MOMENT = "begin isolation level repeatable read, read only"


@asynccontextmanager
async def _begun(connection: Connection, begin: str, name: str) -> AsyncIterator[None]:
    """A transaction, which is given its name by the very message that begins it."""
    try:
        await connection.execute(f"{begin}; set local application_name = '{name}'")
        yield
    except BaseException:
        await connection.execute("rollback")
        raise
    await connection.execute("COMMIT")  # as asyncpg says it, which tests wait for


_POOLER = (
    "there is a pooler between, which keeps no settings: name PostgreSQL itself,"
    " `journal serve` with --listen-dsn beside it, other commands with --dsn"
)


@contextmanager
def _unnamed_pooler() -> Iterator[None]:
    """PgBouncer lets nobody in who asks for settings that it does not know."""
    try:
        yield
    except asyncpg.ProtocolViolationError as error:
        raise Unusable(_POOLER) from error


async def _as_it_is(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    """No reset: nothing here leaves a lock or a setting behind its transaction, and it would be a round trip."""


async def _closed(pool: Pool) -> None:
    async with asyncio.timeout(5):
        await pool.close()
