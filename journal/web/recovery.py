"""The routes of operators, and of clients that find their way back (protocol, sections 8 and 11)."""

import re
from typing import TypeVar
from uuid import UUID

import msgspec
from aiohttp import web
from msgspec import UNSET

from journal.errors import Fault, InvalidRequest, NotFound
from journal.service.check import check
from journal.service.operations import Report, Work
from journal.service.running import Service
from journal.web import bodies, send
from journal.web import parameters as read
from journal.web.doors import REACH, admit_again, operator
from journal.web.queries import Queries
from journal.web.routing import J, Route
from journal.wire import (
    CompactRequest,
    EraseRequest,
    RestoredRequest,
    ResyncRequest,
    RevisionAnswer,
    ServerRequest,
    SettleRequest,
)

Shape = TypeVar("Shape", bound=msgspec.Struct)
LONGEST_WAIT_S = 60.0
_NUMBER = re.compile(r"[1-9][0-9]{0,17}")
_WAIT = re.compile(r"(?:^|,)\s*wait\s*=\s*([0-9]{1,6})\s*(?:,|$)")


def waits(prefer: str) -> int | None:
    """How many seconds a requester prefers to wait (RFC 7240, section 4.3); None where it does not say."""
    found = _WAIT.search(prefer)
    return None if found is None else int(found[1])


class Recovery:
    """The handlers, on a service."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.limits = service.settings.limits

    def table(self) -> list[Route]:
        """Every route."""
        return [
            Route("POST", f"{J}/resync", self.resync, "operate"),
            Route("POST", f"{J}/restored", self.restored, "operate"),
            Route("POST", f"{J}/compact", self.compact, "operate"),
            Route("POST", f"{J}/check", self.check, "operate"),
            Route("POST", f"{J}/erase", self.erase, "operate"),
            Route("GET", f"{J}/clients", self.clients, "operate"),
            Route("GET", f"{J}/clients/{{id}}", self.client, "operate"),
            Route("DELETE", f"{J}/clients/{{id}}", self.forget_client, "operate"),
            Route("GET", f"{J}/conflicts", self.conflicts, "read"),
            Route("GET", f"{J}/conflicts/{{id}}", self.conflict, "read"),
            Route("POST", f"{J}/conflicts/{{id}}", self.settle, "read"),
            Route("GET", f"{J}/operations", self.operations, "operate"),
            Route("GET", f"{J}/operations/{{id}}", self.operation, "operate"),
            Route("GET", f"{J}/audit", self.audit, "operate"),
            Route("GET", f"{J}/stats", self.stats, "operate"),
            Route("GET", "/v1/server", self.server, "service"),
            Route("PUT", "/v1/server", self.remember_server, "service"),
        ]

    async def resync(self, request: web.Request) -> web.StreamResponse:
        """POST …/resync: a client, some collections or everyone starts again."""
        asked = await self._asked(request, ResyncRequest)
        revision = await self.service.resync.resync(
            request.match_info["j"],
            client=None if asked.client is UNSET else asked.client,
            collections=None if asked.collections is UNSET else sorted(set(asked.collections)),
            spread_s=asked.spread_s,
            reason=asked.reason,
            by=operator(request),
        )
        return send.json(RevisionAnswer(revision))

    async def restored(self, request: web.Request) -> web.StreamResponse:
        """POST …/restored: a new epoch."""
        asked = await self._asked(request, RestoredRequest)
        told = await self.service.resync.restored(
            request.match_info["j"],
            revision=None if asked.revision is UNSET else asked.revision,
            spread_s=asked.spread_s,
            by=operator(request),
        )
        return send.json(told)

    async def compact(self, request: web.Request) -> web.StreamResponse:
        """POST …/compact: raise the horizon and remove what is older."""
        asked = await self._asked(request, CompactRequest)
        if asked.keep_revisions is None and asked.keep_days is None:
            raise InvalidRequest([Fault("", "say how much is kept: keep_revisions, keep_days or both")])
        journal, by = request.match_info["j"], operator(request)

        async def work(report: Report) -> msgspec.Struct:
            return await self.service.compaction.compact(journal, asked, report, by=by)

        await self.service.registry.flush()
        return await self._begun(request, "compact", asked, work)

    async def check(self, request: web.Request) -> web.StreamResponse:
        """POST …/check: recompute chain and state from the record, and compare."""
        read.read(request.rel_url.raw_query_string, {})
        tail = await self.service.tails.of(request.match_info["j"])

        async def work(report: Report) -> msgspec.Struct:
            return await check(self.service.database, tail.head.id, report)

        return await self._begun(request, "check", None, work)

    async def erase(self, request: web.Request) -> web.StreamResponse:
        """POST …/erase: an atom's data, everywhere."""
        asked = await self._asked(request, EraseRequest)
        told = await self.service.erasure.erase(
            request.match_info["j"], asked.collection, asked.atom, by=operator(request)
        )
        return send.json(told)

    async def clients(self, request: web.Request) -> web.StreamResponse:
        """GET …/clients: who syncs, the furthest behind first."""
        asked = Queries.clients.read(request.rel_url.raw_query_string)
        return send.json(
            await self.service.registry.clients(request.match_info["j"], asked.get("after"), asked["limit"])
        )

    async def client(self, request: web.Request) -> web.StreamResponse:
        """GET …/clients/{id}: one client."""
        read.read(request.rel_url.raw_query_string, {})
        return send.json(await self.service.registry.client(request.match_info["j"], _uuid(request)))

    async def forget_client(self, request: web.Request) -> web.StreamResponse:
        """DELETE …/clients/{id}: it must take a new id."""
        read.read(request.rel_url.raw_query_string, {})
        await self.service.registry.forget(request.match_info["j"], _uuid(request), by=operator(request))
        return web.Response(status=204)

    async def conflicts(self, request: web.Request) -> web.StreamResponse:
        """GET …/conflicts: what is kept for a person, newest first."""
        asked = Queries.conflicts.read(request.rel_url.raw_query_string)
        told = await self.service.conflicts.page(
            request.match_info["j"],
            asked.get("after"),
            asked["limit"],
            state=asked["state"],
            client=UUID(asked["client"]) if "client" in asked else None,
            collections=request[REACH].reads,
        )
        return send.json(told)

    async def conflict(self, request: web.Request) -> web.StreamResponse:
        """GET …/conflicts/{id}: one of them."""
        read.read(request.rel_url.raw_query_string, {})
        return send.json(await self.service.conflicts.one(request.match_info["j"], _number(request), request[REACH]))

    async def settle(self, request: web.Request) -> web.StreamResponse:
        """POST …/conflicts/{id}: settle it."""
        asked = await self._asked(request, SettleRequest)
        told = await self.service.conflicts.settle(
            request.match_info["j"],
            _number(request),
            asked.keep,
            None if asked.atom is UNSET else asked.atom,
            request[REACH],
            by=operator(request),
        )
        return send.json(told)

    async def operations(self, request: web.Request) -> web.StreamResponse:
        """GET …/operations: the newest ones."""
        read.read(request.rel_url.raw_query_string, {})
        return send.json(await self.service.operations.all(request.match_info["j"]))

    async def operation(self, request: web.Request) -> web.StreamResponse:
        """GET …/operations/{id}: how far it is."""
        read.read(request.rel_url.raw_query_string, {})
        return send.json(await self.service.operations.one(request.match_info["j"], _uuid(request)))

    async def audit(self, request: web.Request) -> web.StreamResponse:
        """GET …/audit: what operators did."""
        asked = Queries.audit.read(request.rel_url.raw_query_string)
        return send.json(
            await self.service.operators.audit(request.match_info["j"], asked.get("after"), asked["limit"])
        )

    async def stats(self, request: web.Request) -> web.StreamResponse:
        """GET …/stats: figures of a journal."""
        read.read(request.rel_url.raw_query_string, {})
        return send.json(await self.service.operators.stats(request.match_info["j"]))

    async def server(self, request: web.Request) -> web.StreamResponse:
        """GET /v1/server: which PostgreSQL this is, and whether it is the one that was remembered."""
        read.read(request.rel_url.raw_query_string, {})
        return send.json(await self.service.operators.server())

    async def remember_server(self, request: web.Request) -> web.StreamResponse:
        """PUT /v1/server: it was a failover, remember this one."""
        asked = await self._asked(request, ServerRequest)
        return send.json(await self.service.operators.remember(asked.system, asked.timeline))

    async def _asked(self, request: web.Request, shape: type[Shape]) -> Shape:
        read.read(request.rel_url.raw_query_string, {})
        return bodies.of_shape(await bodies.body(request, self.limits), self.limits, shape)

    async def _begun(self, request: web.Request, kind: str, asked: object, work: Work) -> web.StreamResponse:
        """202 with where to ask; 200 where it ended within the time that the requester prefers to wait (RFC 7240)."""
        journal = request.match_info["j"]
        operations = self.service.operations
        id_ = await operations.start(journal, kind, asked, work, by=operator(request))
        headers = {"Location": f"/v1/journals/{journal}/operations/{id_}", "Cache-Control": "no-store"}
        preferred = waits(request.headers.get("Prefer", ""))
        if preferred is not None:
            await operations.wait(id_, min(float(preferred), LONGEST_WAIT_S))
            headers["Preference-Applied"] = f"wait={preferred}"
            await admit_again(request)
        told = await operations.one(journal, id_)
        return send.json(told, status=202 if told.state == "running" else 200, headers=headers)


def _number(request: web.Request) -> int:
    text = request.match_info["id"]
    if not _NUMBER.fullmatch(text):
        raise NotFound("there is nothing of this id: it must be a number")
    return int(text)


def _uuid(request: web.Request) -> UUID:
    found = read.uuid(request.match_info["id"])
    if found is None:
        raise NotFound("there is nothing of this id: it must be a UUID")
    return found
