"""Gathered: how the workers of one port come by each other's figures, over the pipes to who started them.

The rule: nobody waits for one that does not answer. Whoever is asked asks the supervisor, which asks all; a worker that
says nothing within PATIENCE_S is told of as such, and the others' figures are told without it.
"""

import asyncio
import contextlib
import itertools
from collections.abc import Callable
from typing import Generic, TypeVar

import msgspec

from journal.errors import Unavailable
from journal.service.measures import Family
from journal.service.shared import Shared
from journal.web.metrics import Tell, Told

PATIENCE_S = 3.0

Answer = TypeVar("Answer")


class Message(msgspec.Struct, omit_defaults=True):
    """Between a supervisor and a worker. Down: `tell` asks for own or common figures, `all` answers. Up: inversely."""

    number: int
    ask: bool = False
    tell: bool = False
    is_common: bool = False
    families: list[Family] | None = None
    all: list[Told] | None = None


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Message).decode


def _framed(message: Message) -> bytes:
    body = _encode(message)
    return b"%d\n%b" % (len(body), body)


async def _next(reader: asyncio.StreamReader) -> Message | None:
    """None at the end."""
    size = await reader.readline()
    if not size.endswith(b"\n"):
        return None
    try:
        return _decode(await reader.readexactly(int(size)))
    except asyncio.IncompleteReadError:
        return None


class _Waiting(Generic[Answer]):
    """Answers that are waited for, by number."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._futures: dict[int, asyncio.Future[Answer]] = {}

    async def ask(self, send: Callable[[int], object], patience_s: float) -> Answer:
        """The answer; TimeoutError where none comes."""
        number = next(self._numbers)
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._futures[number] = future
        try:
            send(number)
            async with asyncio.timeout(patience_s):
                return await future
        finally:
            del self._futures[number]

    def answer(self, number: int, answer: Answer) -> None:
        """Nothing where nobody waits any more."""
        future = self._futures.get(number)
        if future is not None and not future.done():
            future.set_result(answer)


class Link:
    """A supervisor's end of the pipes to one worker."""

    def __init__(self, process: asyncio.subprocess.Process, hub: "Hub") -> None:
        self._process, self._hub = process, hub
        self._waiting: _Waiting[list[Family]] = _Waiting()
        self._answering: set[asyncio.Task[None]] = set()

    async def listen(self) -> None:
        """Until the worker ends."""
        assert self._process.stdout is not None
        while (message := await _next(self._process.stdout)) is not None:
            if message.ask:
                task = asyncio.create_task(self._answer(message.number))
                self._answering.add(task)
                task.add_done_callback(self._answering.discard)
            elif message.families is not None:
                self._waiting.answer(message.number, message.families)

    async def tell(self, *, is_common: bool) -> list[Family] | None:
        """What the worker says; None where it says nothing."""
        with contextlib.suppress(TimeoutError, OSError):
            return await self._waiting.ask(
                lambda number: self._send(Message(number, tell=True, is_common=is_common)), PATIENCE_S
            )
        return None

    async def _answer(self, number: int) -> None:
        told = await self._hub.all()
        with contextlib.suppress(OSError):
            self._send(Message(number, all=told))

    def _send(self, message: Message) -> None:
        assert self._process.stdin is not None
        if self._process.stdin.is_closing():
            raise BrokenPipeError  # it has died, which is noticed elsewhere
        self._process.stdin.write(_framed(message))


class Hub:
    """A supervisor's: what all its workers say. `places` is how many there should be."""

    def __init__(self, places: int) -> None:
        self.places = places
        self._links: dict[int, Link] = {}
        self._asking: Shared[None, list[Told]] = Shared()

    def begin(self, tell: Tell) -> None:
        """It has no figures of its own."""

    async def listen(self, place: int, process: asyncio.subprocess.Process) -> None:
        """A worker that serves can be asked, and may ask, until it ends."""
        link = self._links[place] = Link(process, self)
        try:
            await link.listen()
        finally:
            if self._links.get(place) is link:
                del self._links[place]

    async def all(self) -> list[Told]:
        """What each says; who asks while that is found out is told the same."""
        return await self._asking.join(None, self._all)

    async def _all(self) -> list[Told]:
        links = [self._links.get(place) for place in range(self.places)]
        told = await asyncio.gather(*(_told_by(link) for link in links))
        found = [Told(str(place), families) for place, families in enumerate(told)]
        for link, families in zip(links, told, strict=True):
            if link is not None and families is not None:
                return [*found, Told(None, await link.tell(is_common=True))]
        return found


async def _told_by(link: Link | None) -> list[Family] | None:
    return None if link is None else await link.tell(is_common=False)


class Member:
    """A worker's end."""

    def __init__(self, send: Callable[[bytes], object]) -> None:
        self._send = send
        self._tell: Tell | None = None
        self._waiting: _Waiting[list[Told]] = _Waiting()
        self._telling: set[asyncio.Task[None]] = set()

    def begin(self, tell: Tell) -> None:
        """From now on this worker can be asked."""
        self._tell = tell

    async def all(self) -> list[Told]:
        """What all workers say; Unavailable where who started them does not answer."""
        try:
            return await self._waiting.ask(
                lambda number: self._send(_framed(Message(number, ask=True))), 3 * PATIENCE_S
            )
        except TimeoutError:
            raise Unavailable("the process that started this one does not answer") from None

    async def listen(self, reader: asyncio.StreamReader) -> None:
        """Until there is nobody any more who could ask."""
        while (message := await _next(reader)) is not None:
            if message.tell:
                task = asyncio.create_task(self._say(message))
                self._telling.add(task)
                task.add_done_callback(self._telling.discard)
            elif message.all is not None:
                self._waiting.answer(message.number, message.all)

    async def _say(self, asked: Message) -> None:
        assert self._tell is not None
        self._send(_framed(Message(asked.number, families=await self._tell(asked.is_common))))
