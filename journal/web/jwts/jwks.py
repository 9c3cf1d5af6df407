"""Where keys are listed, a file or a URL: the list is kept, and kept up with.

The one rule: a token never decides how often a URL is asked. What is not to be had is tried again; meanwhile the keys
of the last list go on, for `kept_s` at most.
"""

import asyncio
import logging
import random
import stat
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
from yarl import URL

import journal
from journal.config import Jwt
from journal.web.jwts.keys import Keys, NoKeys, listed

_log = logging.getLogger(__name__)
LARGEST = 256 << 10
FILE_S = 1.0
HEADERS = {
    "User-Agent": f"journal/{journal.__version__}",
    "Accept": "application/jwk-set+json, application/json",
    "Accept-Encoding": "identity",
}
Listing = Callable[[], Awaitable[bytes]]
"""Gives the list as it is now, or raises Away."""


class Away(Exception):
    """The list cannot be had, or is none."""


class Jwks:
    """The keys that are listed at `place`, a path or a URL; there are none before `kept_up`."""

    def __init__(self, place: str, settings: Jwt) -> None:
        self._settings = settings
        self._url = URL(place) if "://" in place else None
        self._path = Path(place)
        # In logs without what opens it: a user's password, a key in the query.
        self._where = (
            place if self._url is None else str(self._url.with_user(None).with_query(None).with_fragment(None))
        )
        self._every_s = min(FILE_S, settings.refresh_s) if self._url is None else settings.refresh_s
        self._listing: Listing = _of_nobody
        self._keys: Keys | None = None
        self._text = b""
        self._kept_until = 0.0
        self._again_from = 0.0
        self._trouble: str | None = None
        self._looking: asyncio.Task[None] | None = None

    @property
    def keys(self) -> Keys | None:
        """The same object until the list says otherwise; None while nobody can tell which keys are good."""
        return self._keys if time.monotonic() < self._kept_until else None

    async def again(self) -> None:
        """Look at the list, since a token knows a key that is not on it, or there is none; not often: see above."""
        if self._looking is None or self._looking.done():
            now = time.monotonic()
            if now < self._again_from:
                return
            self._again_from = now + self._settings.unknown_s
            self._look()
        await self._looked()

    @asynccontextmanager
    async def kept_up(self) -> AsyncIterator[None]:
        """Keep up with the list, for as long as the context. Who comes before it was had waits for it."""
        async with self._opened() as self._listing:
            self._look()
            keeping_up = asyncio.create_task(self._keep_up())
            try:
                yield
            finally:
                tasks = [task for task in (keeping_up, self._looking) if task is not None]
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[Listing]:
        url = self._url
        if url is None:
            yield _File(self._path).text
            return
        async with aiohttp.ClientSession(
            headers=HEADERS,
            timeout=aiohttp.ClientTimeout(total=self._settings.answer_s),
            connector=aiohttp.TCPConnector(force_close=True),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
        ) as session:
            yield lambda: _fetch(session, url)

    async def _keep_up(self) -> None:
        while True:
            await self._looked()
            pause = self._every_s if self._trouble is None else min(self._every_s, self._settings.unknown_s)
            await asyncio.sleep(pause * random.uniform(0.9, 1.1))  # noqa: S311
            self._look()

    def _look(self) -> None:
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._renew())

    async def _looked(self) -> None:
        if self._looking is not None:
            await asyncio.shield(self._looking)  # who is not there any more does not end it for the others

    async def _renew(self) -> None:
        try:
            text = await self._listing()
            if self._keys is None or text != self._text:
                self._take(listed(text), text)
        except (Away, NoKeys) as error:
            self._say(str(error))
        except Exception as error:
            _log.exception("keys could not be looked at, and are tried again")
            self._trouble = str(error)
        else:
            self._kept_until = time.monotonic() + self._settings.kept_s
            self._say(None)

    def _take(self, keys: Keys, text: bytes) -> None:
        self._keys, self._text = keys, text
        for other in keys.others:
            _log.info("of the keys listed at %s one is not used: %s", self._where, other)
        if not keys.keys:
            _log.warning(
                "no key that is listed at %s is used here: %s", self._where, "; ".join(keys.others) or "none is"
            )

    def _say(self, trouble: str | None) -> None:
        if trouble != self._trouble:
            if trouble is not None:
                _log.warning("the keys listed at %s cannot be had: %s", self._where, trouble)
            else:
                _log.warning("the keys listed at %s can be had again", self._where)
        self._trouble = trouble


async def _of_nobody() -> bytes:
    raise Away("nobody keeps up with it")


async def _fetch(session: aiohttp.ClientSession, url: URL) -> bytes:
    try:
        async with session.get(url, allow_redirects=False) as response:
            if response.status != 200:
                leads = response.headers.get("Location")
                raise Away(f"HTTP {response.status}" + (f", which leads to {leads[:500]!r}" if leads else ""))
            text = bytearray()
            async for piece in response.content.iter_any():
                text += piece
                if len(text) > LARGEST:
                    raise Away(f"it is longer than {LARGEST} bytes")
            return bytes(text)
    except TimeoutError:
        raise Away("it took too long") from None
    except aiohttp.ClientConnectorError as error:
        raise Away(str(error)) from error
    except (aiohttp.ClientError, OSError) as error:
        raise Away(type(error).__name__) from error  # its text may have the URL whole


class _File:
    """A file, read again when it is another or has changed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._text = b""

    async def text(self) -> bytes:
        """What is in it now."""
        try:
            there = self._path.stat()
            if not stat.S_ISREG(there.st_mode):
                raise Away("it is no file")
            seen = (there.st_ino, there.st_mtime_ns, there.st_size)
            if seen != self._seen:
                with self._path.open("rb") as file:
                    text = file.read(LARGEST + 1)
                if len(text) > LARGEST:
                    raise Away(f"it is longer than {LARGEST} bytes")
                self._seen, self._text = seen, text
        except OSError as error:
            raise Away(error.strerror or str(error)) from error
        return self._text
