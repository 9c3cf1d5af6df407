"""Flags and variables of `journal serve` about JWTs: what they come to, and what does not start."""

from typing import Any

import pytest

from journal.cli.jwts import believed
from journal.cli.say import Failed
from journal.config import Jwt
from tests.jwts import SECRET, signer

NOTHING: dict[str, Any] = dict.fromkeys(["secret", "jwks", "audience", "issuer", "claim", "leeway_s"])


@pytest.mark.parametrize(
    ("said", "settings"),
    [
        ({}, None),
        ({"secret": SECRET}, Jwt(secret=SECRET)),
        ({"jwks": "keys.json"}, Jwt(jwks="keys.json")),
        (
            {
                "jwks": "https://k.example/",
                "secret": SECRET,
                "audience": "j",
                "issuer": "i",
                "claim": "c",
                "leeway_s": 0.0,
            },
            Jwt(jwks="https://k.example/", secret=SECRET, audience="j", issuer="i", claim="c", leeway_s=0.0),
        ),
    ],
)
def test_they_come_to_settings(said: dict[str, Any], settings: Jwt | None) -> None:
    assert believed(**(NOTHING | said)) == settings


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"secret": "too short"}, "has 9 bytes: 32 are the least"),
        ({"secret": ""}, "has 0 bytes: 32 are the least"),
        ({"secret": signer("RS256").pem.decode()}, "is a key or a certificate"),
        ({"jwks": "ftp://keys.example"}, "not at ftp://keys.example"),
        ({"jwks": ""}, "not at nothing"),
        ({"issuer": "https://who.example"}, "need a secret, or a place where keys are listed"),
        ({"audience": "journal"}, "need a secret"),
        ({"leeway_s": 0.0}, "need a secret"),
    ],
)
def test_what_cannot_be_meant_so_does_not_start(said: dict[str, Any], why: str) -> None:
    with pytest.raises(Failed, match=why):
        believed(**(NOTHING | said))


@pytest.mark.parametrize("name", ["SECRET", "JWKS", "AUDIENCE", "ISSUER", "CLAIM", "LEEWAY_S"])
def test_a_variable_that_is_there_and_empty_is_a_slip(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"JOURNAL_JWT_{name}", "")

    with pytest.raises(Failed, match=f"JOURNAL_JWT_{name} is there, and empty"):
        believed(**NOTHING)
