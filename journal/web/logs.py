"""Logs: what a process says while it runs, a line an event, for people or for programs.

The rule: no line holds a token, a ticket or anything of a query string. A request is told by its route and its journal.
"""

import logging
import os
import time
from datetime import UTC, datetime
from typing import Any

import msgspec
from aiohttp import web

from journal.config import Logs
from journal.core.names import journal_ok
from journal.store.origin import REQUEST_ID
from journal.web.doors import CALLER
from journal.web.ready import Ready
from journal.web.routing import Handler

ACCESS = logging.getLogger("journal.access")


def configure(logs: Logs, *, is_worker: bool = False) -> None:
    """Say everything on stderr in the form that is asked for."""
    handler = logging.StreamHandler()
    if logs.form == "json":
        handler.setFormatter(Json())
    else:
        who = f" [{os.getpid()}]" if is_worker else ""
        handler.setFormatter(logging.Formatter(f"%(levelname)s %(name)s{who}: %(message)s"))
    logging.basicConfig(level=logs.level.upper(), handlers=[handler], force=True)
    if logs.access:
        ACCESS.setLevel(logging.INFO)


class Json(logging.Formatter):
    """For programs: a line is an object."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "process": record.process,
        }
        request_id = REQUEST_ID.get("")
        if request_id:
            line["request_id"] = request_id
        line |= getattr(record, "facts", {})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line).decode()


def accessed(method: str, route: str, handler: Handler) -> Handler:
    """The handler, with a line for each request once it is answered."""

    async def told(request: web.Request) -> web.StreamResponse:
        began = time.perf_counter()
        status, size = 499, 0
        try:
            response = await handler(request)
            status, size = response.status, _size(response)
            return response
        finally:
            _say(request, method, route, status, size, time.perf_counter() - began)

    return told


def _say(request: web.Request, method: str, route: str, status: int, size: int, took_s: float) -> None:
    facts: dict[str, Any] = {
        "method": method,
        "route": route,
        "status": status,
        "ms": round(1000 * took_s, 3),
        "bytes": size,
        "request_id": REQUEST_ID.get(""),
    }
    name = request.match_info.get("j", "")
    if journal_ok(name):
        facts["journal"] = name
    caller = request.get(CALLER)
    if caller is not None:
        facts["caller"] = caller.name
    words = " ".join(_sound(f"{key}={value}") for key, value in facts.items() if key not in ("method", "route"))
    ACCESS.info("%s %s %s", method, route, words, extra={"facts": facts})


def _sound(text: str) -> str:
    """On one line, whatever a caller is called."""
    return text if text.isprintable() else ascii(text)[1:-1]


def _size(response: web.StreamResponse) -> int:
    """The bytes of the answer's body, as far as they are known."""
    if isinstance(response, Ready):
        return response.size
    if isinstance(response, web.Response) and isinstance(response.body, bytes):
        return len(response.body)
    return response.body_length if response.prepared else 0
