"""Clients that are gone in the middle of an answer: nothing is wrong with the service, and it does not say so."""

import asyncio
import logging
import random
import socket
import struct
from base64 import b64encode

import pytest

from tests.harness import Harness, eventually, insert

RESET = struct.pack("ii", 1, 0)


async def test_a_download_that_is_reset_is_no_fault(service: Harness, caplog: pytest.LogCaptureFixture) -> None:
    """Where an answer waits for its reader, aiohttp tells of it by an error that is no ConnectionResetError."""
    random.seed(3)
    for start in range(0, 100, 10):
        atoms = range(start, start + 10)
        await service.pushed(
            [insert("todo", f"{n}", {"pad": b64encode(random.randbytes(60_000)).decode()}) for n in atoms]
        )
    where = (await service.call("GET", "j/snapshot")).headers["Location"]
    caplog.set_level(logging.ERROR)

    reader, writer = await asyncio.open_connection(*_address(service), limit=1024)
    connection: socket.socket = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.write(f"GET {where} HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: identity\r\n\r\n".encode())
    assert (await reader.readexactly(15)) == b"HTTP/1.1 200 OK"

    async def is_read() -> bool:
        return service.service.snapshots.readers == 1

    async def is_over() -> bool:
        return service.service.snapshots.readers == 0

    await eventually(is_read)
    writer.transport.abort()
    await eventually(is_over)
    assert (await service.head())["head"] == 100
    assert caplog.records == []


def _address(service: Harness) -> tuple[str, int]:
    host, port = service.url.removeprefix("http://").split(":")
    return host, int(port)
