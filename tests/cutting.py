"""A proxy between clients and the service that breaks streams off wherever they happen to be.

Each stream gets so many bytes of its answer's body, by chance, and no more; every other one is reset instead of
closed. After `cuts` of them it only passes on. What is no stream always goes through.
"""

import asyncio
import random
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

MOST_BYTES = 8000
_RESET = struct.pack("ii", 1, 0)
_SIZE_LINE = 8  # of a chunk that has just begun: not yet the middle of an event


class Cutting:
    """`left`: how many cuts are still to come; `in_events`: how many of those made were inside of an event."""

    def __init__(self, port: int, cuts: int) -> None:
        self.left, self.in_events = cuts, 0
        self.url = ""
        self._port = port
        self._chance = random.Random(11)
        self._ends: set[asyncio.StreamWriter] = set()

    async def link(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        """Pass on what one connection says, both ways."""
        try:
            server, to_server = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:
            to_client.transport.abort()
            return
        link = _Link()
        self._ends |= {to_client, to_server}
        pumps = [
            asyncio.create_task(self._ask(client, to_server, link)),
            asyncio.create_task(self._answer(server, to_client, link)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in pumps:
                task.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            self._ends -= {to_client, to_server}
            to_server.close()
            to_client.close()

    def end(self) -> None:
        """Break all connections."""
        for end in self._ends:
            end.transport.abort()

    async def _ask(self, client: asyncio.StreamReader, to_server: asyncio.StreamWriter, link: "_Link") -> None:
        while chunk := await client.read(65536):
            link.is_stream = b"/stream?" in chunk.partition(b"\r\n")[0]
            to_server.write(chunk)
            await to_server.drain()

    async def _answer(self, server: asyncio.StreamReader, to_client: asyncio.StreamWriter, link: "_Link") -> None:
        while chunk := await server.read(65536):
            if link.is_stream:
                await self._stream(chunk, server, to_client)
                return
            to_client.write(chunk)
            await to_client.drain()

    async def _stream(self, said: bytes, server: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        while b"\r\n\r\n" not in said:
            said += await server.read(65536)
        head, end, said = said.partition(b"\r\n\r\n")
        to_client.write(head + end)
        most, tail = self._chance.randrange(1, MOST_BYTES), b""
        while said or (said := await server.read(65536)):
            part = said[:most] if self.left else said
            to_client.write(part)
            await to_client.drain()
            most, tail = most - len(part), (tail + part).rpartition(b"\n\n")[2]
            if most <= 0 and self.left:
                self._cut(to_client, tail)
                return
            said = b""

    def _cut(self, to_client: asyncio.StreamWriter, tail: bytes) -> None:
        self.left -= 1
        self.in_events += len(tail) > _SIZE_LINE
        if self.left % 2:
            connection: socket.socket = to_client.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)


class _Link:
    is_stream = False


@asynccontextmanager
async def cutting(port: int, cuts: int) -> AsyncIterator[Cutting]:
    """A proxy to the service at `port`, with an address of its own."""
    proxy = Cutting(port, cuts)
    server = await asyncio.start_server(proxy.link, "127.0.0.1", 0)
    proxy.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield proxy
    finally:
        server.close()
        proxy.end()
