"""Health: whether the process lives, and whether it can answer now.

The rule: who is alive is not killed for what PostgreSQL does. `/healthz` asks nobody; `/readyz` is for who chooses
where requests go.
"""

from typing import Any

from aiohttp import web

from journal.errors import Unavailable
from journal.service.readiness import Obstacle, Readiness
from journal.web import send
from journal.web.routing import Route

_FRESH = {"Cache-Control": "no-store"}


class NotReady(Unavailable):
    """This process cannot answer at this moment."""

    code = "not_ready"

    def __init__(self, reason: Obstacle, detail: str) -> None:
        super().__init__(detail)
        self.reason: Obstacle = reason

    def members(self) -> dict[str, Any]:
        return {"reason": self.reason}


class Health:
    """The handlers."""

    def __init__(self, readiness: Readiness) -> None:
        self.readiness = readiness

    def table(self) -> list[Route]:
        """Both routes."""
        return [
            Route("GET", "/healthz", self.alive, "nothing"),
            Route("GET", "/readyz", self.ready, "nothing"),
        ]

    async def alive(self, _: web.Request) -> web.StreamResponse:
        """GET /healthz: it runs, and answers."""
        return send.json({"status": "alive"}, headers=_FRESH)

    async def ready(self, _: web.Request) -> web.StreamResponse:
        """GET /readyz: it can do what it is for; 503 with the reason where it cannot."""
        obstacle = await self.readiness.obstacle()
        if obstacle is not None:
            raise NotReady(*obstacle)
        return send.json({"status": "ready"}, headers=_FRESH)
