"""What surrounds every request: its id, and what becomes of errors. The only place where they are caught."""

import logging
import re
from collections.abc import Awaitable, Callable
from uuid import uuid4

from aiohttp import web

from journal.errors import Fault, MethodNotAllowed, NotFound, RequestError, TooLarge, Unavailable
from journal.web import send

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_log = logging.getLogger(__name__)
_ID = re.compile(r"[\x21-\x7e]{1,128}")


class InternalError(RequestError):
    """Something is wrong with the service, not with the request."""

    code, status = "internal_error", 500


@web.middleware
async def errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Errors as problems, and X-Request-Id on what could still have it."""
    known = request.headers.get("X-Request-Id")
    request_id = known if known is not None and _ID.fullmatch(known) else uuid4().hex
    try:
        response = await handler(request)
    except RequestError as error:
        response = send.problem(error)
    except web.HTTPException as error:
        response = send.problem(_known(error))
    except ConnectionResetError:
        raise
    except Exception:
        _log.exception("request %s failed: %s %s", request_id, request.method, request.path)
        response = send.problem(InternalError(f"request {request_id}; nothing was half recorded"))
    if not response.prepared:
        response.headers["X-Request-Id"] = request_id
    return response


def _known(error: web.HTTPException) -> RequestError:
    match error:
        case web.HTTPMethodNotAllowed():
            return MethodNotAllowed(sorted(error.allowed_methods))
        case web.HTTPNotFound():
            return NotFound("no such path")
        case web.HTTPRequestEntityTooLarge():
            return TooLarge([Fault("", "the body is too large")])
        case _ if error.status >= 500:
            return Unavailable(error.reason)
    raise error
