"""Listening: the application on a socket, until a signal says to stop.

What is being answered then is finished first, for at most GRACE_S where somebody reads slowly. A second signal does
not wait.
"""

import asyncio
import contextlib
import gc
import resource
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable

from aiohttp import web

from journal.config import Settings
from journal.service.running import Service
from journal.web.app import SERVICE, application
from journal.web.connections import FILES_APART, Runner, notice_the_dead
from journal.web.metrics import Alone, Gathering, apart

GRACE_S = 20.0
BACKLOG = 1024
FILES = 10_240
COLLECT_AFTER = (20_000, 20, 50)
STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)  # told to, Ctrl-C, the terminal was closed


def bound(host: str, port: int, *, is_shared: bool = False, is_listening: bool = True) -> socket.socket:
    """A socket on that address; OSError where that cannot be had. `is_shared`: with others that share it too."""
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if is_shared:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind(address)
        if is_listening:
            bound.listen(BACKLOG)  # now, or another could still listen on it first
    except OSError:
        bound.close()
        raise
    return bound


async def serve(
    settings: Settings,
    listener: socket.socket,
    *,
    started: Callable[[Service], Awaitable[None]],
    stopping: Callable[[], None],
    gathering: Gathering | None = None,
    metrics: socket.socket | None = None,
) -> None:
    """Serve until a signal of STOPPING; CancelledError if it was told so twice.

    `gathering`: how it comes by the figures of others, if there are; `metrics`: where to tell them to whoever asks.
    """
    told = told_to_stop(stopping)
    files = _allow_files()
    gathering = gathering or Alone()
    app = application(settings, gathering)
    runner = Runner(app, settings.walls, most=files - FILES_APART, shutdown_timeout=GRACE_S)
    notice_the_dead(listener, settings.walls.stalled_s)
    await runner.setup()
    try:
        async with telling(metrics, gathering):
            await web.SockSite(runner, listener, backlog=BACKLOG).start()
            _collect_seldom()
            await started(app[SERVICE])
            await told.wait()
            app[SERVICE].readiness.is_stopping = True
            await asyncio.sleep(settings.drain_s)  # whoever looks at /readyz sends nobody any more
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def telling(port: socket.socket | None, gathering: Gathering) -> AsyncIterator[None]:
    """While the metrics can be had on a port of their own, if there is one."""
    if port is None:
        yield
        return
    runner = web.AppRunner(apart(gathering), access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.SockSite(runner, port).start()
        yield
    finally:
        await runner.cleanup()


def _allow_files() -> int:
    """Open as many files as the system lets us; many let a program open 1024 unless it asks. How many that are."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max(soft, FILES) if hard == resource.RLIM_INFINITY else hard  # macOS has a limit besides, and refuses more
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def _collect_seldom() -> None:
    """Let Python look for cycles seldom: a full look stops everybody for 25 ms and more where much is remembered."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)


def told_to_stop(stopping: Callable[[], None]) -> asyncio.Event:
    """Set by the first signal; the second ends the current task, and a third whatever there is."""
    loop, task, told = asyncio.get_running_loop(), asyncio.current_task(), asyncio.Event()
    assert task is not None

    def hear() -> None:
        if not told.is_set():
            told.set()
            stopping()
            return
        for number in heard:
            loop.remove_signal_handler(number)
        task.cancel()

    heard = [number for number in STOPPING if signal.getsignal(number) is not signal.SIG_IGN]  # as nohup has it
    for number in heard:
        loop.add_signal_handler(number, hear)
    return told
