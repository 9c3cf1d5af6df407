"""Routes: every call of the protocol, and what answers it."""

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from urllib.parse import quote

from aiohttp import web

import journal
from journal.core.cursor import Cursor
from journal.core.grants import PERMISSIONS, Caller
from journal.core.model import Policy
from journal.errors import Fault, Forbidden, InvalidRequest
from journal.service import snapshots
from journal.service.access import TICKET_S
from journal.service.answer import MEDIA, Answer
from journal.service.group import Asked
from journal.service.running import Service
from journal.service.sync import SyncAsked
from journal.service.verify import DigestAsked, ManifestAsked
from journal.web import bodies, negotiate, send, sse
from journal.web import parameters as read
from journal.web.description.openapi import Described
from journal.web.doors import CALLER, REACH, admit, caller_of, operator, readable
from journal.web.health import Health
from journal.web.metrics import metrics
from journal.web.pages import DOCS, Pages
from journal.web.queries import Queries
from journal.web.recovery import Recovery
from journal.web.routing import J, Route
from journal.web.walls import WALLS
from journal.wire import CallerAnswer, CollectionRequest, GrantAnswer, TicketAnswer, rfc3339

POLICIES: tuple[Policy, ...] = ("server", "merge", "client", "newest", "both")


class Routes:
    """The handlers, on a service."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.limits = service.settings.limits
        self.queries = Queries(self.limits)

    def table(self) -> list[Route]:
        """Every route."""
        pages = Pages()
        routes = [
            Route("GET", f"{J}/deltas", self.deltas, "read"),  # what is asked most is looked for first
            Route("POST", f"{J}/changes", self.push, "write"),
            Route("GET", f"{J}/changes", self.changes, "read_all"),
            Route("POST", f"{J}/sync", self.sync, "read"),
            Route("GET", "/v1", self.about, "nothing"),
            Route("GET", "/v1/caller", self.caller, "caller"),
            Route("GET", "/v1/journals", self.journals, "caller"),
            Route("PUT", J, self.create, "service"),
            Route("DELETE", J, self.remove, "service"),
            Route("GET", J, self.head, "read"),
            Route("GET", f"{J}/collections", self.collections, "read"),
            Route("PUT", f"{J}/collections", self.set_policy, "operate"),
            Route("GET", f"{J}/cursor", self.cursor, "read"),
            Route("GET", f"{J}/stream", self.stream, "ticket"),
            Route("POST", f"{J}/stream-tickets", self.ticket, "read"),
            Route("GET", f"{J}/snapshot", self.snapshot, "read"),
            Route("GET", f"{J}/snapshots/{{id}}", self.snapshot_file, "read"),
            Route("GET", f"{J}/atom", self.atom, "read"),
            Route("GET", f"{J}/atom/history", self.history, "read"),
            Route("GET", f"{J}/digest", self.digest, "read"),
            Route("GET", f"{J}/manifest", self.manifest, "read"),
            Route("POST", f"{J}/lookup", self.lookup, "read"),
            *Recovery(self.service).table(),
            *Health(self.service.readiness).table(),
            Route("GET", "/metrics", metrics, "service"),
            *pages.table(),
        ]
        return Described(self.limits).beside(routes, pages.answer(DOCS))

    async def about(self, request: web.Request) -> web.StreamResponse:
        """GET /v1: version, limits, policies, forms."""
        read.read(request.rel_url.raw_query_string, {})
        return send.json(
            {
                "version": 1,
                "software": f"journal {journal.__version__}",
                "limits": request.app[WALLS].told(self.limits),
                "policies": POLICIES,
                "forms": list(MEDIA.values()),
            }
        )

    async def journals(self, request: web.Request) -> web.StreamResponse:
        """GET /v1/journals: a page of journals."""
        asked = self.queries.journals.read(request.rel_url.raw_query_string)
        return send.json(await self.service.journals.page(asked["after"], asked["limit"], request[CALLER]))

    async def create(self, request: web.Request) -> web.StreamResponse:
        """PUT …: make a journal; 200 where it is there."""
        read.read(request.rel_url.raw_query_string, {})
        name = request.match_info["j"]
        try:
            read.journal(name)
        except read.WrongValue as wrong:
            raise InvalidRequest([Fault("", wrong.detail, wrong.limit)]) from None
        told, is_new = await self.service.journals.create(name)
        return send.json(told, status=201 if is_new else 200)

    async def remove(self, request: web.Request) -> web.StreamResponse:
        """DELETE …: remove a journal with its record."""
        read.read(request.rel_url.raw_query_string, {})
        await self.service.journals.remove(request.match_info["j"])
        return web.Response(status=204)

    async def head(self, request: web.Request) -> web.StreamResponse:
        """GET …: what revision one should have. From memory."""
        tail = await self.service.tails.of(request.match_info["j"])
        read.read(request.rel_url.raw_query_string, {})
        return await send.answer(request, self.service.journals.head(tail, request[REACH].reads))

    async def collections(self, request: web.Request) -> web.StreamResponse:
        """GET …/collections: their digests, and the policies that operators gave them."""
        read.read(request.rel_url.raw_query_string, {})
        return send.json(await self.service.journals.collections(request.match_info["j"], request[REACH].reads))

    async def set_policy(self, request: web.Request) -> web.StreamResponse:
        """PUT …/collections: give a collection a policy."""
        read.read(request.rel_url.raw_query_string, {})
        asked = bodies.of_shape(await bodies.body(request, self.limits), self.limits, CollectionRequest)
        told = await self.service.journals.set_policy(
            request.match_info["j"], asked.collection, asked.policy, by=operator(request)
        )
        return send.json(told)

    async def deltas(self, request: web.Request) -> web.StreamResponse:
        """GET …/deltas: everything since a revision."""
        form = negotiate.form(request.headers.get("Accept"))
        asked = self.queries.page(request.rel_url.raw_query_string, form).within(request[REACH].reads)
        journal, caller = request.match_info["j"], request[CALLER]
        if asked.client is not None:
            await self.service.access.own(caller, journal, asked.client)
            await self.service.registry.admit(journal, asked.client)
            since = asked.since if isinstance(asked.since, Cursor) else None
            self.service.registry.saw(journal, asked.client, since, request.headers.get("User-Agent"))
        told = await self.service.reader.deltas(journal, asked)
        if asked.wait_s and (now := await self._now(request, told)) != caller:
            told.close()
            admit(request, now, "read")
            return await self.deltas(request)
        return await send.answer(request, told)

    async def _now(self, request: web.Request, told: Answer) -> Caller:
        """Who it is after a wait, in which a token may have been revoked, or was given other grants."""
        try:
            return await caller_of(request, self.service.access)
        except BaseException:
            told.close()
            raise

    async def caller(self, request: web.Request) -> web.StreamResponse:
        """GET /v1/caller: who one is here, and what one may do."""
        read.read(request.rel_url.raw_query_string, {})
        return send.json(caller_answer(request[CALLER]), headers={"Cache-Control": "no-store"})

    async def ticket(self, request: web.Request) -> web.StreamResponse:
        """POST …/stream-tickets: one use of the stream, for who cannot send a header."""
        read.read(request.rel_url.raw_query_string, {})
        ticket = await self.service.access.ticket(request[CALLER], request.match_info["j"])
        return send.json(TicketAnswer(ticket, round(TICKET_S)), status=201, headers={"Cache-Control": "no-store"})

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """GET …/stream: deltas as they are recorded."""
        return await sse.stream(self.service, request)

    async def cursor(self, request: web.Request) -> web.StreamResponse:
        """GET …/cursor: a cursor for other collections."""
        asked = self.queries.cursor.read(request.rel_url.raw_query_string)
        names = readable(request, asked.get("collections"))
        told = await self.service.journals.cursor(request.match_info["j"], asked["at"], names)
        return send.json(told)

    async def changes(self, request: web.Request) -> web.StreamResponse:
        """GET …/changes: the record itself."""
        form = negotiate.form(request.headers.get("Accept"), ("json", "msgpack"))
        asked = self.queries.changes.read(request.rel_url.raw_query_string)
        told = await self.service.changes.changes(request.match_info["j"], asked["since"], asked["limit"], form)
        return await send.answer(request, told)

    async def push(self, request: web.Request) -> web.StreamResponse:
        """POST …/changes: push."""
        arrived = time.monotonic()  # from when on ages count, however long the body takes
        read.read(request.rel_url.raw_query_string, {})
        journal, key = request.match_info["j"], _key(request)
        asked = bodies.push(await bodies.body(request, self.limits), self.limits, journal, key)
        asked.arrived = arrived
        await self._let(request, asked)
        decided = await self.service.writer.push(asked)
        if asked.client is not None:
            self.service.registry.saw(journal, str(asked.client), None, request.headers.get("User-Agent"))
        return send.decided(request, decided.status, decided.answer)

    async def sync(self, request: web.Request) -> web.StreamResponse:
        """POST …/sync: push, and everything since."""
        arrived = time.monotonic()
        read.read(request.rel_url.raw_query_string, {})
        journal, key = request.match_info["j"], _key(request)
        asked = bodies.sync(await bodies.body(request, self.limits), self.limits, journal, key)
        page = asked.page.within(request[REACH].reads)
        asked = SyncAsked(asked.push, page, asked.get)
        _readable_all(request, asked.get)
        if page.client is not None:
            await self.service.access.own(request[CALLER], journal, page.client)
        if asked.push is not None:
            asked.push.arrived, asked.push.page = arrived, page
            await self._let(request, asked.push)
        told = await self.service.sync.sync(journal, asked, request.headers.get("User-Agent"))
        if isinstance(told, Answer):
            return await send.answer(request, told)
        return send.decided(request, told.status, told.answer)

    async def _let(self, request: web.Request, asked: Asked) -> None:
        """See to it that a push is of its sender's client and key, and records only what that may write."""
        caller, reach = request[CALLER], request[REACH]
        if reach.writes is not None and not reach.writes:
            raise Forbidden("this is for callers who may write")
        asked.reads, asked.writes = reach.reads, reach.writes
        if asked.client is not None:
            await self.service.access.own(caller, asked.journal, str(asked.client))
        if asked.key is not None and caller.owner is not None:  # another's key is another key
            asked.key = sha256(f"{caller.owner}\0{asked.key}".encode()).hexdigest()

    async def snapshot(self, request: web.Request) -> web.StreamResponse:
        """GET …/snapshot: where the snapshot is."""
        journal = request.match_info["j"]
        asked = self.queries.snapshot.read(request.rel_url.raw_query_string)
        names = readable(request, asked.get("collections"))
        found = await self.service.snapshots.current(journal, names)
        of = "" if names is None else f"?collections={quote(','.join(sorted(names)), safe=',')}"
        location = f"/v1/journals/{journal}/snapshots/{found}{of}"
        return web.Response(
            status=303,
            headers={
                "Location": location,
                "Cache-Control": "no-store",
                "Journal-Revision": str(found.revision),
            },
        )

    async def snapshot_file(self, request: web.Request) -> web.StreamResponse:
        """GET …/snapshots/{id}: the snapshot, or a range of it."""
        asked = self.queries.snapshot.read(request.rel_url.raw_query_string)
        name = request.match_info["id"]
        if request[REACH].reads is not None and not snapshots.is_of(name, readable(request, asked.get("collections"))):
            raise snapshots.not_kept()  # what it is of has to be said by who may not read everything
        coding = negotiate.coding(request.headers.get("Accept-Encoding"))
        with request.app[WALLS].download(request), self.service.snapshots.read() as piece:
            found = await self.service.snapshots.file(request.match_info["j"], name, coding)
            return await send.file(request, found, piece)

    async def atom(self, request: web.Request) -> web.StreamResponse:
        """GET …/atom: one atom, now or at a revision."""
        asked = self.queries.atom.read(request.rel_url.raw_query_string)
        readable(request, frozenset([asked["collection"]]))
        told = await self.service.atoms.atom(
            request.match_info["j"], asked["collection"], asked["atom"], asked.get("at")
        )
        return await send.answer(request, told)

    async def history(self, request: web.Request) -> web.StreamResponse:
        """GET …/atom/history: an atom's changes, newest first."""
        asked = self.queries.history.read(request.rel_url.raw_query_string)
        readable(request, frozenset([asked["collection"]]))
        told = await self.service.atoms.history(
            request.match_info["j"], asked["collection"], asked["atom"], asked.get("before"), asked["limit"]
        )
        return await send.answer(request, told)

    async def digest(self, request: web.Request) -> web.StreamResponse:
        """GET …/digest: the digests beneath a prefix of places."""
        asked = self.queries.digest.read(request.rel_url.raw_query_string)
        told = await self.service.verify.told(
            request.match_info["j"],
            DigestAsked(asked["prefix"], asked["of"], readable(request, asked.get("collections"))),
        )
        return await send.answer(request, told)

    async def manifest(self, request: web.Request) -> web.StreamResponse:
        """GET …/manifest: the atoms beneath a prefix of places."""
        asked = self.queries.manifest.read(request.rel_url.raw_query_string)
        told = await self.service.verify.told(
            request.match_info["j"],
            ManifestAsked(
                asked["prefix"], asked["of"], readable(request, asked.get("collections")),
                asked.get("after"), asked["limit"],
            ),
        )  # fmt: skip
        return await send.answer(request, told)

    async def lookup(self, request: web.Request) -> web.StreamResponse:
        """POST …/lookup: atoms by name."""
        read.read(request.rel_url.raw_query_string, {})
        wanted = bodies.lookup(await bodies.body(request, self.limits), self.limits)
        _readable_all(request, wanted)
        return await send.answer(request, await self.service.verify.lookup(request.match_info["j"], wanted))


def _readable_all(request: web.Request, wanted: Mapping[str, Sequence[str]] | None) -> None:
    """Forbidden where atoms are asked for that may not be read."""
    if wanted:
        readable(request, frozenset(wanted))


def caller_answer(caller: Caller) -> CallerAnswer:
    """What a caller is told of itself."""
    if caller.owner is None:
        return CallerAnswer(None, [GrantAnswer("*", list(PERMISSIONS), None)], None)
    grants = [
        GrantAnswer(grant.journal, sorted(grant.can), None if grant.collections is None else sorted(grant.collections))
        for grant in caller.grants
    ]
    ends_at = None if caller.ends_at is None else rfc3339(datetime.fromtimestamp(caller.ends_at, UTC))
    return CallerAnswer(caller.name, grants, ends_at)


def _key(request: web.Request) -> str | None:
    """What a push that is not numbered is told from others by."""
    key = request.headers.get("Idempotency-Key")
    return None if key is None else read.key(key)
