"""Pushing what waits: in order, one push after the other, each sent until it was answered.

The rule: what is refused never blocks what waits behind it (docs/properties.md, trap 11).
"""

import asyncio
import re
import time

from journal.client import file, outbox, settling
from journal.client.calls import PATIENCE_S, WAITS, Journal, decided, jittered
from journal.client.clock import Clock
from journal.client.connection import Connection
from journal.client.http import Refused
from journal.client.outbox import Sending
from journal.client.told import Progress, Told
from journal.wire import PushAnswer

_AT_CHANGE = re.compile(r"/changes/([0-9]+)(/.*)?", re.S).fullmatch


class Pushing:
    """Pushes from a file to a journal."""

    def __init__(self, db: Connection, journal: Journal, clock: Clock, told: Told) -> None:
        self.db, self.journal, self.clock, self.told = db, journal, clock, told
        self._waits = 0  # since something was answered

    async def push(self, *, is_numbered: bool = False) -> None:
        """Push everything that waits; `is_numbered`: only what has its number already."""
        pushed = 0
        while (sending := await self.next(is_numbered=is_numbered)) is not None:
            await self.send(sending)
            pushed += len(sending.changes)
            self.told.progress(Progress("push", pushed))

    async def next(self, *, is_numbered: bool = False) -> Sending | None:
        """The push to send now."""
        return await self.db.write(lambda db: outbox.next_push(db, is_numbered=is_numbered))

    async def send(self, sending: Sending) -> None:
        """Send a push and take its answer. Refused where it was not decided and waits on."""
        cursor = await self.db.read(lambda db: file.meta(db, "cursor"))
        try:
            answer = await self.journal.push(outbox.body(sending, cursor, self.clock))
        except Refused as error:
            await self.refused(sending, error)
        else:
            await self.settle(sending, answer)

    async def settle(self, sending: Sending, answer: PushAnswer) -> None:
        """Take the answer to a push."""
        self.kept(await self.db.write(lambda db: settling.settle(db, sending, answer, time.time())))

    def kept(self, conflicts: list[int] | None) -> None:
        """A push was taken: tell what has changed, and which conflicts were kept."""
        self._waits = 0
        self.told.changed()
        if conflicts:
            self.told.conflicts(conflicts)

    async def refused(self, sending: Sending, error: Refused) -> None:
        """Do with a push that was not decided what makes it acceptable; the error again where nothing does."""
        match error.code:
            case _ if error.will_pass and self._waits < WAITS and error.retry_after <= PATIENCE_S:
                self._waits += 1
                await asyncio.sleep(jittered(error.retry_after))
            case "push_too_old":
                highest = int(error.problem.get("highest", 0))
                await self.db.write(lambda db: outbox.renumber(db, sending, highest=highest))
            case "client_forgotten" if "outcomes" in error.problem:
                await self.settle(sending, decided(error))
                raise error
            case "push_reused" | "client_forgotten" | "client_taken":
                await self.db.write(lambda db: outbox.renumber(db, sending, is_new_client=True))
            case "forbidden":
                await self._forbidden(sending, error)
            case "too_large" if len(sending.changes) > 1 and not sending.is_atomic:
                await self.db.write(lambda db: outbox.halve(db, sending))
            case "too_large":
                await self._refuse(sending, dict.fromkeys(range(len(sending.changes)), f"too_large: {error}"))
            case "invalid_request" | "base_required":
                await self._correct(sending, error)
            case _:
                raise error

    async def _forbidden(self, sending: Sending, error: Refused) -> None:
        """Keep what may not be written. Of what was sent before, the data will tell whether it was recorded."""
        if sending.attempts == 1 and not sending.is_offered:
            await self._refuse(sending, dict.fromkeys(range(len(sending.changes)), f"forbidden: {error}"))
        else:
            head = await self.journal.head()
            await self.settle(sending, PushAnswer(head.epoch, None, None, head.head, "", None, replayed=False))

    async def _correct(self, sending: Sending, error: Refused) -> None:
        """Leave out what is not well formed; what has no base goes by its data."""
        faults: dict[int, str] = {}
        for fault in error.problem.get("errors", ()):
            at = _AT_CHANGE(fault["pointer"])
            if at is not None and int(at[1]) < len(sending.changes):
                faults.setdefault(int(at[1]), f"{error.code}: {at[2] or ''} {fault['detail']}")
        if not faults:
            raise error
        if error.code == "base_required" and not any(sending.changes[place].by_data for place in faults):
            await self.db.write(lambda db: outbox.say_by_data(db, sending, faults))
        else:
            await self._refuse(sending, faults)

    async def _refuse(self, sending: Sending, faults: dict[int, str]) -> None:
        self.kept(await self.db.write(lambda db: settling.refuse(db, sending, faults, time.time())))
