"""The network between a to-do list and the service, to be cut: what comes to one port is passed on to another.

`python -m examples.todo.cable` and then `todo --url http://127.0.0.1:8471/v1/journals/demo …`; Enter cuts and joins.
"""

import asyncio
import sys
import threading
from contextlib import suppress
from typing import Annotated

import typer

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Cable:
    """From a port of this machine to another. Whoever is connected when it is cut is cut off."""

    def __init__(self, port: int, to: int) -> None:
        self._port, self._to = port, to
        self._server: asyncio.Server | None = None
        self._ends: set[asyncio.StreamWriter] = set()

    async def join(self) -> None:
        """Take connections."""
        self._server = await asyncio.start_server(self._link, "127.0.0.1", self._port)

    async def cut(self) -> None:
        """Break all connections, and refuse new ones."""
        assert self._server is not None, "it is cut"
        self._server.close()
        self._server = None
        for end in self._ends:
            end.transport.abort()

    async def _link(self, *near: *Stream) -> None:
        self._ends.add(near[1])
        try:
            with suppress(OSError):
                far = await asyncio.open_connection("127.0.0.1", self._to)
                self._ends.add(far[1])
                await asyncio.wait(
                    [asyncio.create_task(_pump(near[0], far[1])), asyncio.create_task(_pump(far[0], near[1]))]
                )
                self._ends.discard(far[1])
        finally:
            self._ends.discard(near[1])
            near[1].close()


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while chunk := await source.read(65536):
            sink.write(chunk)
            await sink.drain()
    sink.close()


def main(
    *,
    port: Annotated[int, typer.Option(help="The end that a list is given.")] = 8471,
    to: Annotated[int, typer.Option(help="The service's port.")] = 8470,
) -> None:
    """A cable to the service that can be cut: Enter cuts it and joins it again, Ctrl-C ends it."""
    loop, cable = asyncio.new_event_loop(), Cable(port, to)
    threading.Thread(target=loop.run_forever, daemon=True).start()
    is_joined = False
    with suppress(KeyboardInterrupt):
        while True:
            turned = cable.cut() if is_joined else cable.join()
            asyncio.run_coroutine_threadsafe(turned, loop).result()
            is_joined = not is_joined
            print(f"{port} leads to {to}" if is_joined else f"{port} is cut", "(Enter: the other way)", flush=True)
            if not sys.stdin.readline():
                break


if __name__ == "__main__":
    typer.run(main)
