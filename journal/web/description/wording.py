"""What the description of the service says in words: groups, parameters, who may, and an example of each body."""

from typing import Any

from journal.wire import (
    CollectionRequest,
    CompactRequest,
    EraseRequest,
    LookupRequest,
    PushRequest,
    RestoredRequest,
    ResyncRequest,
    ServerRequest,
    SettleRequest,
    SyncRequest,
)

ABOUT = """\
A journal is a numbered record of changes and the state that they add up to; clients keep a copy of the state, ask for
everything since the revision that they have, and push changes of their own. What each call means is in the protocol
(docs/protocol.md); this document says what each takes and tells.

HEAD goes where GET does. Bodies are I-JSON (RFC 7493): a name twice in an object, U+0000, a lone surrogate, and a
number that a double would round are refused; lengths of names are in bytes of UTF-8. Members that a client does not
know in an answer are ignored. A service for which no token was made and no secret is set is open: it takes no token."""

TOKEN = "A token that an operator made, or a JWT: `Authorization: Bearer …`."  # noqa: S105

GROUPS = {
    "Journals": "What there is, and where it stands.",
    "Reading": "Everything since a revision: in pages, as lines, live, or the whole state at once.",
    "Writing": "Pushing changes, alone or together with everything since.",
    "Verifying": "Comparing what one has with what the server has, and repairing only what differs.",
    "Conflicts": "Changes that lost and are kept for a person to settle.",
    "Operating": "What operators ask and do.",
    "Watching": "Whether it runs, and how it does.",
    "Pages": "For people, and this document.",
}

NEEDS = {
    "nothing": "Anybody may.",
    "caller": "Whoever says who they are may.",
    "read": "Needs `read` of the journal, or of some of its collections.",
    "ticket": "Needs `read` of the journal, or of some of its collections, by a token or by a ticket.",
    "read_all": "Needs `read` of all collections of the journal.",
    "write": "Needs `write`.",
    "operate": "Needs `operate` of the journal.",
    "service": "Needs `operate` of all journals.",
}

PLACES = {
    "j": "The journal's name.",
    "id": "Which one.",
    "file": "The file's name.",
}

PARAMETERS = {
    "after": "The `next` of the page before.",
    "at": "At which place: a revision; for a cursor of other collections, the cursor that stands there.",
    "atom": "The atom's name.",
    "before": "The `next` of the page before.",
    "client": "The id of the client that asks, or that is asked for.",
    "collection": "The collection's name.",
    "collections": "Only these, with commas between.",
    "format": "The form of the answer; goes before `Accept`.",
    "include": "`meta`: who and when; `revisions`: all that a delta folds; or both with a comma.",
    "limit": "At most so many in an answer; deltas and changes come in whole commits, at least one.",
    "of": "What the leaves are of.",
    "prefix": "The beginning of the atoms' places.",
    "ticket": "One use of the stream, from `POST …/stream-tickets`.",
    "since": "A cursor, or a bare revision (0: from the start).",
    "state": "Which conflicts.",
    "until": "A fixed end: the last revision of a commit at or below the head.",
    "wait": "Seconds to hold the request until there is something to tell.",
}

_CLIENT = "6f1c0000-0000-4000-8000-000000000001"
EXAMPLES: dict[type, Any] = {
    CollectionRequest: {"collection": "todo", "policy": "merge"},
    LookupRequest: {"get": {"todo": ["f426", "759f"]}},
    PushRequest: {
        "client": _CLIENT,
        "push": 17,
        "base": "5f1c09ab33d2:2149:77aa000000000000",
        "changes": [
            {"op": "insert", "collection": "todo", "atom": "f426", "data": {"title": "rings"}},
            {"op": "update", "collection": "todo", "atom": "86c6", "data": {"cost": 210}, "unset": ["note"]},
            {"op": "delete", "collection": "todo", "atom": "759f"},
        ],
    },
    SyncRequest: {
        "client": _CLIENT,
        "push": 18,
        "since": "5f1c09ab33d2:2149:77aa000000000000",
        "changes": [{"op": "update", "collection": "todo", "atom": "86c6", "data": {"cost": 210}}],
        "get": {"todo": ["759f"]},
    },
    SettleRequest: {"keep": "both", "atom": "f426 (mine)"},
    ResyncRequest: {"reason": "the shop's clocks were wrong", "collections": ["todo"], "spread_s": 600},
    RestoredRequest: {"spread_s": 600},
    CompactRequest: {"keep_days": 90, "dry_run": True},
    EraseRequest: {"collection": "todo", "atom": "f426"},
    ServerRequest: {"system": "7312345678901234567", "timeline": 1},
}
