"""Receiving: the bytes of a body, as many and as quickly as a request may send them.

The rule: a body that came with its head costs nothing here. What is still on its way is limited as it will be when it
is unpacked, has to come at a pace, and shares what bodies that are not whole may take of memory. Who sends it may do
what that may when it is there.
"""

import asyncio

from aiohttp import hdrs, web

from journal.config import Limits
from journal.errors import Fault, InvalidRequest, RequestError, TooLarge, TooSlow, Unavailable, UnsupportedMedia
from journal.web.connections import connection_of
from journal.web.doors import admit_again
from journal.web.walls import WALLS

CHUNKED_BYTES = 256 << 10  # of a body that may come in chunks of any size; a chunk costs as much as a small request
BODY = web.RequestKey("body", bytes)  # which a handler may read twice: web/middleware.py
_CODINGS = ("gzip", "deflate", "identity")


async def received(request: web.Request, limits: Limits) -> bytes:
    """The body, unpacked; TooLarge, TooSlow, Unavailable or what else is wrong with how it comes."""
    coding = request.headers.get(hdrs.CONTENT_ENCODING)
    if coding is not None and coding.lower() not in _CODINGS:
        raise UnsupportedMedia("Content-Encoding: gzip or deflate")
    try:
        if request.content.is_eof():
            return request.get(BODY) or await request.read()
        body = request[BODY] = await _coming(request, limits)
    except web.HTTPRequestEntityTooLarge:
        raise _too_large(limits) from None
    except web.RequestPayloadError:
        raise InvalidRequest([Fault("", "the body is not what its Content-Encoding says, or is cut off")]) from None
    except RequestError:
        connection_of(request).refuse()
        raise
    await admit_again(request)
    return body


async def _coming(request: web.Request, limits: Limits) -> bytes:
    declared = request.content_length
    if declared is not None and declared > limits.body_bytes:
        raise _too_large(limits)
    walls, connection = request.app[WALLS], connection_of(request)
    heights, content, body = walls.heights, request.content, bytearray()
    clock, pace = asyncio.get_running_loop().time, heights.body_bytes_per_s * heights.body_s
    due, deadline = pace, clock() + heights.body_s if heights.body_s else None
    try:
        while True:
            if content.total_raw_bytes >= due and deadline is not None:
                due, deadline = content.total_raw_bytes + pace, clock() + heights.body_s
            async with asyncio.timeout_at(deadline):
                piece = await content.readany()
            if not piece:
                return bytes(body)
            if connection.body_bytes > CHUNKED_BYTES + 2 * content.total_raw_bytes:
                raise InvalidRequest([Fault("", "it comes in too many small chunks")])
            walls.bodies_bytes += len(piece)
            body += piece
            if len(body) > limits.body_bytes:
                raise _too_large(limits)
            if walls.bodies_bytes > heights.bodies_bytes:
                raise Unavailable("too many large bodies are on their way at this moment", retry_after=5)
    except TimeoutError:
        raise TooSlow(f"{pace:.0f} bytes have to come within {heights.body_s:g} s") from None
    finally:
        walls.bodies_bytes -= len(body)


def _too_large(limits: Limits) -> TooLarge:
    return TooLarge([Fault("", "the body is too large", limits.body_bytes)])
