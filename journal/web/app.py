"""The application: the service behind its routes, started and stopped in order."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import TYPE_CHECKING

from aiohttp import web

from journal.config import Settings
from journal.service.running import Service, running
from journal.web.doors import ACCESS
from journal.web.logs import accessed
from journal.web.metrics import GATHERING, Alone, Gathering, Metrics
from journal.web.middleware import asked_before, guarded, nowhere
from journal.web.routes import Routes
from journal.web.routing import Route
from journal.web.tracing import Tracing, to
from journal.web.walls import WALLS, Walls

if TYPE_CHECKING:
    from journal.web.jwts.verifier import Verifier

NOWHERE, ANYWHERE = "none", "/{path:(?s:.*)}"  # the route of what has none, and where: a path may hold a line's end
SERVICE = web.AppKey("service", Service)


def application(
    settings: Settings, gathering: Gathering | None = None, tracing: Tracing | None = None
) -> web.Application:
    """The application of one process. `gathering`: how it comes by the figures of others, where there are others.

    `tracing`: where spans go; else where the settings say.
    """
    if tracing is None and settings.trace_to is not None:
        tracing = to(settings.trace_to)
    app = web.Application(client_max_size=settings.limits.body_bytes)
    believing = verifier(settings)
    service = Service(settings, believing)
    gathering = gathering or Alone()
    metrics = Metrics(service, gathering)
    app[SERVICE], app[ACCESS], app[GATHERING] = service, service.access, gathering
    walls = app[WALLS] = Walls(settings, service.access)

    def add(route: Route, method: str) -> None:
        handler = guarded(route.handler, walls, service.access, route.needs, metrics.of(method, route.path))
        if tracing is not None:
            handler = tracing.traced(method, route.path, handler)
        if settings.logs.access:
            handler = accessed(method, route.path, handler)
        app.router.add_route(method, ANYWHERE if route.path == NOWHERE else route.path, handler)

    for route in Routes(service).table():
        for method in (route.method, "HEAD") if route.method == "GET" else (route.method,):
            add(route, method)
    add(Route("OPTIONS", NOWHERE, asked_before(walls), "nothing"), "OPTIONS")
    add(Route("*", NOWHERE, nowhere, "nothing"), "*")
    app.on_shutdown.append(_wake)
    if believing is not None:
        app.cleanup_ctx.append(lambda _: believing.running())
    app.cleanup_ctx.append(_run)
    if tracing is not None:
        app.on_cleanup.append(partial(_sent, tracing))
    return app


def verifier(settings: Settings) -> "Verifier | None":
    """What believes JWTs; None where none are taken."""
    if settings.jwt is None:
        return None
    from journal.web.jwts.verifier import Verifier  # cryptography takes 40 ms to load: only where it is needed

    return Verifier(settings.jwt)


async def _sent(tracing: Tracing, _: web.Application) -> None:
    await asyncio.to_thread(tracing.close)


async def _run(app: web.Application) -> AsyncIterator[None]:
    async with running(app[SERVICE]):
        yield


async def _wake(app: web.Application) -> None:
    app[SERVICE].tails.close()  # who waits for news is answered before the server waits for its handlers
