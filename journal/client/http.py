"""The protocol's calls over HTTP: bodies as the service sent them, and what goes wrong as errors that can be told.

The one rule: whoever gets an answer from here got it from the service; everything else raises.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import aiohttp
import msgspec
from yarl import URL

import journal
from journal.client.bearer import Bearer
from journal.errors import JournalError

CONNECT_S = 10.0
READ_S = 75.0  # longer than the service holds a request that waits
LONGEST_RETRY = 9  # digits of seconds: more are no time that anybody waits
OPERATING_S = 900.0  # an operator's call may wait for locks, and go through all of a table
_decode = msgspec.json.Decoder(dict[str, Any]).decode


class Unreachable(JournalError):
    """No answer came from there."""

    def __init__(self, url: str, detail: str) -> None:
        super().__init__(f"{url} does not answer: {detail}")
        self.url, self.detail = url, detail


class Refused(JournalError):
    """The service answered with a problem (RFC 9457)."""

    def __init__(self, status: int, problem: dict[str, Any], retry_after: int = 0) -> None:
        title, detail = problem.get("title", f"HTTP {status}"), problem.get("detail")
        super().__init__(f"{title}: {detail}" if detail else title)
        self.status, self.problem, self.retry_after = status, problem, retry_after

    @property
    def code(self) -> str:
        """The stable name of what went wrong; "" where the answer was not the service's."""
        return str(self.problem.get("code", ""))

    @property
    def will_pass(self) -> bool:
        """Whether asking again is safe, and may help."""
        return self.status in (429, 503)


class Http:
    """A service, by the URL that its /v1 is below."""

    def __init__(self, url: str, session: aiohttp.ClientSession, bearer: Bearer | None = None) -> None:
        self.url, self.session, self.bearer = url.rstrip("/"), session, bearer or Bearer()
        self._root = URL(self.url)
        if self._root.user is not None or self._root.password is not None:
            self.url = str(self._root.with_user(None))  # it is told, and kept beside downloads

    async def get(self, *path: str, **parameters: str | float | None) -> bytes:
        """The body of GET /v1/{path}; a parameter that is None is left out."""
        return (await self._call("GET", path, parameters))[1]

    async def put(self, *path: str, body: object = None) -> tuple[int, bytes]:
        """PUT /v1/{path}: status and body."""
        return await self._call("PUT", path, {}, body=body)

    async def post(
        self, *path: str, body: object = None, wait_s: int | None = None, read_s: float = OPERATING_S
    ) -> tuple[int, bytes]:
        """POST /v1/{path}: status and body. `wait_s`: how long the end of what is begun is worth waiting for."""
        prefer = {} if wait_s is None else {"Prefer": f"wait={wait_s}"}
        return await self._call("POST", path, {}, body=body, headers=prefer, read_s=read_s)

    async def delete(self, *path: str) -> int:
        """DELETE /v1/{path}: status."""
        return (await self._call("DELETE", path, {}, read_s=OPERATING_S))[0]

    async def _call(
        self,
        method: str,
        path: tuple[str, ...],
        parameters: Mapping[str, str | float | None],
        *,
        body: object = None,
        headers: Mapping[str, str] | None = None,
        read_s: float = READ_S,
    ) -> tuple[int, bytes]:
        query = {name: str(value) for name, value in parameters.items() if value is not None}
        place, known, content = self.place(*path).with_query(query), dict(headers or {}), None
        if body is not None:
            known["Content-Type"], content = "application/json", msgspec.json.encode(body)
        async with self.request(method, place, known, content, read_s=read_s) as response:
            return response.status, await response.read()

    def place(self, *path: str) -> URL:
        """The URL of /v1/{path}; each part is quoted."""
        place = self._root / "v1"
        for part in path:
            place /= part
        return place

    def below(self, path: str) -> URL:
        """The URL of a path that the service named, such as a Location; Unreachable where it leads elsewhere.

        What goes with each request, such as Authorization, is for the service alone. Who stands before it with a
        prefix of their own passes on what it named without one.
        """
        try:
            place = self._root.join(URL(path, encoded=True))
            is_elsewhere, host = not place.absolute or place.origin() != self._root.origin(), place.host
        except (ValueError, IndexError) as error:  # yarl's, of brackets that are nothing: test_fuzzed.py
            raise Unreachable(self.url, f"it leads to no URL: {error}") from None
        if is_elsewhere:
            raise Unreachable(self.url, f"it leads to {host}, which is not the service")
        prefix = self._root.raw_path.rstrip("/")
        return (
            place if place.raw_path.startswith(prefix + "/") else place.with_path(prefix + place.raw_path, encoded=True)
        )

    @asynccontextmanager
    async def request(
        self,
        method: str,
        place: URL,
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
        *,
        read_s: float = READ_S,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """A request whose answer is below 400; else Refused, or Unreachable, also where the body breaks off.

        Where a token is refused it is made once more if there is another.
        """
        async with AsyncExitStack() as stack:
            token = await self.bearer.token()
            try:
                sent = self._request(method, place, _with_token(headers, token), content, read_s)
                response = await stack.enter_async_context(sent)
            except Refused as error:
                if error.status != 401 or not await self.bearer.another(token):
                    raise
                token = await self.bearer.token()
                sent = self._request(method, place, _with_token(headers, token), content, read_s)
                response = await stack.enter_async_context(sent)
            yield response

    @asynccontextmanager
    async def _request(
        self, method: str, place: URL, headers: Mapping[str, str], content: bytes | None, read_s: float
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=read_s)
        try:
            async with self.session.request(
                method, place, headers=headers, data=content, allow_redirects=False, timeout=timeout
            ) as response:
                if response.status >= 400:
                    raise _refusal(response, await response.read())
                yield response
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise Unreachable(self.url, _reason(error)) from error


@asynccontextmanager
async def connected(
    url: str,
    *,
    is_raw: bool = False,
    by: str | None = None,
    more: Mapping[str, str] | None = None,
    bearer: Bearer | None = None,
) -> AsyncIterator[Http]:
    """The service at `url`. `is_raw`: bodies come as they were sent, in their Content-Encoding.

    `by`: who operates. `more`: headers that go with each request. `bearer`: who has the token that goes with each.
    """
    headers = {"User-Agent": f"journal/{journal.__version__}"} | ({} if by is None else {"From": by}) | dict(more or {})
    connector = aiohttp.TCPConnector(limit=16)
    async with aiohttp.ClientSession(headers=headers, connector=connector, auto_decompress=not is_raw) as session:
        try:
            http = Http(url, session, bearer)
        except ValueError as error:
            raise Unreachable(url, str(error)) from None
        if http.place().scheme not in ("http", "https") or not http.place().host:
            raise Unreachable(url, "a URL like http://127.0.0.1:8470 is expected")
        yield http


def _with_token(headers: Mapping[str, str] | None, token: str | None) -> dict[str, str]:
    return dict(headers or {}) | ({} if token is None else {"Authorization": f"Bearer {token}"})


def _refusal(response: aiohttp.ClientResponse, body: bytes) -> Refused:
    after, status = response.headers.get("Retry-After", ""), response.status
    retry_after = int(after) if after.isdecimal() and len(after) <= LONGEST_RETRY else 0
    try:
        return Refused(status, _decode(body), retry_after)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        title = f"HTTP {status} {response.reason or ''}, not from a journal service"
        return Refused(status, {"title": title, "status": status}, retry_after)


def _reason(error: Exception) -> str:
    match error:
        case aiohttp.ClientConnectorError(os_error=OSError() as cause):
            return os.strerror(cause.errno) if cause.errno and cause.errno > 0 else cause.strerror or str(cause)
        case asyncio.TimeoutError():
            return "it took too long"
        case aiohttp.ClientPayloadError():
            return "the answer broke off"
    return str(error) or type(error).__name__
