"""What surrounds every request: its id, and what becomes of errors. The only place where they are caught.

A wrapper of each handler and not a middleware of aiohttp's, which costs a request several microseconds more.
"""

import itertools
import logging
import re
import secrets
from functools import wraps
from time import perf_counter

from aiohttp import web

from journal.errors import (
    Fault,
    JournalGone,
    MethodNotAllowed,
    NoRoom,
    NotFound,
    RateLimited,
    RequestError,
    TooLarge,
    Unavailable,
)
from journal.service.access import Access
from journal.store.origin import REQUEST_ID
from journal.web import doors, send
from journal.web.routing import Count, Handler, Need
from journal.web.walls import Walls, refused_to_a_stream

_log = logging.getLogger(__name__)
GONE = 499
_ID = re.compile(r"[\x21-\x7e]{1,128}")
_process = secrets.token_hex(6)  # ids are this and a count: unique, and cheaper than a random one for each request
_count = itertools.count(1)


class InternalError(RequestError):
    """Something is wrong with the service, not with the request."""

    code, status = "internal_error", 500


def guarded(handler: Handler, walls: Walls, access: Access, needs: Need, count: Count) -> Handler:
    """The handler, for callers who may, counted; errors as problems, X-Request-Id on what could still have it."""
    origins, is_listed = walls.origins, walls.origins.is_on

    @wraps(handler)
    async def guard(request: web.Request) -> web.StreamResponse:
        began = perf_counter()
        known = request.headers.get("X-Request-Id")
        request_id = known if known is not None and _ID.fullmatch(known) else f"{_process}-{next(_count):x}"
        REQUEST_ID.set(request_id)  # for what is sent in pieces, PostgreSQL and the log
        besides = None
        if is_listed:
            besides = origins.besides(request)
            send.BESIDES.set(besides.headers)
        try:
            walls.admit(request)
            if needs not in ("nothing", "ticket"):
                caller = request[doors.CALLER] = await doors.caller_of(request, access)
                if caller.owner is not None:
                    walls.admit_caller(caller)  # before what it may do: to be refused costs as much
                doors.admit(request, caller, needs)
            try:
                response = await handler(request)
            except JournalGone:  # only what was remembered is known to be gone: test_read_your_writes.py
                response = await handler(request)
        except RateLimited as error:
            response = refused_to_a_stream(request, error) or send.problem(error)
        except RequestError as error:
            response = send.problem(error)
        except web.HTTPException as error:
            response = send.problem(_known(error))
        except ConnectionError:  # the client went away in the middle: nobody is there to be told anything
            response = web.Response(status=GONE)
            count(request, response, began)
            return response
        except Exception as error:
            if NoRoom.is_told_by(error):
                response = send.problem(NoRoom())
            else:
                _log.exception("request %s failed: %s %s", request_id, request.method, request.path)
                response = send.problem(InternalError(f"request {request_id}; nothing was half recorded"))
        send.finish(request, response, request_id, besides)
        count(request, response, began)
        return response

    return guard


async def nowhere(request: web.Request) -> web.StreamResponse:
    """What answers where no route does: 405 where the path is known by other methods, else 404."""
    allowed: set[str] = set()
    for resource in request.app.router.resources():
        match, methods = await resource.resolve(request)
        if match is None:
            allowed |= methods
    if allowed:
        raise MethodNotAllowed(sorted(allowed))
    raise NotFound("no such path")


def asked_before(walls: Walls) -> Handler:
    """What answers browsers that ask whether they may ask (CORS), and else leads nowhere."""

    async def answer(request: web.Request) -> web.StreamResponse:
        return walls.origins.asked_before(request) or await nowhere(request)

    return answer


def _known(error: web.HTTPException) -> RequestError:
    match error:
        case web.HTTPRequestEntityTooLarge():
            return TooLarge([Fault("", "the body is too large")])
        case _ if error.status >= 500:
            return Unavailable(error.reason)
    raise error
