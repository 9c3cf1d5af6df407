"""A worker: one of several processes that listen on the same port (journal/web/workers.py starts them).

`python -m journal.web.worker` reads its settings from the first line of its standard input, prints a line when it
serves, and stops as on SIGTERM when that input ends: a worker does not outlive who started it. In between figures go
both ways (journal/web/gathered.py).
"""

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import Any

import msgspec

from journal.config import Settings
from journal.service.running import Service
from journal.web.gathered import Member
from journal.web.listen import bound, serve
from journal.web.logs import configure

READY = b"ready\n"


def told(settings: Settings) -> bytes:
    """The settings as a worker reads them."""
    return msgspec.json.encode(settings, enc_hook=str) + b"\n"


def heard(line: bytes) -> Settings:
    """The inverse of `told`."""
    return msgspec.json.decode(line, type=Settings, dec_hook=_path)


def _path(kind: type, value: Any) -> Any:
    return kind(value) if issubclass(kind, Path) else value


async def work(settings: Settings) -> None:
    """Serve until told to stop, or until nobody is there any more to tell."""
    loop = asyncio.get_running_loop()
    up, _ = await loop.connect_write_pipe(asyncio.Protocol, sys.stdout)
    member = Member(lambda said: None if up.is_closing() else up.write(said))
    listening = asyncio.create_task(_listen(member))

    async def say_so(_: Service) -> None:
        up.write(READY)

    try:
        listener = bound(settings.host, settings.port, is_shared=True)
        await serve(settings, listener, started=say_so, stopping=lambda: None, gathering=member)
    finally:
        listening.cancel()
        up.close()


async def _listen(member: Member) -> None:
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    with contextlib.suppress(ValueError):  # whatever comes that is no message
        await member.listen(reader)
    os.kill(os.getpid(), signal.SIGTERM)


def main() -> None:
    """Be a worker."""
    settings = heard(sys.stdin.buffer.readline())
    configure(settings.logs, is_worker=True)
    try:
        import uvloop
    except ImportError:  # it is not for Windows
        asyncio.run(work(settings))
    else:
        uvloop.run(work(settings))


if __name__ == "__main__":
    main()
