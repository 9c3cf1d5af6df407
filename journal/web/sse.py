"""Server-sent events over aiohttp: sending a stream's frames, and noticing who does not read (protocol, section 9)."""

import asyncio
import contextlib

from aiohttp import web

from journal.errors import Fault, InvalidRequest, Unavailable
from journal.service.running import Service
from journal.service.stream import Stream, stream_page
from journal.web import parameters as read
from journal.web import send

PATIENCE_S = 60.0  # for a reader that takes nothing
PART_BYTES = 64 << 10
HEADERS = {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",  # nginx would keep events until it has a page of them
}
_KNOWN: dict[str, read.Read] = {"since": read.since, "collections": read.collections, "client": read.client}


async def stream(service: Service, request: web.Request) -> web.StreamResponse:
    """GET …/stream. Trouble that will pass is a close with `retry`, no error status: a browser gives up on those."""
    journal = request.match_info["j"]
    asked = read.read(request.rel_url.raw_query_string, _KNOWN)
    if "Last-Event-ID" in request.headers:
        asked["since"] = read.since(request.headers["Last-Event-ID"])
    if "since" not in asked:
        raise InvalidRequest([Fault("/since", "missing")])
    page = stream_page(asked["since"], collections=asked.get("collections"), client=asked.get("client"))
    with contextlib.suppress(Unavailable):  # then it is found out by the stream
        await service.tails.of(journal)
        if page.client is not None:
            await service.registry.admit(journal, page.client)
    response = web.StreamResponse(headers=HEADERS | send.identified())
    await response.prepare(request)
    if request.method == "HEAD":
        await response.write_eof()
        return response
    agent = request.headers.get("User-Agent")
    told = Stream(service.reader, service.tails, service.registry, journal, page)
    try:
        async with contextlib.aclosing(told.frames()) as frames:
            async for frame in frames:
                for piece in frame:
                    await _write(response, piece)
                if page.client is not None:
                    service.registry.saw(journal, page.client, told.cursor, agent)
        await response.write_eof()
    except TimeoutError:
        if request.transport is not None:
            request.transport.abort()
    return response


async def _write(response: web.StreamResponse, piece: bytes) -> None:
    """Write in small parts, each with the same patience: who reads slowly but steadily is not cut off."""
    for start in range(0, len(piece), PART_BYTES):
        async with asyncio.timeout(PATIENCE_S):
            await response.write(piece[start : start + PART_BYTES])
