"""JWTs that are signed with a secret: who is believed, and everything that nobody is believed for."""

import asyncio
import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.pretty import pretty_repr

from journal.config import Jwt, Settings
from journal.core.grants import Caller, Grant
from journal.errors import Unauthenticated
from journal.web.jwts import verifier as jwts
from journal.web.jwts.verifier import LONGEST, Verifier
from journal.web.worker import heard, told
from tests.jwts import SECRET, by_hand, of_secret, signer, unsigned

NOW = 2_000_000_000
READS = frozenset(["read"])


class Clock:
    """A clock that a test sets."""

    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def verifier(clock: Clock | None = None, **settings: Any) -> Verifier:
    return Verifier(Jwt(**({"secret": SECRET} | settings)), clock=clock or Clock(time.time()))


async def refused(verifier: Verifier, token: str) -> str:
    """Why it is."""
    with pytest.raises(Unauthenticated) as caught:
        await verifier.verify(token)
    assert caught.value.detail is not None
    assert verifier.known(token) is None
    return caught.value.detail


async def test_a_token_says_who_carries_it_what_they_may_do_and_until_when() -> None:
    claim = [
        {"journal": "demo", "can": ["read", "write"], "collections": ["todo", "budget"]},
        {"journal": "*", "can": ["operate"]},
    ]
    token = of_secret(iss="https://who.example", sub="ada", exp=NOW + 60, iat=NOW, nbf=NOW, journal=claim)

    caller = await verifier(Clock()).verify(token)

    assert caller == Caller(
        owner="jwt:https://who.example|ada",
        name="ada",
        grants=(
            Grant("demo", frozenset(["read", "write"]), frozenset(["todo", "budget"])),
            Grant("*", frozenset(["operate"])),
        ),
        ends_at=NOW + 70,
    )


async def test_a_token_holds_until_it_expires_and_a_little_longer_for_clocks_that_differ() -> None:
    clock = Clock()
    token = of_secret(exp=NOW + 60)
    believing = verifier(clock)

    clock.now = NOW + 69.9
    await believing.verify(token)
    clock.now = NOW + 70

    assert believing.known(token) is None
    assert await refused(believing, token) == "the token expired at 2033-05-18T03:34:20.000000Z"


@pytest.mark.parametrize("claim", ["nbf", "iat"])
async def test_a_token_does_not_hold_before_its_time(claim: str) -> None:
    clock = Clock()
    token = of_secret(exp=NOW + 600, **{claim: NOW + 60})
    believing = verifier(clock)

    clock.now = NOW + 49.9
    assert "is not valid before 2033-05-18T03:34:20" in await refused(believing, token)
    clock.now = NOW + 50

    assert (await believing.verify(token)).name == "ada"


async def test_a_token_is_for_the_audience_and_of_the_issuer_that_are_set() -> None:
    choosy = verifier(audience="journal", issuer="https://who.example")

    assert await choosy.verify(of_secret(aud="journal", iss="https://who.example"))
    assert await choosy.verify(of_secret(aud=["mail", "journal"], iss="https://who.example"))
    for aud in ("mail", [], ["mail"], "journals", None):
        assert "audience" in await refused(choosy, of_secret(aud=aud, iss="https://who.example"))
    for iss in ("https://who.example/", "https://else.example", None):
        assert "issuer" in await refused(choosy, of_secret(aud="journal", iss=iss))


async def test_a_token_for_somebody_is_refused_by_a_service_that_has_no_name() -> None:
    assert "audience" in await refused(verifier(), of_secret(aud="mail"))
    assert await verifier().verify(of_secret(aud=[]))


@pytest.mark.parametrize("claim", ["exp", "sub", "journal"])
async def test_a_token_without_what_it_needs_is_refused(claim: str) -> None:
    detail = await refused(verifier(), of_secret(**{claim: None}))

    assert claim in detail


@pytest.mark.parametrize(
    ("claim", "value"),
    [
        *[("exp", value) for value in ["4000000000", True, [], -1, 10**12, 10**400]],
        *[("nbf", value) for value in ["1", False, {}, -1]],
        *[("iat", value) for value in ["1", False, {}, -1]],
        *[("sub", value) for value in ["", "a" * 201, "a\nb", "a\x00", "a\u202eb", 7, ["ada"]]],
        *[("iss", value) for value in ["a|b", "a\nb", "a" * 501]],
    ],
)
async def test_a_claim_of_the_wrong_kind_is_refused_by_name(claim: str, value: object) -> None:
    token = by_hand({"alg": "HS256"}, payload=json.dumps(full_of(claim, value)).encode())

    assert claim in await refused(verifier(), token)


def full_of(claim: str, value: object) -> dict[str, object]:
    return {"sub": "ada", "exp": time.time() + 600, "journal": [], claim: value}


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"null",
        b"[]",
        b'"a"',
        b"{",
        b"{}x",
        b"\xff",
        b'{"sub": "\xff", "exp": 4000000000, "journal": []}',
        b'{"sub": "a", "exp": NaN, "journal": []}',
        b'{"sub": "a", "exp": 1e999, "journal": []}',
        b'{"sub": "\\ud800", "exp": 4000000000, "journal": []}',
        b"[" * 4000,
        b'{"journal": ' + b"[" * 4000,
        b'{"sub": ' + b"[" * 2000 + b"]" * 2000 + b"}",
    ],
)
async def test_what_is_no_set_of_claims_is_refused(payload: bytes) -> None:
    assert await refused(verifier(), by_hand({"alg": "HS256"}, payload=payload))


async def test_of_a_claim_that_is_there_twice_both_readings_are_the_last() -> None:
    once = b'"sub": "a", "journal": [], "exp": %d, ' % (NOW + 60)
    twice = b'{"journal": [{"journal": "*", "can": ["operate"]}], "sub": "root", %b"iss": ""}' % once

    caller = await verifier(Clock()).verify(by_hand({"alg": "HS256"}, payload=twice))

    assert (caller.name, caller.grants) == ("a", ())


@pytest.mark.parametrize("alg", ["none", "None", "NONE", "nOnE", ""])
async def test_a_token_without_signature_is_refused(alg: str) -> None:
    assert "alg" in await refused(verifier(), unsigned({"alg": alg, "typ": "JWT"}))
    assert "alg" in await refused(verifier(), by_hand({"alg": alg}))


@pytest.mark.parametrize("algorithm", ["HS384", "HS512"])
async def test_the_secret_is_for_one_algorithm(algorithm: str) -> None:
    long = SECRET * 3

    assert "HS256" in await refused(verifier(secret=long), of_secret(long, algorithm))


async def test_a_signature_of_another_secret_or_of_none_does_not_hold() -> None:
    for token in (of_secret(SECRET + "!"), unsigned({"alg": "HS256"}), by_hand({"alg": "HS256"}, b"")):
        assert await refused(verifier(), token) == "the token's signature does not hold"


@pytest.mark.parametrize(
    "head",
    [
        {"alg": "HS256", "crit": ["b64"], "b64": False},
        {"alg": "HS256", "b64": False},
        {"alg": "HS256", "crit": ["exp"]},
        {"alg": "HS256", "crit": ["http://unknown.example"], "http://unknown.example": 1},
        {"alg": "HS256", "crit": []},
        {"alg": "HS256", "crit": "b64"},
        {"alg": "HS256", "kid": 7},
        {"alg": ["HS256"]},
        {"alg": {"HS256": 1}},
        {"alg": None},
        {},
        [],
        "HS256",
        None,
    ],
)
async def test_a_head_that_is_none_or_asks_for_the_unknown_is_refused(head: object) -> None:
    assert await refused(verifier(), by_hand(head))


@pytest.mark.parametrize("kind", ["RS256", "ES256", "EdDSA"])
async def test_a_key_that_the_token_brings_along_is_not_used(kind: str) -> None:
    own = signer(kind, "own")
    head = {"alg": kind, "kid": "own", "jwk": own.entry, "jku": "http://127.0.0.1:1/keys", "x5u": "http://127.0.0.1:1/"}

    assert "HS256" in await refused(verifier(), by_hand(head))


@pytest.mark.parametrize(
    "token",
    ["", "a", "a.b", "..", "a.b.c.d", "a.b.c.d.e", " a.b.c", "a.b.c\n", "a.b.c=", "é.b.c", "a.b/.c", "\udcff.b.c"],
)
async def test_what_is_not_well_formed_is_refused(token: str) -> None:
    assert await refused(verifier(), token) == "the token is not well formed"


async def test_a_token_may_be_so_long_and_no_longer() -> None:
    def of_length(pad: int) -> str:
        return by_hand({"alg": "HS256", "pad": "." * pad})

    longest = max((token for pad in range(5900, 6200) if len(token := of_length(pad)) <= LONGEST), key=len)

    assert len(longest) > LONGEST - 4
    assert await verifier().verify(longest)
    assert str(LONGEST) in await refused(verifier(), longest + "AAAA")


@given(st.data())
def test_no_character_of_a_token_can_be_changed(data: st.DataObject) -> None:
    token = by_hand({"alg": "HS256"}, payload=b'{"sub":"ada","exp":4000000000,"journal":[]}')
    place = data.draw(st.integers(0, len(token) - 1))
    other = data.draw(st.characters(codec="utf-8") | st.sampled_from("ABCabc012-_.="))

    changed = token[:place] + other + token[place + 1 :]

    if changed != token:
        asyncio.run(refused(verifier(), changed))


@given(
    st.text(st.sampled_from(".=-_Aa0eyJ") | st.characters()) | st.from_regex(r"[\w-]{0,40}\.[\w-]{0,40}\.[\w-]{0,40}")
)
def test_no_text_does_worse_than_being_refused(text: str) -> None:
    asyncio.run(refused(verifier(), text))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
HEAD_NAMES = st.sampled_from(["alg", "kid", "crit", "b64", "typ", "jwk", "zip"])


@given(st.dictionaries(HEAD_NAMES, st.sampled_from(["HS256", "none", "b64", False]) | JSON, max_size=4))
def test_a_head_of_any_kind_is_believed_only_if_it_says_how_the_secret_signs(head: dict[str, Any]) -> None:
    token = by_hand(head)

    try:
        caller = asyncio.run(verifier().verify(token))
    except Unauthenticated:
        assert head.get("alg") != "HS256" or head.keys() & {"kid", "crit", "b64"}
    else:
        assert head["alg"] == "HS256"
        assert caller.name == "ada"


async def test_what_was_verified_is_known_and_only_that() -> None:
    believing = verifier()
    token, other = of_secret(), of_secret(sub="bob")
    assert believing.known(token) is None

    caller = await believing.verify(token)

    assert believing.known(token) is caller
    assert await believing.verify(token) is caller
    assert believing.known(other) is None
    assert believing.known(token[:-1]) is None


async def test_those_are_remembered_that_came_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jwts, "MOST_KNOWN", 3)
    believing = verifier()
    tokens = [of_secret(sub=f"user {n}") for n in range(4)]

    for token in tokens[:3]:
        await believing.verify(token)
    assert believing.known(tokens[0]) is not None
    await believing.verify(tokens[3])

    assert [believing.known(token) is not None for token in tokens] == [True, False, True, True]


@pytest.mark.parametrize("secret", ["", "short", "a" * 31, "é" * 15])
def test_a_secret_that_is_too_short_is_none(secret: str) -> None:
    with pytest.raises(ValueError, match="32 are the least"):
        Jwt(secret=secret)


async def test_a_secret_is_so_many_bytes() -> None:
    for secret in ("a" * 32, "é" * 16):
        assert await verifier(secret=secret).verify(of_secret(secret))


@pytest.mark.parametrize("kind", ["RS256", "ES256", "EdDSA"])
def test_what_is_public_is_no_secret(kind: str) -> None:
    for public in (signer(kind).pem.decode(), json.dumps(signer(kind).entry)):
        with pytest.raises(ValueError, match="everybody"):
            Verifier(Jwt(secret=public))


@pytest.mark.parametrize("place", ["ftp://keys.example/", "file:///etc/keys", "http://", "https:///keys", "://"])
def test_keys_are_listed_at_a_path_or_at_a_url(place: str) -> None:
    with pytest.raises(ValueError, match="http or https"):
        Jwt(jwks=place)


def test_jwts_need_something_to_be_verified_by() -> None:
    with pytest.raises(ValueError, match="a secret, or a place"):
        Jwt()


def test_a_secret_is_not_shown_where_settings_are(tmp_path: Any) -> None:
    settings = Settings(dsn="", spool=tmp_path, jwt=Jwt(secret=SECRET, audience="journal"))

    assert SECRET not in f"{settings} {settings!r} {pretty_repr(settings)}"
    assert "audience='journal'" in repr(settings)
    assert heard(told(settings)) == settings  # a worker has it nevertheless
