"""Routes: every call of the protocol, and what answers it."""

import re
import time

from aiohttp import web

import journal
from journal.core.cursor import Cursor
from journal.core.model import Policy
from journal.errors import Fault, InvalidRequest
from journal.service.answer import MEDIA, Answer
from journal.service.running import Service
from journal.service.verify import DigestAsked, ManifestAsked
from journal.web import bodies, negotiate, send, sse
from journal.web import parameters as read
from journal.web.pages import Pages
from journal.web.parameters import DeltasReader, number
from journal.web.recovery import Recovery, operator
from journal.web.routing import J, Route
from journal.wire import CollectionRequest

POLICIES: tuple[Policy, ...] = ("server", "merge", "client", "newest", "both")
_LIMITED: dict[str, read.Read] = {"after": read.journal, "limit": number(1, 1000)}
_KEY = re.compile(r"[\x20-\x7e]{1,255}")
_ATOM: dict[str, read.Read] = {"collection": read.collection, "atom": read.atom}
_BENEATH: dict[str, read.Read] = {"prefix": read.prefix, "of": read.of, "collections": read.collections}


class Routes:
    """The handlers, on a service."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.limits = service.settings.limits
        self.deltas_query = DeltasReader(self.limits)

    def table(self) -> list[Route]:
        """Every route."""
        return [
            Route("GET", f"{J}/deltas", self.deltas, "read"),  # what is asked most is looked for first
            Route("POST", f"{J}/changes", self.push, "write"),
            Route("GET", f"{J}/changes", self.changes, "read_all"),
            Route("POST", f"{J}/sync", self.sync, "read"),
            Route("GET", "/v1", self.about, "nothing"),
            Route("GET", "/v1/journals", self.journals, "caller"),
            Route("PUT", J, self.create, "service"),
            Route("DELETE", J, self.remove, "service"),
            Route("GET", J, self.head, "read"),
            Route("GET", f"{J}/collections", self.collections, "read"),
            Route("PUT", f"{J}/collections", self.set_policy, "operate"),
            Route("GET", f"{J}/cursor", self.cursor, "read"),
            Route("GET", f"{J}/stream", self.stream, "read"),
            Route("GET", f"{J}/snapshot", self.snapshot, "read"),
            Route("GET", f"{J}/snapshots/{{id}}", self.snapshot_file, "read"),
            Route("GET", f"{J}/atom", self.atom, "read"),
            Route("GET", f"{J}/atom/history", self.history, "read"),
            Route("GET", f"{J}/digest", self.digest, "read"),
            Route("GET", f"{J}/manifest", self.manifest, "read"),
            Route("POST", f"{J}/lookup", self.lookup, "read"),
            *Recovery(self.service).table(),
            *Pages().table(),
        ]

    async def about(self, request: web.Request) -> web.StreamResponse:
        """GET /v1: version, limits, policies, forms."""
        read.read(request.rel_url.raw_query_string, {})
        return send.json(
            {
                "version": 1,
                "software": f"journal {journal.__version__}",
                "limits": self.limits,
                "policies": POLICIES,
                "forms": list(MEDIA.values()),
            }
        )

    async def journals(self, request: web.Request) -> web.StreamResponse:
        """GET /v1/journals: a page of journals."""
        asked = read.read(request.rel_url.raw_query_string, _LIMITED)
        return send.json(await self.service.journals.page(asked.get("after", ""), asked.get("limit", 100)))

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
        return await send.answer(request, self.service.journals.head(tail))

    async def collections(self, request: web.Request) -> web.StreamResponse:
        """GET …/collections."""
        read.read(request.rel_url.raw_query_string, {})
        return send.json(await self.service.journals.collections(request.match_info["j"]))

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
        asked = self.deltas_query.read(request.rel_url.raw_query_string, form)
        journal = request.match_info["j"]
        if asked.client is not None:
            await self.service.registry.admit(journal, asked.client)
            since = asked.since if isinstance(asked.since, Cursor) else None
            self.service.registry.saw(journal, asked.client, since, request.headers.get("User-Agent"))
        return await send.answer(request, await self.service.reader.deltas(journal, asked))

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """GET …/stream: deltas as they are recorded."""
        return await sse.stream(self.service, request)

    async def cursor(self, request: web.Request) -> web.StreamResponse:
        """GET …/cursor: a cursor for other collections."""
        known = {"at": read.at_cursor, "collections": read.collections}
        asked = read.read(request.rel_url.raw_query_string, known, required=("at",))
        told = await self.service.journals.cursor(request.match_info["j"], asked["at"], asked.get("collections"))
        return send.json(told)

    async def changes(self, request: web.Request) -> web.StreamResponse:
        """GET …/changes: the record itself."""
        form = negotiate.form(request.headers.get("Accept"), ("json", "msgpack"))
        known = {"since": read.since, "limit": number(1, self.limits.raw_changes)}
        asked = read.read(request.rel_url.raw_query_string, known, required=("since",))
        told = await self.service.changes.changes(
            request.match_info["j"], asked["since"], asked.get("limit", 1000), form
        )
        return await send.answer(request, told)

    async def push(self, request: web.Request) -> web.StreamResponse:
        """POST …/changes: push."""
        arrived = time.monotonic()  # from when on ages count, however long the body takes
        read.read(request.rel_url.raw_query_string, {})
        journal, key = request.match_info["j"], _key(request)
        asked = bodies.push(await bodies.body(request, self.limits), self.limits, journal, key)
        asked.arrived = arrived
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
        if asked.push is not None:
            asked.push.arrived = arrived
        told = await self.service.sync.sync(journal, asked, request.headers.get("User-Agent"))
        if isinstance(told, Answer):
            return await send.answer(request, told)
        return send.decided(request, told.status, told.answer)

    async def snapshot(self, request: web.Request) -> web.StreamResponse:
        """GET …/snapshot: where the snapshot is."""
        journal = request.match_info["j"]
        asked = read.read(request.rel_url.raw_query_string, {"collections": read.collections})
        found = await self.service.snapshots.current(journal, asked.get("collections"))
        location = f"/v1/journals/{journal}/snapshots/{found}"
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
        read.read(request.rel_url.raw_query_string, {})
        coding = negotiate.coding(request.headers.get("Accept-Encoding"))
        snapshots = self.service.snapshots
        with snapshots.read() as piece:
            found = await snapshots.file(request.match_info["j"], request.match_info["id"], coding)
            return await send.file(request, found, piece)

    async def atom(self, request: web.Request) -> web.StreamResponse:
        """GET …/atom: one atom, now or at a revision."""
        known = _ATOM | {"at": read.revision}
        asked = read.read(request.rel_url.raw_query_string, known, required=("collection", "atom"))
        told = await self.service.atoms.atom(
            request.match_info["j"], asked["collection"], asked["atom"], asked.get("at")
        )
        return await send.answer(request, told)

    async def history(self, request: web.Request) -> web.StreamResponse:
        """GET …/atom/history: an atom's changes, newest first."""
        known = _ATOM | {"before": read.revision, "limit": number(1, 1000)}
        asked = read.read(request.rel_url.raw_query_string, known, required=("collection", "atom"))
        told = await self.service.atoms.history(
            request.match_info["j"], asked["collection"], asked["atom"], asked.get("before"), asked.get("limit", 100)
        )
        return await send.answer(request, told)

    async def digest(self, request: web.Request) -> web.StreamResponse:
        """GET …/digest: the digests beneath a prefix of places."""
        asked = read.read(request.rel_url.raw_query_string, _BENEATH)
        told = await self.service.verify.told(
            request.match_info["j"],
            DigestAsked(asked.get("prefix", ""), asked.get("of", "revision"), asked.get("collections")),
        )
        return await send.answer(request, told)

    async def manifest(self, request: web.Request) -> web.StreamResponse:
        """GET …/manifest: the atoms beneath a prefix of places."""
        known = _BENEATH | {"after": read.place, "limit": number(1, 10_000)}
        asked = read.read(request.rel_url.raw_query_string, known)
        told = await self.service.verify.told(
            request.match_info["j"],
            ManifestAsked(
                asked.get("prefix", ""), asked.get("of", "revision"), asked.get("collections"),
                asked.get("after"), asked.get("limit", 1000),
            ),
        )  # fmt: skip
        return await send.answer(request, told)

    async def lookup(self, request: web.Request) -> web.StreamResponse:
        """POST …/lookup: atoms by name."""
        read.read(request.rel_url.raw_query_string, {})
        wanted = bodies.lookup(await bodies.body(request, self.limits), self.limits)
        return await send.answer(request, await self.service.verify.lookup(request.match_info["j"], wanted))


def _key(request: web.Request) -> str | None:
    """What a push that is not numbered is told from others by."""
    key = request.headers.get("Idempotency-Key")
    if key is not None and not _KEY.fullmatch(key):
        raise InvalidRequest([Fault("", "Idempotency-Key: 1–255 printable characters of ASCII", 255)])
    return key
