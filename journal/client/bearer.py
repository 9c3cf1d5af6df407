"""What a client shows for itself: a token, or what gives a fresh one whenever it is asked for.

The rule: a token goes to the service and nowhere else, into no error either; one that was refused is shown again only
where there is no other.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable

from journal.errors import JournalError

Renewal = Callable[[], Awaitable[str]]
Token = str | Renewal | None
RENEWAL_S = 60.0
_TOKEN = re.compile(r"[\x21-\x7e]{1,16384}")


class NoToken(JournalError):
    """What was to give a token did not."""


class Bearer:
    """Who has a token, None who needs none. `turn`: how many it has had."""

    def __init__(self, token: Token = None) -> None:
        self.turn = 0
        self._asking = asyncio.Lock()
        self.renew(token)

    def renew(self, token: Token) -> None:
        """From now on it is this one, or what this gives. ValueError for what cannot be one."""
        self._renewal = token if callable(token) else None
        self._token = None if token is None or callable(token) else _checked(token)
        self.turn += 1

    @property
    def can_ask(self) -> bool:
        """Whether a fresh one can be asked for."""
        return self._renewal is not None

    async def token(self) -> str | None:
        """The present one, asked for where there is none yet; NoToken where that fails."""
        if self._token is None and self._renewal is not None:
            await self.another(None)
        return self._token

    async def another(self, than: str | None) -> bool:
        """Whether there is another than this one, which was refused or soon ends; a fresh one is asked for once."""
        async with self._asking:
            renewal, turn = self._renewal, self.turn
            if renewal is not None and self._token == than:
                fresh = await _asked(renewal)
                if self.turn == turn and fresh != than:  # else somebody has brought one meanwhile
                    self._token = fresh
                    self.turn += 1
        return self._token != than


async def _asked(renewal: Renewal) -> str:
    try:
        async with asyncio.timeout(RENEWAL_S):
            return _checked(await renewal())
    except Exception as error:  # an application's: whatever it is, what waits goes on waiting
        raise NoToken(f"no token was to be had: {type(error).__name__}: {error}") from error


def _checked(token: str) -> str:
    if not _TOKEN.fullmatch(token):
        raise ValueError("a token is printable ASCII without spaces")
    return token
