"""What a route is: a call of the protocol, what answers it, and what its caller must be allowed to do."""

from collections.abc import Awaitable, Callable
from typing import Literal, NamedTuple

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Count = Callable[[web.Request, web.StreamResponse, float], None]
"""Takes note of a request that is answered, and of the moment (time.perf_counter) from which on."""
Need = Literal["nothing", "caller", "read", "ticket", "read_all", "write", "operate", "service"]
"""nothing: anybody may · caller: who says who they are · read, write: some collection of the journal · ticket: as read,
or by a ticket in place of a token · read_all: all of its collections · operate: the journal · service: what concerns
all journals."""

J = "/v1/journals/{j}"


class Route(NamedTuple):
    """A route; HEAD goes where GET does."""

    method: str
    path: str
    handler: Handler
    needs: Need
