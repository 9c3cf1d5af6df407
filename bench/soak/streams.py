"""Streams: plain sockets, so that hundreds cost little. Each event must begin where the id before it ends.

Most only follow; some keep a copy, some read nothing for a while and then all at once, some go and come back.
"""

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator
from typing import Any, Literal

import msgspec

from bench.load import get
from bench.soak.clients import Api, Copy, persist, until
from bench.soak.tally import Recalls

Kind = Literal["follows", "keeps a copy", "pauses", "comes and goes"]
SILENCE_S = 45.0  # three bookmarks
CONNECT_S = 30.0
PAUSE_S = 10.0
_FIRST = b'"since":'

_decode = msgspec.json.Decoder().decode


class Ended(Exception):
    """The stream is over."""


class Stream:
    """One EventSource, by the letter of the protocol."""

    def __init__(self, api: Api, journal: str, who: str, kind: Kind, since: str) -> None:
        self.api, self.journal, self.who, self.kind = api, journal, who, kind
        self.tally = api.tally
        self.copy = Copy(journal, api.tally, who) if kind == "keeps a copy" else None
        self.id = "0" if self.copy is not None else since
        self.recalls = Recalls(api.tally, journal, who)
        self.chance = random.Random(who)
        self.events = 0
        self.heard = "nothing yet"
        self._retry_s = 3.0
        self._is_fresh = True

    @property
    def revision(self) -> int:
        """How far it was told."""
        return int(self.id.split(":")[1]) if ":" in self.id else 0

    async def listen(self, stopping: asyncio.Event) -> None:
        """Connect, and again after each end, until it is over."""
        while not stopping.is_set():
            try:
                await self._connected(stopping)
            except Ended as ended:
                self.tally.trouble("stream ended", f"{self.who} of {self.journal}: {ended}")
                await until(stopping, self._retry_s * self.chance.uniform(1.0, 1.2))

    async def _connected(self, stopping: asyncio.Event) -> None:
        try:
            async with asyncio.timeout(CONNECT_S):
                reader, writer = await asyncio.open_connection("127.0.0.1", self.api.port, limit=1 << 16)
        except (OSError, TimeoutError) as error:
            raise Ended(f"cannot connect: {error!r}") from None
        try:
            given = asyncio.create_task(self._read(reader, writer))
            told = asyncio.create_task(stopping.wait())
            await asyncio.wait([given, told], return_when=asyncio.FIRST_COMPLETED)
            told.cancel()
            if not given.done():
                given.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await given
        finally:
            writer.transport.abort()

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take events until the stream ends, or is left."""
        leaves_after = self.chance.randrange(5, 60) if self.kind == "comes and goes" else 0
        writer.write(get(f"/v1/journals/{self.journal}/stream?since={self.id}", Last_Event_ID=self.id))
        self._is_fresh, count, resumed_at = True, 0, self.tally.at_s
        async with contextlib.aclosing(_events(reader)) as events:
            while True:
                try:
                    async with asyncio.timeout(SILENCE_S):
                        event = await anext(events)
                except TimeoutError:
                    self.tally.fault("silent stream", f"{self.who} of {self.journal} at {self.id}")
                    raise Ended("silent") from None
                except StopAsyncIteration:
                    raise Ended("closed") from None
                except (OSError, EOFError) as error:
                    raise Ended(repr(error)) from None
                if not await self._take(event):
                    return
                count += 1
                if leaves_after and count >= leaves_after:
                    await asyncio.sleep(self.chance.uniform(0.0, 3.0))
                    return
                if self.kind == "pauses" and self.tally.at_s - resumed_at > PAUSE_S:
                    await asyncio.sleep(PAUSE_S)
                    resumed_at = self.tally.at_s

    async def _take(self, event: bytes) -> bool:
        """Take one event; False where it was the last."""
        name, id_, data = _fields(event)
        self.heard = f"{name.decode()} {id_.decode()} at {self.tally.at_s:.1f} s"
        match name:
            case b"deltas":
                await self._deltas(id_.decode(), data)
            case b"bookmark":
                if int(id_.split(b":")[1]) < self.revision:
                    self.tally.fault("stream went back", f"{self.who} of {self.journal}: {id_!r} after {self.id}")
                self.id = id_.decode()
            case b"resync":
                await self._called_back(_decode(data))
                return False
            case b"retry":
                self._retry_s = int(data) / 1000
            case b"HTTP":
                if data != b"200":
                    raise Ended(f"status {data!r}")
            case _:
                self.tally.fault("stream", f"{self.who}: {event[:200]!r}")
        return True

    async def _deltas(self, id_: str, data: bytes) -> None:
        self.events += 1
        start = data.index(_FIRST) + len(_FIRST)
        since = int(data[start : data.index(b",", start)])
        if since != self.revision:
            self.tally.fault("a gap in a stream", f"{self.who} of {self.journal}: since {since} after {self.id}")
        self.id = id_
        if self.copy is not None:
            self.copy.apply(_decode(data))
        if not self._is_fresh and self.kind != "pauses":
            self.tally.delivered(self.journal, self.revision)
        self._is_fresh = False

    async def _called_back(self, problem: Any) -> None:
        self.recalls.told(problem["reason"])
        await asyncio.sleep(problem["retry_after"])
        lines = await persist(self.api.snapshot, self.journal)
        self.id = lines[0]["cursor"]
        if self.copy is not None:
            self.copy.replace(lines)


async def _events(reader: asyncio.StreamReader) -> AsyncGenerator[bytes, None]:
    """The head's status as an event of its own, then each event; in chunks or not."""
    head = await reader.readuntil(b"\r\n\r\n")
    yield b"HTTP" + head[9:12]
    is_chunked = b"chunked" in head
    said = b""
    while True:
        if is_chunked:
            size = int(await reader.readuntil(b"\r\n"), 16)
            piece = (await reader.readexactly(size + 2))[:-2]
        else:
            piece = await reader.read(1 << 16)
        if not piece:
            return
        *events, said = (said + piece).split(b"\n\n")
        for event in events:
            yield event


def _fields(event: bytes) -> tuple[bytes, bytes, bytes]:
    """Name, id and data of an event; what only says `retry` is called so."""
    if event.startswith(b"HTTP"):
        return b"HTTP", b"", event[4:]
    name, id_, data = b"", b"", list[bytes]()
    for line in event.split(b"\n"):
        field, _, value = line.partition(b": ")
        match field:
            case b"event":
                name = value
            case b"id":
                id_ = value
            case b"data":
                data.append(value)
            case b"retry" if not name:
                return b"retry", b"", value
    return name, id_, b"\n".join(data)
