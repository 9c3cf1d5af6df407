"""The one claim that grants: by examples, and against an oracle that knows only what it may be."""

import json
import math
from typing import Any

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from journal.config import Jwt
from journal.core.grants import Grant
from journal.core.names import collection_ok, journal_ok
from journal.errors import Unauthenticated
from journal.web.jwts.claims import caller
from tests.jwts import SECRET

NOW = 2_000_000_000
SETTINGS = Jwt(secret=SECRET)


def granted(claim: object, settings: Jwt = SETTINGS) -> tuple[Grant, ...]:
    return granted_by(json.dumps(claim).encode(), settings)


def granted_by(text: bytes, settings: Jwt = SETTINGS) -> tuple[Grant, ...]:
    """What a token grants whose claim is this text."""
    name = json.dumps(settings.claim).encode()
    return caller(b'{"sub": "ada", "exp": %d, %b: %b}' % (NOW + 60, name, text), settings, NOW).grants


def refused(text: bytes, settings: Jwt = SETTINGS) -> str:
    with pytest.raises(Unauthenticated) as caught:
        granted_by(text, settings)
    return str(caught.value.detail).removeprefix(f"the token's claim {settings.claim}: ")


def test_what_it_grants_is_what_a_token_of_the_service_grants() -> None:
    assert granted([{"journal": "demo", "can": ["write", "read", "read"], "collections": ["todo", "todo"]}]) == (
        Grant("demo", frozenset(["read", "write"]), frozenset(["todo"])),
    )
    assert granted([{"journal": "*", "can": ["read"]}]) == (Grant("*", frozenset(["read"])),)
    assert granted([]) == ()


def test_it_has_the_name_that_is_set() -> None:
    named = Jwt(secret=SECRET, claim="https://journal.example/grants")

    assert granted([{"journal": "demo", "can": ["read"]}], named) == (Grant("demo", frozenset(["read"])),)


@pytest.mark.parametrize(
    ("claim", "detail"),
    [
        ("{}", "expected `array`, got `object`"),
        ("null", "expected `array`, got `null`"),
        ('"read"', "expected `array`, got `str`"),
        ("[1]", "/0: expected `object`, got `int`"),
        ("[{}]", "/0/journal: missing: this member is required; /0/can: missing: this member is required"),
        ('[{"journal":"Demo","can":["read"]}]', "/0/journal: must be a journal's name, or * for all of them"),
        ('[{"journal":"**","can":["read"]}]', "/0/journal: must be a journal's name, or * for all of them"),
        ('[{"journal":["demo"],"can":["read"]}]', "/0/journal: expected `str`, got `array`"),
        ('[{"journal":"demo","can":"read"}]', "/0/can: expected `array`, got `str`"),
        ('[{"journal":"demo","can":["admin"]}]', '/0/can/0: must be one of "read", "write", "operate"'),
        ('[{"journal":"demo","can":[]}]', "/0: it allows nothing: say read, write or operate"),
        ('[{"journal":"demo","can":["write"]}]', "/0: write needs read: who pushes is told what stands"),
        ('[{"journal":"demo","can":["read"],"collections":null}]', "/0/collections: expected `array`, got `null`"),
        ('[{"journal":"demo","can":["read"],"collections":[]}]', "/0: no collection is named"),
        (
            '[{"journal":"demo","can":["read"],"collections":["a,b"]}]',
            "/0/collections/0: must be 1–128 bytes, no comma or control character",
        ),
        (
            '[{"journal":"demo","can":["read"],"collection":["todo"]}]',
            '/0/collection: unknown member, did you mean "collections"? known are: journal, can, collections',
        ),
        ('[{"journal":"demo","can":["read"],"can":["operate"]}]', "/0/can: more than once in its object"),
        ("[1,2,3,4,5]", "/2: expected `object`, got `int`; and 2 more"),
    ],
)
def test_what_is_wrong_with_it_is_told_with_its_place(claim: str, detail: str) -> None:
    assert refused(claim.encode()).endswith(detail)


def test_it_is_json_or_refused() -> None:
    for text in (b"tru", b"[01]", b'["\xff"]', b"[" * 100, b'[{"journal":"demo","can":["read"]},]', b"NaN"):
        assert refused(text)


NAMES = st.sampled_from(["journal", "can", "collections", "collection", "exp"])
JOURNALS = st.sampled_from(["demo", "*", "a", "Demo", "", "-", "**"]) | st.text(max_size=3) | st.none()
CAN = st.lists(st.sampled_from(["read", "read", "write", "operate", "Read", "", 1]), max_size=3) | st.just("read")
COLLECTIONS = st.lists(st.sampled_from(["todo", "budget", "a,b", "", "\n", 1]), max_size=2) | st.none()
ENTRIES = st.fixed_dictionaries(
    {"journal": JOURNALS, "can": CAN}, optional={"collections": COLLECTIONS, "collection": COLLECTIONS}
) | st.dictionaries(NAMES, st.none() | st.just("demo") | CAN | COLLECTIONS, max_size=3)
CLAIMS = st.lists(ENTRIES, max_size=2) | st.none() | st.integers() | ENTRIES


def is_good(entry: Any) -> bool:
    """By the letter of the protocol."""
    if not isinstance(entry, dict) or not {"journal", "can"} <= entry.keys() <= {"journal", "can", "collections"}:
        return False
    journal, can, collections = entry["journal"], entry["can"], entry.get("collections", ["any"])
    if not isinstance(journal, str) or not (journal == "*" or journal_ok(journal)):
        return False
    if not isinstance(can, list) or not can or any(one not in ("read", "write", "operate") for one in can):
        return False
    if not isinstance(collections, list) or not collections:
        return False
    if any(not isinstance(one, str) or not collection_ok(one) for one in collections):
        return False
    if "write" in can and ("read" not in can or "operate" in can):
        return False
    return "operate" not in can or "collections" not in entry


@given(CLAIMS)
def test_it_grants_what_it_says_or_nothing(claim: Any) -> None:
    is_right = isinstance(claim, list) and all(is_good(entry) for entry in claim)
    event(f"right: {is_right}")

    if not is_right:
        assert refused(json.dumps(claim).encode())
        return
    assert granted(claim) == tuple(
        Grant(
            entry["journal"],
            frozenset(entry["can"]),
            frozenset(entry["collections"]) if "collections" in entry else None,
        )
        for entry in claim
    )


@given(st.binary(max_size=200))
def test_no_bytes_do_worse_than_being_refused(payload: bytes) -> None:
    with pytest.raises(Unauthenticated):
        caller(payload, SETTINGS, NOW)


@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers(), st.floats(0, 4e9))
def test_a_token_ends_when_it_says(exp: float, now: float) -> None:
    payload = json.dumps({"sub": "ada", "exp": exp, "journal": []}).encode()
    is_time = 0 <= exp <= 253_402_300_799

    try:
        found = caller(payload, SETTINGS, now)
    except Unauthenticated:
        assert not is_time or now >= exp + 10
    else:
        assert is_time
        assert found.ends_at is not None
        assert now < found.ends_at
        assert math.isclose(found.ends_at, exp + 10)
