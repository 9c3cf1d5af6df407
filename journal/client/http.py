"""The protocol's calls over HTTP: bodies as the service sent them, and what goes wrong as errors that can be told.

The one rule: whoever gets an answer from here got it from the service; everything else raises.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import msgspec
from yarl import URL

from journal.errors import JournalError

CONNECT_S = 10.0
READ_S = 75.0  # longer than the service holds a request that waits
_decode = msgspec.json.Decoder(dict[str, Any]).decode


class Unreachable(JournalError):
    """No answer came from there."""

    def __init__(self, url: str, detail: str) -> None:
        super().__init__(f"{url} does not answer: {detail}")
        self.url, self.detail = url, detail


class Refused(JournalError):
    """The service answered with a problem (RFC 9457)."""

    def __init__(self, status: int, problem: dict[str, Any]) -> None:
        super().__init__(problem.get("title", f"HTTP {status}"))
        self.status, self.problem = status, problem

    @property
    def code(self) -> str:
        """The stable name of what went wrong; "" where the answer was not the service's."""
        return str(self.problem.get("code", ""))


class Http:
    """A service, by the URL that its /v1 is below."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url, self.session = url.rstrip("/"), session
        self._root = URL(self.url)

    async def get(self, *path: str, **parameters: str | float | None) -> bytes:
        """The body of GET /v1/{path}; a parameter that is None is left out."""
        return (await self._call("GET", path, parameters))[1]

    async def put(self, *path: str) -> tuple[int, bytes]:
        """PUT /v1/{path}: status and body."""
        return await self._call("PUT", path, {})

    async def _call(
        self, method: str, path: tuple[str, ...], parameters: Mapping[str, str | float | None]
    ) -> tuple[int, bytes]:
        query = {name: str(value) for name, value in parameters.items() if value is not None}
        async with self.request(method, self.place(*path).with_query(query)) as response:
            return response.status, await response.read()

    def place(self, *path: str) -> URL:
        """The URL of /v1/{path}; each part is quoted."""
        place = self._root / "v1"
        for part in path:
            place /= part
        return place

    def below(self, path: str) -> URL:
        """The URL of a path that the service named, such as a Location."""
        return self._root.join(URL(path, encoded=True))

    @asynccontextmanager
    async def request(
        self, method: str, place: URL, headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """A request whose answer is below 400; else Refused, or Unreachable, also where the body breaks off."""
        try:
            async with self.session.request(method, place, headers=headers, allow_redirects=False) as response:
                if response.status >= 400:
                    raise _refusal(response.status, response.reason or "", await response.read())
                yield response
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise Unreachable(self.url, _reason(error)) from error


@asynccontextmanager
async def connected(url: str, *, is_raw: bool = False) -> AsyncIterator[Http]:
    """The service at `url`. `is_raw`: bodies come as they were sent, in their Content-Encoding."""
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=READ_S)
    connector = aiohttp.TCPConnector(limit=16)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector, auto_decompress=not is_raw) as session:
        try:
            http = Http(url, session)
        except ValueError as error:
            raise Unreachable(url, str(error)) from None
        if http.place().scheme not in ("http", "https") or not http.place().host:
            raise Unreachable(url, "a URL like http://127.0.0.1:8470 is expected")
        yield http


def _refusal(status: int, reason: str, body: bytes) -> Refused:
    try:
        return Refused(status, _decode(body))
    except msgspec.DecodeError:
        return Refused(status, {"title": f"HTTP {status} {reason}, not from a journal service", "status": status})


def _reason(error: Exception) -> str:
    match error:
        case aiohttp.ClientConnectorError(os_error=OSError() as cause):
            return os.strerror(cause.errno) if cause.errno and cause.errno > 0 else cause.strerror or str(cause)
        case asyncio.TimeoutError():
            return "it took too long"
        case aiohttp.ClientPayloadError():
            return "the answer broke off"
    return str(error) or type(error).__name__
