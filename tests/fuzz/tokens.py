"""JWTs and lists of keys: a token lets nobody in whom another reader of it would not, and nobody further."""

import base64
import hashlib
import hmac
import json
import re
from typing import Any

import msgspec

from journal.config import Jwt
from journal.core.grants import Caller
from journal.errors import RequestError, Unauthenticated
from journal.web.jwts import keys
from journal.web.jwts.verifier import Verifier
from tests.fuzz.target import Target, text_of

SECRET = "a secret of thirty-two characters"
NOW = 1_750_000_000.0
AUDIENCE = "journal"
HEAD = {"alg": "HS256", "typ": "JWT"}
CLAIMS: dict[str, Any] = {
    "exp": NOW + 60, "sub": "a person", "iss": "https://issuer.test", "aud": ["journal", "other"],
    "journal": [{"journal": "demo", "can": ["read", "write"], "collections": ["todo"]}],
}  # fmt: skip


def check(data: bytes) -> None:
    """The first byte says what the rest is: a token, claims, a head and claims with a NUL between, or keys."""
    kind, rest = data[0] % 4 if data else 0, data[1:]
    if kind == 0:
        of_token(text_of(rest))
    elif kind == 3:
        of_listing(rest)
    else:
        head, _, claims = rest.partition(b"\0")
        if kind == 1:
            head, claims = json.dumps(HEAD).encode(), rest
        signed = f"{coded(head)}.{coded(claims)}"
        signature = hmac.digest(SECRET.encode(), signed.encode(), hashlib.sha256)
        of_token(f"{signed}.{coded(signature)}")


def of_token(token: str) -> None:
    found = carried(token)
    if found is None:
        return
    head, payload = (decoded(part) for part in token.split(".")[:2])
    signature = decoded(token.split(".")[2])
    signed = token.rpartition(".")[0].encode()
    assert json.loads(head)["alg"] == "HS256"
    assert hmac.compare_digest(signature, hmac.digest(SECRET.encode(), signed, hashlib.sha256))
    claims = json.loads(payload)
    assert claims["exp"] > NOW
    assert all(claims.get(name, 0) <= NOW for name in ("nbf", "iat"))
    assert claims["aud"] == AUDIENCE or AUDIENCE in claims["aud"]
    assert found.owner == f"jwt:{claims.get('iss', '')}|{claims['sub']}"
    assert len(found.grants) == len(claims["journal"])
    for grant, entry in zip(found.grants, claims["journal"], strict=True):
        assert grant.journal == entry["journal"]
        assert grant.can == set(entry["can"])
        assert grant.collections == (set(entry["collections"]) if "collections" in entry else None)


def carried(token: str) -> Caller | None:
    """Who is let in by it; what is refused must be sayable."""
    verifier = Verifier(Jwt(secret=SECRET, audience=AUDIENCE, leeway_s=0.0), clock=lambda: NOW)
    verifying = verifier.verify(token)
    try:
        verifying.send(None)
    except StopIteration as end:
        found: Caller = end.value
        assert verifier.known(token) == found
        return found
    except Unauthenticated as error:
        said(error)
        return None
    verifying.close()
    raise AssertionError("it waits for something, and there is nothing to wait for")


def said(error: RequestError) -> None:
    msgspec.json.encode(error.problem())
    for value in error.headers().values():
        assert re.fullmatch(r"[ -~]*", value), value


def of_listing(text: bytes) -> None:
    try:
        found = keys.listed(text)
    except keys.NoKeys as error:
        str(error).encode()
        return
    assert all(known.algorithm in keys.ALGORITHMS for known in found.keys)
    "".join(found.others).encode()
    try:
        entries = json.loads(text)["keys"]
    except (UnicodeDecodeError, RecursionError):
        return
    assert len(found.keys) + len(found.others) == len(entries)


def coded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _token() -> bytes:
    signed = f"{coded(json.dumps(HEAD).encode())}.{coded(json.dumps(CLAIMS).encode())}"
    return f"{signed}.{coded(hmac.digest(SECRET.encode(), signed.encode(), hashlib.sha256))}".encode()


_KEYS = (
    b'{"keys":[{"kty":"RSA","kid":"1","alg":"RS256","use":"sig","n":"%s","e":"AQAB"},'
    b'{"kty":"EC","crv":"P-256","kid":"2","x":"%s","y":"%s"},{"kty":"OKP","crv":"Ed25519","x":"%s"}]}'
    % (b"u" * 342, b"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", b"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
       b"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo")
)  # fmt: skip
TARGET = Target(
    "tokens",
    check,
    [
        b"\0" + _token(),
        b"\1" + json.dumps(CLAIMS).encode(),
        b"\2" + json.dumps(HEAD).encode() + b"\0" + json.dumps(CLAIMS).encode(),
        b"\1" + json.dumps(CLAIMS | {"nbf": 1, "iat": 2.5, "aud": "journal"}).encode(),
        b"\3" + _KEYS,
    ],
    [b'"exp":', b'"nbf":', b'"iat":', b'"aud":', b'"sub":', b'"iss":', b'"journal":', b'"can":', b'"collections":',
     b'"read"', b'"write"', b'"operate"', b"*", b"null", b"1e400", b"1e99", b"-1", b"NaN", b"\\ud800", b"\\u0000", b"|",
     b'"alg":"none"', b'"crit":["b64"]', b'"b64":false', b'"kid":', b".", b"=", b"-", b"_", b"\0", b"\xff", b"[", b"]",
     b"{", b"}", b'"kty":', b'"crv":', b'"x":', b'"y":', b'"n":', b'"e":', b'"use":"enc"', b"1750000000"],
    longest=9000,
)  # fmt: skip
