"""The faults, one function each: what happens to the processes while a load goes on, from its begin to its end.

Each is a context: its place is made when it is entered, and `happen` returns when the fault is over. tests/fault runs
them for seconds, bench/faults.py for as long as it takes; what must hold afterwards is the same (tests/fault/load.py).
"""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
import asyncpg
import msgspec

from journal.store.migrate import migrate
from tests.cluster import Cluster
from tests.fault.load import Account, Load, Push, load, underway, until
from tests.fault.places import MIB, clock, memory_limit, small_disk
from tests.fault.served import Served, served

HOUR_S = 3600
DAY_S = 24 * HOUR_S
JUMPS = (2 * HOUR_S, -2 * HOUR_S, 60 * DAY_S, 0)
_SMALL_LOG = {"max_wal_size": "16MB", "min_wal_size": "4MB"}


class Scene(msgspec.Struct):
    """Where a fault happens, once it is prepared. `tells`: what the service logs of it as an error, and must."""

    service: Served
    happen: Callable[[Load, float], Awaitable[None]]
    bytes_each: int = 400
    pushers: int = 3
    tells: str = ""


Made = AbstractAsyncContextManager[Scene]


class Fault(msgspec.Struct, frozen=True):
    """A fault by its name. How long it lasts: `seconds`; `short_s` where there is little time, None: never."""

    name: str
    make: Callable[[Path], Made]
    seconds: float
    short_s: float | None


async def tried(fault: Fault, folder: Path, *, seconds: float, before: int, after: int) -> Account:
    """Let a fault happen amid a load, and give the account of it: so many pushes are answered before and after it."""
    async with fault.make(folder) as scene:
        await _called(scene.service.url, "PUT", "/v1/journals/j")
        first = scene.service.pid
        async with load(scene.service.url, pushers=scene.pushers, bytes_each=scene.bytes_each) as it:
            await underway(it, before)
            await scene.happen(it, seconds)
            served_s = await it.served_again()
            await underway(it, after)
        account = await _accounted(it, served_s)
        checked = await _called(scene.service.url, "POST", "/v1/journals/j/check", headers={"Prefer": "wait=60"})
        if not checked["result"]["ok"]:
            account.wrong.append(f"check: {checked}")
        if not scene.service.is_up or scene.service.pid != first:
            account.wrong.append("the service was started again")
        told = scene.service.complaints()
        account.wrong += [complaint for complaint in told if not scene.tells or scene.tells not in complaint]
        if scene.tells and len(told) == 0:
            account.wrong.append(f"the log does not tell of {scene.tells!r}")
        return account


async def _accounted(it: Load, served_s: float) -> Account:
    async with aiohttp.ClientSession() as session:
        it.session = session
        return await it.account(served_s)


async def _called(url: str, method: str, path: str, **arguments: Any) -> Any:
    async with aiohttp.ClientSession() as session, session.request(method, url + path, **arguments) as response:
        assert response.status in (200, 201), await response.text()
        return await response.json()


# Where it happens


@asynccontextmanager
async def postgres(folder: Path, **more: Any) -> AsyncIterator[Cluster]:
    """A server of its own, migrated. `settings` and `wal` are for making it, all else is the cluster's."""
    settings, wal = more.pop("settings", {}), more.pop("wal", None)
    cluster = Cluster(folder / "postgres", **more)
    try:
        await cluster.create(wal=wal, **settings)
        await migrate(cluster.dsn)
        yield cluster
    finally:
        if not cluster.has_ended:
            await cluster.stop(signal.SIGQUIT)


# PostgreSQL


@asynccontextmanager
async def postgres_killed(folder: Path) -> AsyncIterator[Scene]:
    """All of its processes at once, as by a power cut; it is started again."""
    async with postgres(folder) as cluster, served(cluster.dsn, folder / "data") as service:

        async def happen(it: Load, seconds: float) -> None:
            await cluster.kill()
            await asyncio.sleep(seconds)
            await cluster.start()

        yield Scene(service, happen)


@asynccontextmanager
async def backend_killed(folder: Path) -> AsyncIterator[Scene]:
    """The process that records, in the middle of it: the server ends all others and recovers by itself."""
    async with postgres(folder) as cluster, served(cluster.dsn, folder / "data") as service:

        async def happen(it: Load, seconds: float) -> None:
            pid = await until(lambda: _one(cluster.dsn, _RECORDING))
            os.kill(pid, signal.SIGKILL)
            await until(lambda: pid not in cluster.processes)
            await until(cluster.answers)

        yield Scene(service, happen)


_RECORDING = """
select pid from pg_stat_activity
 where application_name like 'journal write%' and state = 'active' and query like '%journal.append%' limit 1
"""


@asynccontextmanager
async def failover(folder: Path) -> AsyncIterator[Scene]:
    """The primary is killed, its synchronous standby promoted; the service knows both."""
    async with pair(folder) as (primary, standby, dsn), served(dsn, folder / "data") as service:

        async def happen(it: Load, seconds: float) -> None:
            await primary.kill()
            await asyncio.sleep(seconds)
            await standby.promote()

        yield Scene(service, happen)


@asynccontextmanager
async def failover_from_a_frozen_primary(folder: Path) -> AsyncIterator[Scene]:
    """The same where the primary is not dead but silent: its connections stay open, and new ones are taken."""
    async with pair(folder) as (primary, standby, dsn), served(dsn, folder / "data") as service:

        async def happen(it: Load, seconds: float) -> None:
            primary.send(signal.SIGSTOP)
            await asyncio.sleep(seconds)
            await standby.promote()

        try:
            yield Scene(service, happen)
        finally:
            await primary.kill()


@asynccontextmanager
async def pair(folder: Path) -> AsyncIterator[tuple[Cluster, Cluster, str]]:
    """A primary, a standby that everything waits for, and the DSN that names both."""
    async with postgres(folder) as primary:
        standby = await primary.backup(folder / "standby", is_standby=True)
        await primary.stop()
        await primary.start(synchronous_standby_names="*")
        try:
            await standby.start(primary_conninfo=f"host=127.0.0.1 port={primary.port} user=journal")
            await until(primary.follows)
            hosts = f"127.0.0.1:{primary.port},127.0.0.1:{standby.port}"
            yield primary, standby, f"postgresql://journal@{hosts}/journal?target_session_attrs=read-write"
        finally:
            await standby.stop(signal.SIGQUIT)


# The pool


@asynccontextmanager
async def tables_locked(folder: Path) -> AsyncIterator[Scene]:
    """Somebody holds the tables: every connection that reads or writes waits for a lock."""
    async with postgres(folder) as cluster, served(cluster.dsn, folder / "data") as service:

        async def happen(it: Load, seconds: float) -> None:
            holder = await asyncpg.connect(cluster.dsn)
            async with holder.transaction():
                await holder.execute("lock table journal.head, journal.commit, journal.change, journal.atom")
                await asyncio.sleep(seconds)
            await holder.close()

        yield Scene(service, happen)


@asynccontextmanager
async def connections_taken(folder: Path) -> AsyncIterator[Scene]:
    """All of `max_connections` are somebody else's, and the service has none."""
    few = {"max_connections": "40"}
    async with postgres(folder, settings=few) as cluster, served(cluster.dsn, folder / "data") as service:

        async def happen(it: Load, seconds: float) -> None:
            [first] = held = [await asyncpg.connect(cluster.dsn)]
            deadline = time.monotonic() + 30
            while True:
                with contextlib.suppress(asyncpg.TooManyConnectionsError, asyncpg.CannotConnectNowError):
                    while True:
                        held.append(await asyncpg.connect(cluster.dsn))
                if not await first.fetchval("select count(pg_terminate_backend(pid)) from pg_stat_activity"
                                            " where application_name like 'journal %'"):  # fmt: skip
                    break
                assert time.monotonic() < deadline, "the service keeps connections"
                await asyncio.sleep(0.02)
            await asyncio.sleep(seconds)
            for one in held:
                await one.close()

        yield Scene(service, happen)


# Disks


@asynccontextmanager
async def tables_disk_full(folder: Path) -> AsyncIterator[Scene]:
    """No room for tables, on a disk that the write-ahead log is not on: PostgreSQL refuses, and goes on."""
    (folder / "wal").mkdir()
    with small_disk(folder / "postgres", 96 * MIB) as disk:
        wal = folder / "wal" / "pg_wal"
        async with (
            postgres(folder, before=disk.before, wal=wal, settings=_SMALL_LOG) as cluster,
            served(cluster.dsn, folder / "data") as service,
        ):

            async def happen(it: Load, seconds: float) -> None:
                refused = it.refused
                disk.fill()
                await until(lambda: it.refused > refused)
                await asyncio.sleep(seconds)
                disk.clear()

            yield Scene(service, happen, bytes_each=8000)


@asynccontextmanager
async def log_disk_full(folder: Path) -> AsyncIterator[Scene]:
    """No room for the write-ahead log: PostgreSQL panics and ends. Somebody makes room, and starts it again."""
    with small_disk(folder / "wal", 128 * MIB) as disk:
        wal = folder / "wal" / "pg_wal"
        async with (
            postgres(folder, before=disk.before, wal=wal, settings=_SMALL_LOG) as cluster,
            served(cluster.dsn, folder / "data") as service,
        ):

            async def happen(it: Load, seconds: float) -> None:

                def has_ended() -> bool:
                    disk.fill()
                    return cluster.has_ended

                await until(has_ended)
                await asyncio.sleep(seconds)
                disk.clear()
                await cluster.start(**_SMALL_LOG)

            yield Scene(service, happen, bytes_each=30_000)


@asynccontextmanager
async def spool_disk_full(folder: Path) -> AsyncIterator[Scene]:
    """No room where snapshots and long answers are kept."""
    with small_disk(folder / "data", 256 * MIB) as disk:
        async with (
            postgres(folder) as cluster,
            served(cluster.dsn, folder / "data", before=disk.before) as service,
        ):

            async def happen(it: Load, seconds: float) -> None:
                refused = it.refused
                disk.fill()
                await until(lambda: it.refused > refused)
                await asyncio.sleep(seconds)
                disk.clear()

            yield Scene(service, happen, bytes_each=12_000)


# Time


@asynccontextmanager
async def clocks_jump(folder: Path) -> AsyncIterator[Scene]:
    """The clock of the service and that of PostgreSQL, each by itself: two hours ahead, two back, two months ahead."""
    ours, theirs = clock(folder, "ours"), clock(folder, "theirs")
    async with (
        postgres(folder, more=theirs.environment) as cluster,
        served(cluster.dsn, folder / "data", more=ours.environment) as service,
    ):

        async def happen(it: Load, seconds: float) -> None:
            for ahead_s in JUMPS if seconds >= 1 else JUMPS[1:]:
                ours.set(ahead_s)
                await _is_at(lambda: _date(service.url), ahead_s)
                await underway(it, 5)
                theirs.set(ahead_s)
                await _is_at(lambda: _one(cluster.dsn, _NOW), ahead_s)
                await underway(it, 5)
                await asyncio.sleep(seconds)

        yield Scene(service, happen)


async def _is_at(now: Callable[[], Awaitable[float]], ahead_s: int) -> None:
    """Wait until a clock is so far ahead: one that did not jump would prove nothing."""

    async def is_there() -> bool:
        return abs(await now() - time.time() - ahead_s) < 2

    await until(is_there)


async def _date(url: str) -> float:
    """What the service says the time is."""
    async with aiohttp.ClientSession() as session, session.get(f"{url}/v1") as response:
        return parsedate_to_datetime(response.headers["Date"]).timestamp()


_NOW = "select extract(epoch from clock_timestamp())::float8"


@asynccontextmanager
async def frozen(folder: Path) -> AsyncIterator[Scene]:
    """The service is stopped (SIGSTOP), and goes on later."""
    async with postgres(folder) as cluster, served(cluster.dsn, folder / "data") as service:

        async def happen(it: Load, seconds: float) -> None:
            service.send(signal.SIGSTOP)
            await asyncio.sleep(seconds)
            service.send(signal.SIGCONT)

        yield Scene(service, happen)


# Workers

_DIED = "died (-9): another is started"


@asynccontextmanager
async def worker_killed(folder: Path) -> AsyncIterator[Scene]:
    """One of two workers, as the kernel kills one when memory is short."""
    async with postgres(folder) as cluster, served(cluster.dsn, folder / "data", "--workers", "2") as service:

        async def happen(it: Load, seconds: float) -> None:
            before = service.workers
            os.kill(before[0], signal.SIGKILL)
            await asyncio.sleep(seconds)
            await _are_others(service, before)

        yield Scene(service, happen, tells=_DIED)


@asynccontextmanager
async def worker_out_of_memory(folder: Path) -> AsyncIterator[Scene]:
    """One of two workers is let have no more memory, until the kernel kills it."""
    with memory_limit(24 * MIB) as limit:
        async with postgres(folder) as cluster, served(cluster.dsn, folder / "data", "--workers", "2") as service:

            async def happen(it: Load, seconds: float) -> None:
                before = service.workers
                limit.hold(before[0])
                async with asyncio.timeout(120):
                    while not limit.killed:
                        await asyncio.gather(*(_large(it) for _ in range(8)))
                await _are_others(service, before)

            yield Scene(service, happen, tells=_DIED)


async def _large(it: Load) -> None:
    """A push of several megabytes, on a connection of its own."""
    push = Push(client=str(uuid4()), number=1, changes=[it.insert("large", f"{uuid4()}", 900_000) for _ in range(6)])
    it.pushes.append(push)
    await it.send(push, patience_s=None, headers={"Connection": "close"})


async def _are_others(service: Served, before: list[int]) -> None:
    """Wait until there are as many workers, and not all the same."""
    await until(lambda: service.workers != before and len(service.workers) == len(before))


async def _one(dsn: str, query: str) -> Any:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


FAULTS = (
    Fault("PostgreSQL killed (SIGKILL), started again", postgres_killed, 10.0, 0.5),
    Fault("the process that records killed: PostgreSQL recovers", backend_killed, 0.0, 0.0),
    Fault("failover: primary killed, synchronous standby promoted", failover, 5.0, 0.5),
    Fault("failover from a primary that is silent (SIGSTOP)", failover_from_a_frozen_primary, 5.0, None),
    Fault("tables locked by somebody else: all connections wait", tables_locked, 30.0, 3.0),
    Fault("`max_connections` taken by others", connections_taken, 30.0, 2.0),
    Fault("PostgreSQL's disk full, its log elsewhere", tables_disk_full, 30.0, 1.0),
    Fault("the write-ahead log's disk full: PostgreSQL panics", log_disk_full, 10.0, 0.5),
    Fault("the spool's disk full", spool_disk_full, 30.0, 1.5),
    Fault("clocks jump by hours and months", clocks_jump, 10.0, 0.0),
    Fault("the service stopped (SIGSTOP)", frozen, 60.0, 2.0),
    Fault("a worker of two killed (SIGKILL)", worker_killed, 5.0, 0.5),
    Fault("a worker of two out of memory: the kernel kills it", worker_out_of_memory, 0.0, None),
)
