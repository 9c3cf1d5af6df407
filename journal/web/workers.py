"""Workers: several processes that serve one port, started again when they die, stopped together.

The kernel gives each new connection to one of them (SO_REUSEPORT). They share nothing but PostgreSQL and the spool, and
any of them answers what any has recorded. A worker that dies takes its own requests with it and nobody else's.
"""

import asyncio
import contextlib
import logging
import socket
import sys
import time
from collections.abc import Awaitable, Callable

from journal.config import Settings
from journal.web import worker
from journal.web.gathered import Hub
from journal.web.listen import GRACE_S, telling, told_to_stop

START_S = 60.0
QUICK_DEATH_S = 10.0
LONGEST_PAUSE_S = 10.0

_log = logging.getLogger(__name__)


class CannotStart(Exception):
    """A worker did not come up; its own words are on stderr."""


async def serve(
    settings: Settings,
    count: int,
    *,
    started: Callable[[], Awaitable[None]],
    stopping: Callable[[], None],
    metrics: socket.socket | None = None,
) -> None:
    """Serve with `count` workers until a signal of listen.STOPPING; CancelledError if it was told so twice.

    The port is the caller's, bound and not listened on; `metrics`: another, to tell figures on. CannotStart where one
    of the first workers does not come up.
    """
    told = told_to_stop(stopping)
    hub = Hub(count)
    slots = [_Slot(settings, told, hub, place) for place in range(count)]
    try:
        await asyncio.gather(*(slot.start() for slot in slots))
        async with telling(metrics, hub):
            await started()
            async with asyncio.TaskGroup() as tasks:
                for slot in slots:
                    tasks.create_task(slot.keep())
                await told.wait()
    finally:
        for slot in slots:
            slot.kill()


class _Slot:
    """One place for a worker, and the process that has it."""

    def __init__(self, settings: Settings, told: asyncio.Event, hub: Hub, place: int) -> None:
        self.settings, self.told = settings, told
        self._hub, self._place = hub, place
        self._linked: asyncio.Task[None] | None = None
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start a worker, and wait until it serves."""
        process = self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "journal.web.worker",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for who started them
        )
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(worker.told(self.settings))
        async with asyncio.timeout(START_S):
            if await process.stdout.readline() != worker.READY:
                raise CannotStart
        self._linked = asyncio.create_task(self._hub.listen(self._place, process))

    async def keep(self) -> None:
        """See to it that there is one, until told to stop; then see it off."""
        pause_s = 0.1
        while not self.told.is_set():
            began = time.monotonic()
            if await self._ends() or self.told.is_set():
                break
            assert self._process is not None
            _log.error("worker %s died (%s): another is started", self._process.pid, self._process.returncode)
            if time.monotonic() - began < QUICK_DEATH_S:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause_s):
                        await self.told.wait()
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            else:
                pause_s = 0.1
            with contextlib.suppress(CannotStart, TimeoutError):  # then its death is noticed, and so on
                await self.start()
        await self._stop()

    async def _ends(self) -> bool:
        """Wait until it dies or all are told to stop; whether they were."""
        assert self._process is not None
        dying = asyncio.create_task(self._process.wait())
        telling = asyncio.create_task(self.told.wait())
        try:
            await asyncio.wait([dying, telling], return_when=asyncio.FIRST_COMPLETED)
            return not dying.done()
        finally:
            dying.cancel()
            telling.cancel()

    async def _stop(self) -> None:
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.settings.drain_s + GRACE_S + 10):
                await self._process.wait()

    def kill(self) -> None:
        """End it at once, if it is still there."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
