"""Claims: what a JWT says of who carries it (RFC 7519), read once its signature has proved true.

Pure. The one rule: what is not exactly as it should be is a refusal that says why; nothing is read in the better sense.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Annotated, NoReturn

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from journal.config import Jwt
from journal.core import ijson
from journal.core.grants import Caller, Grant, Permission, faults_of
from journal.errors import Fault, Unauthenticated
from journal.faults import faults
from journal.wire import CollectionName, rfc3339

LAST_SECOND = 253_402_300_799  # of the year 9999: what lies beyond is no time to anybody
MOST_TOLD = 3
DEPTH = 8

Second = Annotated[float, Meta(ge=0, le=LAST_SECOND)]


class Registered(msgspec.Struct):
    """Those of RFC 7519, section 4.1, that are looked at."""

    exp: Second
    sub: Annotated[str, Meta(min_length=1, max_length=200)]
    nbf: Second | UnsetType = UNSET
    iat: Second | UnsetType = UNSET
    iss: Annotated[str, Meta(max_length=500)] = ""
    aud: str | list[str] | UnsetType = UNSET


class Granted(msgspec.Struct, forbid_unknown_fields=True):
    """An entry of the one claim that is this service's: what a token of its own says with `journal token create`."""

    journal: Annotated[str, Meta(extra={"name": "journal or *"})]
    can: list[Permission]
    collections: list[CollectionName] | UnsetType = UNSET


class Claim(msgspec.Struct):
    """The claim, as something that faults can be looked for in."""

    grants: list[Granted]


def caller(payload: bytes, settings: Jwt, now: float) -> Caller:
    """Who it is; Unauthenticated if it is nobody, or not at the second `now`."""
    members = _members(payload)
    claims = _registered(members)
    if now >= claims.exp + settings.leeway_s:
        _refuse(f"the token expired at {_moment(claims.exp)}")
    for begins in (claims.nbf, claims.iat):
        if begins is not UNSET and begins > now + settings.leeway_s:
            _refuse(f"the token is not valid before {_moment(begins)}")
    if settings.issuer is not None and claims.iss != settings.issuer:
        _refuse("the token is of another issuer (iss)")
    _look_at_audience(claims.aud, settings.audience)
    for name, text in (("sub", claims.sub), ("iss", claims.iss)):
        if not text.isprintable():
            _refuse(f"the token's {name} has characters that cannot be shown")
    if "|" in claims.iss:  # or two pairs of iss and sub would be one owner
        _refuse("the token's iss has a | in it")
    return Caller(
        owner=f"jwt:{claims.iss}|{claims.sub}",
        name=claims.sub,
        grants=_grants(members, settings.claim),
        ends_at=claims.exp + settings.leeway_s,
    )


def _members(payload: bytes) -> dict[str, Raw]:
    try:
        return msgspec.json.decode(payload.decode(), type=dict[str, Raw])
    except (msgspec.MsgspecError, ValueError, RecursionError):
        _refuse("the token holds no JSON object")


def _registered(members: dict[str, Raw]) -> Registered:
    names = [name for name in Registered.__struct_fields__ if name in members]
    try:
        value = {name: msgspec.json.decode(members[name]) for name in names}
    except (msgspec.MsgspecError, ValueError, RecursionError):
        _refuse("the token's claims cannot be read")
    if wrong := faults(value, Registered):
        _refuse(f"the token's claims: {_told(wrong)}")
    return msgspec.convert(value, Registered)


def _look_at_audience(said: str | list[str] | UnsetType, expected: str | None) -> None:
    """Whoever does not know itself in an audience must refuse the token (RFC 7519, section 4.1.3)."""
    audience = [] if said is UNSET else [said] if isinstance(said, str) else said
    if expected is not None and expected not in audience:
        _refuse("the token is for another audience (aud)")
    if expected is None and audience:
        _refuse("the token is for an audience (aud), and this service has no name that one could be")


def _grants(members: dict[str, Raw], name: str) -> tuple[Grant, ...]:
    if name not in members:
        _refuse(f"the token has no claim {name}")
    text = bytes(members[name])
    if wrong := ijson.check(text, depth=DEPTH):
        _refuse(f"the token's claim {name}: {_told(wrong)}")
    value = {"grants": msgspec.json.decode(text)}
    if wrong := faults(value, Claim):
        _refuse(f"the token's claim {name}: {_told(_within(wrong))}")
    grants = tuple(
        Grant(entry.journal, frozenset(entry.can), None if entry.collections is UNSET else frozenset(entry.collections))
        for entry in msgspec.convert(value, Claim).grants
    )
    if wrong := [Fault(f"/{place}", text) for place, grant in enumerate(grants) for text in faults_of(grant)]:
        _refuse(f"the token's claim {name}: {_told(wrong)}")
    return grants


def _within(wrong: Iterable[Fault]) -> list[Fault]:
    return [Fault(fault.pointer.removeprefix("/grants"), fault.detail) for fault in wrong]


def _told(wrong: list[Fault]) -> str:
    told = "; ".join(
        f"{fault.pointer}: {fault.detail}" if fault.pointer else fault.detail for fault in wrong[:MOST_TOLD]
    )
    return told if len(wrong) <= MOST_TOLD else f"{told}; and {len(wrong) - MOST_TOLD} more"


def _moment(second: float) -> str:
    return rfc3339(datetime.fromtimestamp(second, UTC))


def _refuse(detail: str) -> NoReturn:
    raise Unauthenticated(detail)
