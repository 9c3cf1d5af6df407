"""Syncing in the background: what is changed here is pushed soon, what others changed is told by a stream.

The rule: whatever breaks is begun again from the file, after a pause that grows as long as it goes on breaking; a
wake-up that got lost is found by looking (docs/properties.md, P9).
"""

import asyncio
import contextlib
import random
import sqlite3
from typing import Any, Literal

import msgspec

from journal.client import file, local
from journal.client.bearer import NoToken
from journal.client.calls import jittered, listed
from journal.client.events import Event, Parser, events
from journal.client.http import Refused
from journal.client.role import Role, answer, leave
from journal.client.syncing import Syncing
from journal.core import cursor as cursors
from journal.errors import JournalError
from journal.wire import Deltas

LOOK_S = 0.25  # how soon what another process did is seen
SETTLE_S = 0.02  # changes come in bursts
WANTED_S = 0.5  # how long the part is left to a process that wants it
SILENCE_S = 45.0  # three bookmarks that did not come
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 60.0
EARLY = 0.5  # of the time that a token still has, when another is asked for
State = Literal["idle", "syncing", "following", "offline", "standby", "unauthenticated", "forbidden"]


class _Auth(msgspec.Struct):
    """What a stream is told of its token: that it `expires` in so many seconds, has `expired`, or was `revoked`."""

    reason: str
    in_s: float = 0.0


_deltas = msgspec.json.Decoder(Deltas).decode
_auth = msgspec.json.Decoder(_Auth).decode
_problem = msgspec.json.Decoder(dict).decode


class Live:
    """Syncs until it is cancelled. `state` and `error` tell how it goes; `error` is None when all is well."""

    def __init__(self, syncing: Syncing, role: Role) -> None:
        self.syncing, self.role = syncing, role
        self.db, self.journal = syncing.db, syncing.journal
        self.state: State = "idle"
        self.error: JournalError | None = None
        self._poked = asyncio.Event()
        self._is_woken = False
        self._failures = 0  # since a stream last told something
        self._is_through = False  # whether at least a sync has worked: what is changed here is then pushed soon
        self._version = -1
        self._renew_at: float | None = None  # when a fresh token is to be asked for, by the loop's clock

    def poke(self) -> None:
        """Something was changed here, or somebody waits for a sync: look now."""
        self._poked.set()

    def wake(self) -> None:
        """The network is back: do not wait any longer."""
        self._is_woken = True
        self._poked.set()

    async def run(self) -> None:
        """Sync and follow, for ever."""
        while True:
            pause, is_ours = 0.0, False
            try:
                is_ours = self.role.take()
                if not is_ours:
                    self.state = "standby"
                    await self._pause(LOOK_S * random.uniform(1, 2), is_patient=True)  # noqa: S311
                    continue
                self._is_through = False
                try:
                    pause = await self._follow()
                except Refused as error:
                    await self.syncing.recover(error)
            except Exception as error:  # a full disk, an answer that nobody foresaw: nothing ends it but stop
                self.error = error if isinstance(error, JournalError) else JournalError(_said(error))
                self.state = refusal(error) or "offline"
                if self.state == "offline":
                    pause = self._longer(error.retry_after if isinstance(error, Refused) else 0)
                else:  # only somebody can mend it
                    pause, self._is_through = LONGEST_PAUSE_S, False
                await self.tell_askers(_said(error))
            finally:
                if is_ours:
                    await leave(self.role, self.db)
            await self._pause(jittered(pause), is_patient=not self._is_through)

    def _longer(self, least: float) -> float:
        """The next pause, in seconds: they grow until a stream tells something."""
        pause: float = max(least, min(FIRST_PAUSE_S * 2 ** min(self._failures, 10), LONGEST_PAUSE_S))
        self._failures += 1
        return pause

    async def tell_askers(self, error: str | None) -> None:
        """Tell those who wait for a sync what came of it."""
        with contextlib.suppress(JournalError, sqlite3.Error):
            await self.db.write(lambda db: answer(db, file.meta(db, "asked") or 0, error))

    async def _sync(self) -> None:
        self.state = "syncing"
        asked = await self.db.read(lambda db: file.meta(db, "asked") or 0)
        await self.syncing.sync()
        self.error, self._is_through = None, True
        await self.db.write(lambda db: answer(db, asked, None))

    async def _follow(self) -> float:
        """Sync, then follow the stream until it ends or leads on no more; how long to wait before the next."""
        await self._sync()
        self._version, self._failures = -1, max(1, self._failures)
        stands, client = await self.db.read(lambda db: (file.meta(db, "cursor"), file.meta(db, "client")))
        wanted = listed(self.syncing.pulling.wanted)
        query = {"since": stands, "client": client} | ({} if wanted is None else {"collections": wanted})
        place = self.journal.http.place("journals", self.journal.name, "stream").with_query(query)
        parser, bearer = Parser(), self.journal.http.bearer
        turn, self._renew_at = bearer.turn, None
        async with contextlib.aclosing(events(self.journal.http, place, parser, silence_s=SILENCE_S)) as stream:
            self.state = "following"
            coming = asyncio.ensure_future(anext(stream, None))
            try:
                while True:
                    await self._wait(coming)
                    await self._renew()
                    if bearer.turn != turn:
                        return 0.0  # the stream goes on with another token
                    if await self._has_moved():
                        if await self._is_wanted():
                            return WANTED_S
                        if await self._has_asked():
                            await self._sync()
                        elif await self._has_changes():
                            await self.syncing.push()
                        if await self.db.read(lambda db: file.meta(db, "cursor")) != stands:
                            return 0.0
                    if not coming.done():
                        continue
                    event = coming.result()
                    if event is None:
                        retry_s = (parser.retry_ms or 0) / 1000
                        return retry_s if self._failures == 0 else self._longer(retry_s)
                    self._failures = 0
                    after = await self._take(event, stands)
                    if after is None:
                        return FIRST_PAUSE_S if event.name == "auth" else 0.0
                    stands = after
                    coming = asyncio.ensure_future(anext(stream, None))
            finally:
                coming.cancel()
                await asyncio.gather(coming, return_exceptions=True)

    async def _wait(self, coming: "asyncio.Future[Event | None]") -> None:
        """Until an event comes, something is changed here, or it is time to look whether another process did."""
        poked = asyncio.ensure_future(self._poked.wait())
        futures: list[asyncio.Future[Any]] = [coming, poked]
        try:
            await asyncio.wait(futures, timeout=LOOK_S, return_when=asyncio.FIRST_COMPLETED)
        finally:
            poked.cancel()
        if self._poked.is_set():
            await asyncio.sleep(SETTLE_S)
            self._poked.clear()

    async def _take(self, event: Event, stands: str) -> str | None:
        """Apply an event; the cursor after it, None where the stream has to be opened again."""
        pulling = self.syncing.pulling
        match event.name:
            case "deltas":
                applied = await pulling.take(_deltas(event.data))
                if applied.is_complete and await self.syncing.compare(applied):
                    return None
                return event.id
            case "bookmark" if event.id is not None and event.id != stands:
                at = cursors.parse(event.id, parameter="cursor")
                page = Deltas(at.epoch, at.revision, more=False, cursor=event.id, deltas=[], until=at.revision)
                await pulling.take(page)
                return event.id
            case "auth":
                return stands if self._is_warned(_auth(event.data)) else None
            case "resync":
                await self.syncing.recover(Refused(410, _problem(event.data)))
                return None
        return stands

    def _is_warned(self, told: "_Auth") -> bool:
        """Whether its token only ends soon; else it has ended, which the next request tells as well."""
        if told.reason != "expires":
            return False
        self._renew_at = asyncio.get_running_loop().time() + EARLY * told.in_s
        return True

    async def _renew(self) -> None:
        """Ask for a fresh token when it is time to; where none is to be had, the stream goes on while it may."""
        bearer, loop = self.journal.http.bearer, asyncio.get_running_loop()
        if self._renew_at is None or loop.time() < self._renew_at or not bearer.can_ask:
            return
        self._renew_at = None
        try:
            await bearer.another(await bearer.token())
        except NoToken as error:
            self.error = error

    async def _has_moved(self) -> bool:
        """Whether somebody else has written to the file, in this process or another, since this was asked last."""
        before = self._version
        self._version = await self.db.call(lambda db: int(db.execute("pragma data_version").fetchone()[0]))
        return self._version != before

    async def _has_asked(self) -> bool:
        return await self.db.read(lambda db: (file.meta(db, "asked") or 0) > (file.meta(db, "answered") or 0))

    async def _facts(self) -> tuple[bool, float | None]:
        """Whether somebody waits for a sync, and when one got through; no and None where the file cannot be read."""
        try:
            return await self._has_asked(), await self.db.read(lambda db: file.meta(db, "synced_at"))
        except (JournalError, sqlite3.Error):
            return False, None

    async def _has_changes(self) -> bool:
        return await self.db.read(local.has_waiting)

    async def _is_wanted(self) -> bool:
        """Whether another process wants to have the part for once; it is told only once."""
        if await self.db.read(lambda db: file.meta(db, "wanted")) is None:
            return False
        await self.db.write(lambda db: file.tell(db, "wanted", None))
        return True

    async def _pause(self, seconds: float, *, is_patient: bool) -> None:
        """Wait; `wake`, whoever waits for a sync, and who got through apart end it; `is_patient`: a change does not."""
        loop = asyncio.get_running_loop()
        until, (_, before) = loop.time() + seconds, await self._facts()
        while (left := until - loop.time()) > 0:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._poked.wait(), min(left, LOOK_S))
            is_poked = self._poked.is_set() and not is_patient
            self._poked.clear()
            has_asked, synced_at = await self._facts()
            if self._is_woken or is_poked or has_asked or synced_at != before:
                break
        self._is_woken = False


def refusal(error: Exception | None) -> State | None:
    """The state of a replica that is not let in; None where that is not what is wrong."""
    if isinstance(error, Refused) and error.status == 401:
        return "unauthenticated"
    return "forbidden" if isinstance(error, Refused) and error.status == 403 else None


def _said(error: Exception) -> str:
    return str(error) if isinstance(error, JournalError) and str(error) else f"{type(error).__name__}: {error}"
