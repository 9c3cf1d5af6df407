"""JWTs as bearer tokens: from a token to who carries it, by a secret and by keys that are listed (docs/jwt.md).

The one rule: nothing of a token is believed, or told to anybody, before its signature has proved true. What was
verified is remembered until the token ends or the list of keys changes.
"""

import hashlib
import math
import re
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext

from journal.config import Jwt
from journal.core.grants import Caller
from journal.errors import Unauthenticated, Unavailable
from journal.web.jwts.claims import caller
from journal.web.jwts.jwks import Jwks
from journal.web.jwts.keys import ALGORITHMS, MOST_TRIED, OF_SECRETS, Head, Keys, head, secret, signed

LONGEST = 8 << 10
MOST_KNOWN = 10_000
WRONG = "the token's signature does not hold"
_FORM = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*\.[A-Za-z0-9_-]*").fullmatch


class Verifier:
    """Believes tokens as `settings` say; ValueError where the secret is a public key. `clock`: seconds since 1970."""

    def __init__(self, settings: Jwt, *, clock: Callable[[], float] = time.time) -> None:
        self._settings, self._clock = settings, clock
        self._secret = None if settings.secret is None else secret(settings.secret)
        self._jwks = None if settings.jwks is None else Jwks(settings.jwks, settings)
        self._known: OrderedDict[bytes, Caller] = OrderedDict()
        self._known_by: Keys | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep up with the list of keys, if there is one, for as long as the context."""
        async with self._jwks.kept_up() if self._jwks is not None else nullcontext():
            yield

    def known(self, token: str) -> Caller | None:
        """Who carries `token`, if that was verified before and still holds."""
        self._forget_if_keys_changed()
        digest = _digest(token)
        found = self._known.get(digest)
        if found is None:
            return None
        if found.ends_at is None or self._clock() >= found.ends_at:
            del self._known[digest]
            return None
        self._known.move_to_end(digest)
        return found

    async def verify(self, token: str) -> Caller:
        """Who carries `token`; Unauthenticated if nobody does, Unavailable where the keys that could tell are away."""
        if (found := self.known(token)) is not None:
            return found
        if len(token) > LONGEST:
            raise Unauthenticated(f"the token is longer than {LONGEST} characters")
        if _FORM(token) is None:
            raise Unauthenticated("the token is not well formed")
        found = caller(await self._payload(token), self._settings, self._clock())
        self._forget_if_keys_changed()
        self._known[_digest(token)] = found
        if len(self._known) > MOST_KNOWN:
            self._known.popitem(last=False)
        return found

    async def _payload(self, token: str) -> bytes:
        said = head(token)
        if said.algorithm == OF_SECRETS and self._secret is not None:
            payload = signed(token, self._secret)
            if payload is None:
                raise Unauthenticated(WRONG)
            return payload
        if said.algorithm in ALGORITHMS and self._jwks is not None:
            return await self._by_listed(token, said, self._jwks)
        taken = [OF_SECRETS] * (self._secret is not None) + sorted(ALGORITHMS) * (self._jwks is not None)
        raise Unauthenticated(f"the token is not signed in a way that is taken here (alg): {', '.join(taken)}")

    async def _by_listed(self, token: str, said: Head, jwks: Jwks) -> bytes:
        keys = jwks.keys
        payload = None if keys is None else _by_any(token, said, keys)
        if payload is None:
            await jwks.again()
            if jwks.keys is not keys:
                keys = jwks.keys
                payload = None if keys is None else _by_any(token, said, keys)
        if keys is None:
            retry_after = math.ceil(self._settings.unknown_s)
            raise Unavailable("the keys that tokens are verified by cannot be had", retry_after=retry_after)
        if payload is None:
            raise Unauthenticated(WRONG if keys.that_may_have_signed(said) else "the token's key is not listed")
        return payload

    def _forget_if_keys_changed(self) -> None:
        keys = None if self._jwks is None else self._jwks.keys
        if keys is not self._known_by:
            self._known.clear()
            self._known_by = keys


def _by_any(token: str, said: Head, keys: Keys) -> bytes | None:
    may = keys.that_may_have_signed(said)
    if len(may) > MOST_TRIED:
        raise Unauthenticated(f"the token does not say which of {len(may)} keys has signed it (kid)")
    for key in may:
        if (payload := signed(token, key)) is not None:
            return payload
    return None


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="surrogateescape")).digest()
