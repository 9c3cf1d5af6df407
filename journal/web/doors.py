"""Doors: what a caller must be allowed to do before a handler is asked, and what it may be told (protocol, section 13).

The rule: a journal that a caller may do nothing with is not there for it; what it may not do with one that it knows is
forbidden alike, whether it is there or not.
"""

from typing import Any, cast

from aiohttp import web

from journal.core.grants import Caller, Names, Reach
from journal.errors import Forbidden, JournalNotFound, Unauthenticated, Unavailable
from journal.service.access import Access
from journal.service.rounds import not_granted
from journal.web.routing import Need

ACCESS = web.AppKey("access", Access)
CALLER = web.RequestKey("caller", Caller)
REACH = web.RequestKey("reach", Reach)
NEEDS: web.RequestKey[Need] = web.RequestKey("needs", cast("Any", str))  # it knows no Literal
AUTHORIZATION = "Authorization"
OPERATOR_LENGTH = 200


async def caller_of(request: web.Request, access: Access) -> Caller:
    """Who makes a request; Unauthenticated where that is nobody."""
    authorization = request.headers.get(AUTHORIZATION)
    return access.known(authorization) or await access.caller(authorization)


def admit(request: web.Request, caller: Caller, needs: Need) -> None:
    """Let a caller in; Forbidden or JournalNotFound where it may not do what the route does."""
    request[CALLER], request[NEEDS] = caller, needs
    if needs == "service" and not caller.operates_service:
        raise Forbidden("this is for operators of the whole service")
    journal = request.match_info.get("j")
    if journal is None:
        return
    reach = request[REACH] = caller.reach(journal)
    if needs == "service":
        return
    if reach.is_nothing:
        raise JournalNotFound
    match needs:
        case "read_all" if reach.reads is not None:
            raise Forbidden("this is for callers who may read the whole journal")
        case "write" if reach.writes is not None and not reach.writes:
            raise Forbidden("this is for callers who may write")
        case "operate" if not reach.operates:
            raise Forbidden("this is for operators of the journal")


async def admit_again(request: web.Request) -> None:
    """The same of who was let in some time ago: meanwhile it may have become nobody, or may do other things."""
    needs = request.get(NEEDS)
    if needs is not None:
        admit(request, await caller_of(request, request.app[ACCESS]), needs)


def readable(request: web.Request, asked: Names) -> Names:
    """The collections that are meant by those that a request names, or by none; Forbidden beyond what may be read."""
    reads = request[REACH].reads
    if reads is None:
        return asked
    if asked is None:
        return reads
    if not asked <= reads:
        raise not_granted(reads)
    return asked


async def same(request: web.Request) -> bool:
    """Whether the request's caller may still do what it might when it was let in, after some time."""
    caller = request.get(CALLER)
    if caller is None:
        return True
    try:
        return bool(await caller_of(request, request.app[ACCESS]) == caller)
    except (Unauthenticated, Unavailable):
        return False


def operator(request: web.Request) -> str:
    """Who operates: the caller's name, and who that says to be (From, RFC 9110, section 10.1.2); else the address."""
    said = request.headers.get("From", "").strip()
    known = said if said and said.isprintable() else ""
    caller = request[CALLER]
    if caller.owner is None:
        return known[:OPERATOR_LENGTH] or request.remote or "unknown"
    by = (f" by {caller.name}" if known else caller.name)[:OPERATOR_LENGTH]
    return known[: OPERATOR_LENGTH - len(by)] + by
