"""Listening: one connection a process that hears what other processes recorded, and reconnects for ever.

A notification is a hint: `journal:turn` for each journal of a group, `journal:-` for one that is gone; on a
channel of their own, that tokens have changed. What is lost while the connection is away is found by comparing
(service/tails.py, service/access.py).
"""

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any

from journal.errors import Unavailable
from journal.store.database import connecting, translated
from journal.store.servers import Servers

_log = logging.getLogger(__name__)
LONGEST_S = 5.0
LOOK_S, ANSWER_S = 10.0, 5.0  # a server that is gone without a word is noticed by asking it


class Listener:
    """`heard` is called with each journal and its turn, `door_heard` with the turn of the tokens.

    `connected` is called after each time that the connection is made.
    """

    def __init__(
        self,
        dsn: str,
        heard: Callable[[int, int | None], None],
        door_heard: Callable[[int], None],
        connected: Callable[[], Awaitable[None]],
    ) -> None:
        self.dsn, self.heard, self.door_heard, self.connected = dsn, heard, door_heard, connected
        self.is_connected = False
        self.connections = self.notifications = 0
        self.heard_at: float | None = None  # in seconds since 1970
        self._servers = Servers(dsn)

    async def run(self) -> None:
        """Listen until cancelled."""
        pause = 0.05
        while True:
            try:
                await self._listen()
                pause = 0.05
            except Unavailable:
                pass
            except Exception:
                _log.exception("listening failed, and is tried again")
            self.is_connected = False
            await asyncio.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311
            pause = min(2 * pause, LONGEST_S)

    async def _listen(self) -> None:
        closed = asyncio.Event()
        with connecting():
            connection = await self._servers.connect(
                self.dsn, timeout=5, server_settings={"application_name": "journal listen"}
            )
        try:
            connection.add_termination_listener(lambda _: closed.set())
            with translated():
                await connection.add_listener("journal", self._take)
                await connection.add_listener("journal_door", lambda *told: self.door_heard(int(str(told[3]))))
            self.is_connected = True
            self.connections += 1
            await self.connected()
            while not await _is_set(closed, LOOK_S) and not self._servers.is_left(connection):
                with translated():
                    await connection.execute("select 1", timeout=ANSWER_S)
            _log.warning("the listening connection was lost")
        finally:
            connection.terminate()

    def _take(self, connection: Any, pid: int, channel: str, payload: object) -> None:
        self.notifications += 1
        self.heard_at = time.time()
        for entry in str(payload).split():
            journal, _, turn = entry.partition(":")
            self.heard(int(journal), None if turn == "-" else int(turn))


async def _is_set(event: asyncio.Event, within_s: float) -> bool:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            await event.wait()
    return event.is_set()
