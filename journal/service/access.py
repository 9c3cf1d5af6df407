"""Access: who makes a request, by the token that it bears (protocol, section 13).

The rule: what PostgreSQL said of a token is believed for less than a second, and then asked again, all tokens by one
number (`door.turn`). While it cannot be asked nobody is let in, but where no token was ever made.
"""

import asyncio
import contextlib
import logging
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from hashlib import sha256
from typing import Protocol
from uuid import UUID

import msgspec

from journal.core.grants import OPEN, Caller, Reach
from journal.errors import ClientTaken, JournalNotFound, Unauthenticated, Unavailable
from journal.service.shared import Shared
from journal.service.tails import Tails
from journal.store import doors
from journal.store.database import Database
from journal.store.doors import Token

_log = logging.getLogger(__name__)
LOOK_AFTER_S = 0.3  # what is known is looked at again, while it is still believed
BELIEVED_S = 0.9
LOOK_S = 2.0  # that a look may take
REST_S = 2.0  # after one that failed, of a service that is open
TOKENS = 65_536  # that a process remembers
OWNERS = 65_536
WRITE_USED_S = 60.0
TICKET_S = 60.0
WARNED_S = 30.0  # how long before its caller ends a stream is told
CLIENT_PREFIX, OPERATOR_PREFIX = "jc_", "jo_"
_TOKEN = re.compile(r"j[co]_[A-Za-z0-9_-]{43}")
_JWT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*")
_TICKET = re.compile(r"[A-Za-z0-9_-]{43}")
_UNKNOWN = "the token is not known here, was revoked or has expired"


Again = Callable[[], Awaitable[Caller]]
"""Who it is by now; Unauthenticated where it is nobody any more."""


class Verifier(Protocol):
    """Tokens that somebody else signed."""

    def known(self, token: str) -> Caller | None:
        """Whose it is, where it was verified before and nothing has changed since."""
        ...

    async def verify(self, token: str) -> Caller:
        """Whose it is; Unauthenticated where it is not good, Unavailable where that cannot be said."""
        ...


class Access:
    """Who makes requests, and whose clients' ids are."""

    def __init__(self, database: Database, tails: Tails, verifier: Verifier | None = None) -> None:
        self.database, self.tails, self.verifier = database, tails, verifier
        self._turn = 0
        self.hears: Callable[[], bool] = lambda: False  # whether notifications come in
        self._seen_at = self._rests_until = float("-inf")
        self._known: OrderedDict[bytes, tuple[Token, Caller]] = OrderedDict()
        self._hashes: dict[int, bytes] = {}  # of the tokens that are remembered, by number
        self._owners: OrderedDict[tuple[int, str], str] = OrderedDict()
        self._looking: Shared[None, None] = Shared()
        self._used: dict[int, float] = {}
        self._leases: set[Lease] = set()

    @property
    def is_open(self) -> bool:
        """Whether everybody may do everything: no token was ever made, and nobody else's are taken."""
        return self._turn == 0 and self.verifier is None

    async def begin(self) -> None:
        """Learn whether there are tokens."""
        await self._look()

    async def run(self) -> None:
        """Until cancelled: look for what ends streams, and write down which tokens are used."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_again_and_again(LOOK_AFTER_S, self._look_for_streams))
            tasks.create_task(_again_and_again(WRITE_USED_S, self.flush))

    async def _look_for_streams(self) -> None:
        if self._leases and not self.is_open:
            await self._looked()

    async def close(self) -> None:
        """Write down what is left, and look no more."""
        await self._looking.cancel()
        with contextlib.suppress(Unavailable):
            await self.flush()

    async def flush(self) -> None:
        """Write down when tokens were last used."""
        used, self._used = self._used, {}
        if used:
            await doors.used(self.database, used)

    def heard(self, turn: int) -> None:
        """Somebody has changed tokens."""
        if turn != self._turn:
            self._seen_at = float("-inf")
            self._looks()

    def known(self, authorization: str | None) -> Caller | None:
        """Who it is, as far as memory can say."""
        now = time.monotonic()
        if now - self._seen_at > LOOK_AFTER_S:
            self._looks()
        if self.is_open:
            return OPEN if now - self._seen_at <= BELIEVED_S or self.hears() or now < self._rests_until else None
        token = _bearer(authorization)
        if token is None:
            return None
        if _JWT.fullmatch(token):
            caller = None if self.verifier is None else self.verifier.known(token)
        elif now - self._seen_at > BELIEVED_S:
            return None
        else:
            caller = self._remembered(sha256(token.encode()).digest())
        return caller if caller is not None and not _has_ended(caller) else None

    async def caller(self, authorization: str | None) -> Caller:
        """Who it is; Unauthenticated where that is nobody."""
        if self.is_open:
            await self._looked_if_possible()
        if self.is_open:
            return OPEN
        token = _bearer(authorization)
        if token is None:
            raise Unauthenticated("send Authorization: Bearer TOKEN")
        if _TOKEN.fullmatch(token):
            caller = await self._by_hash(sha256(token.encode()).digest())
        elif self.verifier is not None and _JWT.fullmatch(token):
            caller = await self.verifier.verify(token)
        else:
            caller = None
        if caller is None or _has_ended(caller):
            raise Unauthenticated(_UNKNOWN)
        return caller

    async def own(self, caller: Caller, journal: str, client: str) -> None:
        """ClientTaken where a client's id belongs to another; it belongs to who uses it first."""
        if caller.owner is None:
            return
        tail = await self.tails.of(journal)
        key = tail.head.id, client
        owner = self._owners.get(key)
        if owner is None:
            owner = await doors.own(self.database, tail.head.id, UUID(client), caller.owner)
            self._owners[key] = owner
            if len(self._owners) > OWNERS:
                self._owners.popitem(last=False)
        if owner != caller.owner:
            raise ClientTaken

    async def ticket(self, caller: Caller, journal: str) -> str:
        """A ticket for one use of a journal's stream within TICKET_S."""
        tail = await self.tails.of(journal)
        text = secrets.token_urlsafe(32)
        number = _number(caller)
        await doors.make_ticket(
            self.database,
            tail.head.id,
            sha256(text.encode()).digest(),
            token=number,
            caller=None if number is not None else msgspec.json.encode(caller).decode(),
            expires_at=time.time() + TICKET_S,
        )
        return text

    async def redeem(self, journal: str, ticket: str) -> tuple[Caller, Again]:
        """Whose a ticket is, and how that is asked again; Unauthenticated where it was used or is too old.

        So it is where the journal is not there: who has no ticket is not told which are.
        """
        found = None
        if _TICKET.fullmatch(ticket):
            hash_ = sha256(ticket.encode()).digest()
            with contextlib.suppress(JournalNotFound):
                tail = await self.tails.of(journal)
                found = await doors.use_ticket(self.database, tail.head.id, hash_, now=time.time())
        if found is None or not found.is_good:
            raise Unauthenticated("the ticket is not known here, was used or is too old: ask for another")
        if found.caller is not None:
            told = msgspec.json.decode(found.caller, type=Caller)

            async def same() -> Caller:
                if _has_ended(told):
                    raise Unauthenticated(_UNKNOWN)
                return told

            return await same(), same
        number = found.token
        assert number is not None

        async def again() -> Caller:
            caller = await self._by_number(number)
            if caller is None or _has_ended(caller):
                raise Unauthenticated(_UNKNOWN)
            return caller

        return await again(), again

    def lease(self, caller: Caller, again: Again, journal: str) -> "Lease":
        """What a stream is told under."""
        return Lease(self, caller, again, journal)

    def hold(self, lease: "Lease") -> None:
        """Tell a lease of changes, until `drop`."""
        self._leases.add(lease)

    def drop(self, lease: "Lease") -> None:
        """It is over."""
        self._leases.discard(lease)

    async def _by_hash(self, hash_: bytes) -> Caller | None:
        await self._looked()
        known = self._remembered(hash_)
        while known is None:
            turn = self._turn
            found = await doors.by_hash(self.database, [hash_])
            if self._turn != turn:
                continue  # they changed meanwhile: what was read may be older than that
            if not found:
                return None
            self._keep(found[0])
            known = self._remembered(hash_)
        return known

    async def _by_number(self, number: int) -> Caller | None:
        await self._looked()
        while (held := self._known.get(self._hashes.get(number, b""))) is None:
            turn = self._turn
            found = await doors.by_id(self.database, number)
            if self._turn != turn:
                continue  # as above
            if found is None:
                return None
            self._keep(found)
        return held[1]

    def _remembered(self, hash_: bytes) -> Caller | None:
        held = self._known.get(hash_)
        if held is None:
            return None
        self._known.move_to_end(hash_)
        self._used[held[0].id] = time.time()
        return held[1]

    def _keep(self, token: Token) -> tuple[Token, Caller]:
        held = self._known[token.hash] = token, Caller(f"token:{token.id}", token.name, token.grants, token.ends_at)
        self._hashes[token.id] = token.hash
        if len(self._known) > TOKENS:
            self._forget(next(iter(self._known)))
        return held

    def _forget(self, hash_: bytes) -> None:
        held = self._known.pop(hash_, None)
        if held is not None and self._hashes.get(held[0].id) == hash_:
            del self._hashes[held[0].id]

    async def _looked(self) -> None:
        """See to it that what memory has was true less than a moment ago."""
        if time.monotonic() - self._seen_at > LOOK_AFTER_S:
            await self._looking.join(None, self._look)

    async def _looked_if_possible(self) -> None:
        """The same of a service that is open, which goes on while PostgreSQL is away."""
        try:
            await self._looked()
        except Unavailable:
            self._rests_until = time.monotonic() + REST_S

    def _looks(self) -> None:
        """The same, without waiting."""
        if self._looking.under_way(None) is None:
            self._looking.begun(None, self._look)

    async def _look(self) -> None:
        began = time.monotonic()
        try:
            async with asyncio.timeout(LOOK_S):
                turn = await doors.turn(self.database)
                if turn != self._turn:
                    await self._learn(turn)
        except TimeoutError:
            raise Unavailable("PostgreSQL takes too long to say who may come in") from None
        self._seen_at = began

    async def _learn(self, turn: int) -> None:
        """Read anew what is remembered of tokens, as of a turn or later, and tell those whom it concerns."""
        hashes = list(self._known)
        found = await doors.by_hash(self.database, hashes) if hashes else []
        for hash_ in list(self._known):
            self._forget(hash_)
        for token in found:
            self._keep(token)
        self._turn = turn
        callers = {caller.owner: caller for _, caller in self._known.values()}
        for lease in list(self._leases):
            if not lease.is_of_others and callers.get(lease.caller.owner) != lease.caller:
                lease.changed()


class Lease:
    """What a stream is told under: for as long as its caller may, and what it may.

    `woken` is called when it has to be looked at: something changed, or it ends.
    """

    def __init__(self, access: Access, caller: Caller, again: Again, journal: str) -> None:
        self.access, self.caller, self.journal = access, caller, journal
        self.woken: Callable[[], None] = lambda: None
        self.is_warned = False
        self._again = again
        self.is_of_others = caller.owner is not None and _number(caller) is None  # no token of ours
        self._is_doubtful = False
        self._timers: list[asyncio.TimerHandle] = []

    def __enter__(self) -> "Lease":
        loop, ends_at = asyncio.get_running_loop(), self.caller.ends_at
        if ends_at is not None:
            left = ends_at - time.time()
            for moment in (left - WARNED_S, left):
                self._timers.append(loop.call_later(max(moment, 0.0), self._wake))
        self.access.hold(self)
        self._is_doubtful = not self.is_of_others  # it was asked who it is before the lease was told of changes
        return self

    def __exit__(self, *_: object) -> None:
        self.access.drop(self)
        for timer in self._timers:
            timer.cancel()

    @property
    def holds(self) -> bool:
        """Whether nothing is known that would change what may be told."""
        return not self._is_doubtful and not _has_ended(self.caller)

    @property
    def ends_in_s(self) -> float | None:
        """How long it has; None: it has no end."""
        return None if self.caller.ends_at is None else self.caller.ends_at - time.time()

    def changed(self) -> None:
        """Tokens have changed, maybe this one."""
        self._is_doubtful = True
        self._wake()

    async def reach(self) -> Reach:
        """What its caller may do by now; Unauthenticated where it is nobody any more."""
        if self._is_doubtful:
            self._is_doubtful = False
            try:
                self.caller = await self._again()
            except BaseException:
                self._is_doubtful = True
                raise
        if _has_ended(self.caller):
            raise Unauthenticated(_UNKNOWN)
        return self.caller.reach(self.journal)

    def _wake(self) -> None:
        self.woken()


def new_token(*, is_operators: bool) -> tuple[str, bytes]:
    """A new secret, and the hash that is kept of it."""
    text = (OPERATOR_PREFIX if is_operators else CLIENT_PREFIX) + secrets.token_urlsafe(32)
    return text, sha256(text.encode()).digest()


async def _again_and_again(every_s: float, work: Callable[[], Awaitable[None]]) -> None:
    while True:
        await asyncio.sleep(every_s)
        try:
            await work()
        except Unavailable:
            pass
        except Exception:
            _log.exception("looking after tokens failed, and is tried again")


def _bearer(authorization: str | None) -> str | None:
    if authorization is None or authorization[:7].lower() != "bearer ":
        return None
    return authorization[7:].strip()


def _has_ended(caller: Caller) -> bool:
    return caller.ends_at is not None and caller.ends_at <= time.time()


def _number(caller: Caller) -> int | None:
    """The number of the token that a caller came with; None where it was not one of ours."""
    kind, _, number = (caller.owner or "").partition(":")
    return int(number) if kind == "token" else None
