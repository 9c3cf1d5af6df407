"""Sending: answers, problems and files, in the coding that the request accepts."""

import gzip
import re
import secrets
import zlib
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from functools import lru_cache
from http import HTTPStatus
from typing import IO, Protocol

import msgspec
import zstandard
from aiohttp import web
from aiohttp.typedefs import LooseHeaders
from multidict import CIMultiDict

from journal.errors import RangeImpossible, RequestError, ResyncRequired
from journal.service.answer import NEVER, REVALIDATE, Answer
from journal.service.snapshots import File
from journal.store.origin import REQUEST_ID
from journal.web import ready
from journal.web.doors import CALLER, same
from journal.web.negotiate import Coding, coding
from journal.web.origins import Besides

BESIDES: ContextVar[Mapping[str, str]] = ContextVar("besides")
COMPRESSED_FROM = 1024
FOR_AN_HOUR = "public, max-age=3600, immutable"
REASON = web.ResponseKey("reason", str)  # of a 410
VARY = "Accept, Accept-Encoding, Authorization"
_ONE_RANGE = re.compile(r"([0-9]{0,18})-([0-9]{0,18})")
_NONE: dict[str, str] = {}
ALWAYS = ready.ALWAYS
_VARIANTS: dict[Coding, tuple[str, str]] = {it: (it, f"{it}, private") for it in ("zstd", "gzip", "identity")}
_CODED_OR_NOT_TO_BE = ("ETag", "Content-Encoding")
_encode = msgspec.json.Encoder().encode


def json(body: object, *, status: int = 200, headers: LooseHeaders | None = None) -> web.Response:
    """A small body that is told as it is."""
    return web.Response(body=_encode(body), status=status, content_type="application/json", headers=headers)


def refused(error: RequestError) -> web.Response:
    """A problem that no handler had to do with, whole as it is."""
    response = problem(error)
    response.headers["X-Request-Id"] = secrets.token_hex(8)
    response.headers.update(ALWAYS)
    return response


def problem(error: RequestError, headers: dict[str, str] | None = None) -> web.Response:
    """What went wrong, as RFC 9457 has it."""
    response = web.Response(
        body=_encode(error.problem()),
        status=error.status,
        content_type="application/problem+json",
        headers={"Cache-Control": "no-store"} | error.headers() | (headers or {}),
    )
    if isinstance(error, ResyncRequired):
        response[REASON] = error.reason  # for who counts them
    return response


async def answer(request: web.Request, told: Answer, *, headers: Mapping[str, str] = _NONE) -> web.StreamResponse:
    """An answer, or 304 where the requester has it. `headers`: what it bears besides, each time the same."""
    accepted = coding(request.headers.get("Accept-Encoding"))
    if told.body is None:
        return await _pieces(request, told, accepted)
    if len(told.body) < COMPRESSED_FROM:
        accepted = "identity"
    is_own = is_private(request)
    variants = _VARIANTS[accepted]
    known = told.coded.get(variants[is_own])
    if known is None:
        other = told.coded.get(variants[not is_own])  # its bytes are the same
        body = _coded(told.body, accepted) if other is None else other[0]
        lines = _headers(told, accepted, is_own=is_own)
        lines.update(headers)
        known = told.coded[variants[is_own]] = body, lines, ready.prefix(200, "OK", lines, len(body))
    body, lines, head = known
    if told.tag and "If-None-Match" in request.headers and matches(request, lines["ETag"]):
        return web.Response(status=304, headers=_without_body(lines))
    if len(body) <= ready.LARGEST and ready.is_plain(request):
        return ready.Ready(200, head, body)
    return web.Response(body=body, headers=lines.copy())


def decided(request: web.Request, status: int, body: bytes) -> web.StreamResponse:
    """What a push was answered, in the bytes that were kept."""
    if len(body) < COMPRESSED_FROM and ready.is_plain(request):
        return ready.Ready(status, _prefix(status, len(body), is_own=is_private(request)), body)
    return web.Response(body=body, status=status, headers=_of_decided(status, is_own=is_private(request)))


@lru_cache(maxsize=1024)
def _prefix(status: int, size: int, *, is_own: bool) -> bytes:
    return ready.prefix(status, HTTPStatus(status).phrase, _of_decided(status, is_own=is_own), size)


def _of_decided(status: int, *, is_own: bool) -> dict[str, str]:
    if status == 200:
        return {"Content-Type": "application/json"} | ({"Cache-Control": NEVER} if is_own else {})
    return {"Content-Type": "application/problem+json", "Cache-Control": NEVER}


def is_private(request: web.Request) -> bool:
    """Whether the answer is for one caller and no cache that others share: who needed a token to ask."""
    try:
        return request[CALLER].owner is not None
    except KeyError:  # nobody was asked who it is
        return False


def private(cache: str) -> str:
    """The same Cache-Control, for one caller."""
    if cache == NEVER:
        return cache
    return cache.replace("public", "private") if cache.startswith("public") else f"private, {cache}"


def finish(request: web.Request, response: web.StreamResponse, request_id: str, besides: Besides | None = None) -> None:
    """What every answer gets that is not on its way yet. `besides`: what a browser needs so that a page may read it."""
    if isinstance(response, ready.Ready):
        response.request_id = request_id
        if besides is not None:
            response.besides = besides.lines
    elif not response.prepared:
        headers = response.headers
        headers["X-Request-Id"] = request_id
        compress(request, response)
        for name, value in ALWAYS.items():
            headers.setdefault(name, value)
        if is_private(request):
            headers.setdefault("Cache-Control", private(REVALIDATE))
        if besides is not None:
            headers.extend(besides.headers)


def compress(request: web.Request, response: web.StreamResponse) -> None:
    """Code a large body that nothing identifies: what has an ETag was coded with it, or is not to be."""
    if not isinstance(response, web.Response) or not response.headers.keys().isdisjoint(_CODED_OR_NOT_TO_BE):
        return
    body = response.body
    if not isinstance(body, bytes) or len(body) < COMPRESSED_FROM:
        return
    response.headers["Vary"] = VARY
    accepted = coding(request.headers.get("Accept-Encoding"))
    if accepted != "identity":
        response.headers["Content-Encoding"] = accepted
        response.body = _coded(body, accepted)


def matches(request: web.Request, tag: str) -> bool:
    """Whether the requester has what `tag` identifies (If-None-Match)."""
    header = request.headers.get("If-None-Match")
    if header is None:
        return False
    return header.strip() == "*" or tag in (known.strip().removeprefix("W/") for known in header.split(","))


def _headers(told: Answer, accepted: Coding, *, is_own: bool) -> CIMultiDict[str]:
    cache = private(told.cache) if is_own else told.cache
    headers = CIMultiDict({"Content-Type": told.media, "Cache-Control": cache, "Vary": VARY})
    if told.tag:
        headers["ETag"] = f'"{told.tag}"' if accepted == "identity" else f'"{told.tag}-{accepted}"'  # one a coding
    if accepted != "identity":
        headers["Content-Encoding"] = accepted
    return headers


def _without_body(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name not in ("Content-Type", "Content-Encoding")}


def _coded(body: bytes, accepted: Coding) -> bytes:
    match accepted:
        case "zstd":
            return zstandard.compress(body, 3)
        case "gzip":
            return gzip.compress(body, 5, mtime=0)
        case "identity":
            return body


class _Compressor(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...
    def flush(self) -> bytes: ...


class _Plain:
    def compress(self, data: bytes, /) -> bytes:
        return data

    def flush(self) -> bytes:
        return b""


def _compressor(accepted: Coding) -> _Compressor:
    match accepted:
        case "zstd":
            return zstandard.ZstdCompressor(level=1).compressobj()
        case "gzip":
            return zlib.compressobj(1, zlib.DEFLATED, 31)  # 31: with gzip's header
        case "identity":
            return _Plain()


async def _pieces(request: web.Request, told: Answer, accepted: Coding) -> web.StreamResponse:
    try:
        headers = _headers(told, accepted, is_own=is_private(request))
        if told.tag and matches(request, headers["ETag"]):
            return web.Response(status=304, headers=_without_body(headers))
        headers.extend(identified())
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        if request.method != "HEAD":
            assert told.pieces is not None
            await _write(request, response, told.pieces, _compressor(accepted))
        await response.write_eof()
        return response
    finally:
        told.close()


def identified() -> dict[str, str]:
    """What `finish` would give, for what is sent in pieces."""
    return {"X-Request-Id": REQUEST_ID.get(), **ALWAYS, **BESIDES.get(_NONE)}


async def _write(
    request: web.Request, response: web.StreamResponse, pieces: Iterator[bytes], compressor: _Compressor
) -> None:
    for piece in pieces:
        coded = compressor.compress(piece)
        if coded:
            await _may_go_on(request)
            await response.write(coded)  # waits for a slow reader; what it waits for is on disk
    if rest := compressor.flush():
        await response.write(rest)


async def file(request: web.Request, found: File, piece: int) -> web.StreamResponse:
    """A snapshot's file, whole or the range that is asked for (RFC 9110, section 14), `piece` bytes at a time."""
    tag = f'"{found.tag}"'
    headers = {
        "Content-Type": "application/x-ndjson",
        "ETag": tag,
        "Cache-Control": private(FOR_AN_HOUR) if is_private(request) else FOR_AN_HOUR,
        "Vary": VARY,
        "Accept-Ranges": "bytes",
        "Journal-Revision": str(found.snapshot.revision),
    }
    if found.coding != "identity":
        headers["Content-Encoding"] = found.coding
    if matches(request, tag):
        return web.Response(status=304, headers=_without_body(headers))
    with found.path.open("rb") as opened:
        size = opened.seek(0, 2)
        part = _range(request, tag, size)
        start, end = part or (0, size)
        if part is not None:
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
        lines = CIMultiDict(headers)
        lines.extend(identified())
        response = web.StreamResponse(status=200 if part is None else 206, headers=lines)
        response.content_length = end - start
        await response.prepare(request)
        if request.method != "HEAD":
            await _copy(request, response, opened, start, end, piece)
        await response.write_eof()
    return response


async def _copy(
    request: web.Request, response: web.StreamResponse, opened: IO[bytes], start: int, end: int, most: int
) -> None:
    opened.seek(start)
    while start < end:
        await _may_go_on(request)
        piece = opened.read(min(most, end - start))
        start += len(piece)
        await response.write(piece)


async def _may_go_on(request: web.Request) -> None:
    """Cut off what is told in pieces to a caller who may not be told it any more."""
    if not await same(request):
        if request.transport is not None:
            request.transport.abort()
        raise ConnectionResetError


def _range(request: web.Request, tag: str, size: int) -> tuple[int, int] | None:
    """The bytes that are asked for; None where no range, more than one, or one of other bytes is."""
    unit, _, ranges = request.headers.get("Range", "").partition("=")
    match = _ONE_RANGE.fullmatch(ranges.strip(" \t"))
    is_asked = request.method == "GET" and unit.strip(" \t").lower() == "bytes" and match is not None
    if match is None or not is_asked or request.headers.get("If-Range", tag) != tag:
        return None
    first, last = match.groups()
    if not first:
        start, end = max(size - int(last or 0), 0), size
    else:
        start, end = int(first), min(int(last) + 1, size) if last else size
    if not first + last or start >= end:
        raise RangeImpossible(size)
    return start, end
