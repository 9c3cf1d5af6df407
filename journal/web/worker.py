"""A worker: one of several processes that listen on the same port (journal/web/workers.py starts them).

`python -m journal.web.worker` reads its settings from the first line of its standard input, prints a line when it
serves, and stops as on SIGTERM when that input ends: a worker does not outlive who started it.
"""

import asyncio
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any

import msgspec

from journal.config import Settings
from journal.service.running import Service
from journal.web.listen import bound, serve

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
    ended = asyncio.create_task(_input_ends())
    try:
        listener = bound(settings.host, settings.port, is_shared=True)
        await serve(settings, listener, started=_say_so, stopping=lambda: None)
    finally:
        ended.cancel()


async def _say_so(_: Service) -> None:
    os.write(1, READY)


async def _input_ends() -> None:
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    await reader.read()
    os.kill(os.getpid(), signal.SIGTERM)


def main() -> None:
    """Be a worker."""
    logging.basicConfig(level=logging.WARNING, format=f"%(levelname)s %(name)s [{os.getpid()}]: %(message)s")
    settings = heard(sys.stdin.buffer.readline())
    try:
        import uvloop
    except ImportError:  # it is not for Windows
        asyncio.run(work(settings))
    else:
        uvloop.run(work(settings))


if __name__ == "__main__":
    main()
