"""Queries: what each call's may say, in one place for its handler and for the description of the service."""

from functools import lru_cache

from journal.config import Limits
from journal.service.answer import Form
from journal.service.rounds import Page, page
from journal.web import parameters as read
from journal.web.parameters import Query, Read, number, seconds

NOTHING = Query({})
_ATOM: dict[str, Read] = {"collection": read.collection, "atom": read.atom}
_NAMED = ("collection", "atom")
_BENEATH: dict[str, Read] = {"prefix": read.prefix, "of": read.of, "collections": read.collections}
_FROM_THE_TOP = {"prefix": "", "of": "revision"}
_PAGE = {"limit": 100}


class Queries:
    """The queries, within a service's limits."""

    journals = Query({"after": read.journal, "limit": number(1, 1000)}, default={"after": "", **_PAGE})
    cursor = Query({"at": read.at_cursor, "collections": read.collections}, ("at",))
    stream = Query({"since": read.since, "collections": read.collections, "client": read.client, "ticket": read.text})
    snapshot = Query({"collections": read.collections})
    atom = Query(_ATOM | {"at": read.revision}, _NAMED)
    history = Query(_ATOM | {"before": read.revision, "limit": number(1, 1000)}, _NAMED, _PAGE)
    digest = Query(_BENEATH, default=_FROM_THE_TOP)
    manifest = Query(
        _BENEATH | {"after": read.place, "limit": number(1, 10_000)}, default=_FROM_THE_TOP | {"limit": 1000}
    )
    clients = Query({"after": read.text, "limit": number(1, 1000)}, default=_PAGE)
    conflicts = Query(
        {"after": read.revision, "limit": number(1, 1000), "state": read.conflict_state, "client": read.client},
        default=_PAGE | {"state": "open"},
    )
    audit = Query({"after": read.revision, "limit": number(1, 1000)}, default=_PAGE)

    def __init__(self, limits: Limits) -> None:
        self.changes = Query({"since": read.since, "limit": number(1, limits.raw_changes)}, ("since",), {"limit": 1000})
        self.deltas = Query(
            {
                "since": read.since,
                "limit": number(1, limits.deltas),
                "until": read.revision,
                "collections": read.collections,
                "client": read.client,
                "wait": seconds(limits.wait_s),
                "include": read.include,
                "format": read.form,
            },
            ("since",),
            {"limit": 10_000, "wait": 0.0},
        )
        self.page = lru_cache(maxsize=4096)(self._page)  # clients in step ask alike

    def _page(self, query: str, form: Form) -> Page:
        """The page of deltas that is asked for; `form` holds unless the query says another."""
        found = self.deltas.read(query)
        include = found.pop("include", frozenset())
        return page(
            found.pop("since"),
            wait_s=found.pop("wait"),
            form=found.pop("format", form),
            with_meta="meta" in include,
            with_revisions="revisions" in include,
            **found,
        )
