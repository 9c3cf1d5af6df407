"""JWTs: signed with keys that are made here, or put together by hand as no honest library does; and a list of keys."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import cache
from typing import Any

import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from journal.config import Jwt
from journal.web.jwts.verifier import Verifier
from tests.harness import Json

SECRET = "a secret of thirty-two characters"
READS_DEMO: list[Json] = [{"journal": "demo", "can": ["read"]}]
KEYS = ("RS256", "PS256", "ES256", "ES384", "EdDSA")


class Signer:
    """One who signs with a key pair; `entry` is what a list says of it."""

    def __init__(self, algorithm: str, kid: str | None, key: Any, entry: Json) -> None:
        self.algorithm, self.kid, self.key = algorithm, kid, key
        self.entry = entry | {"alg": algorithm, "use": "sig"} | ({} if kid is None else {"kid": kid})

    @property
    def pem(self) -> bytes:
        """The public key, as everybody may have it."""
        pem: bytes = self.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        return pem

    @property
    def der(self) -> bytes:
        """The same."""
        der: bytes = self.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return der

    def token(self, *, names_key: bool = True, **claims: Any) -> str:
        """A token with these claims besides those that it needs."""
        headers = {"kid": self.kid} if names_key and self.kid is not None else None
        return jwt.encode(full(claims), self.key, self.algorithm, headers=headers)


def signer(algorithm: str, kid: str | None = None) -> Signer:
    """Always the same of this algorithm and name."""
    key, entry = _pair(algorithm, kid)
    return Signer(algorithm, kid, key, entry)


@cache
def _pair(algorithm: str, kid: str | None) -> tuple[Any, Json]:
    key: Any
    match algorithm:
        case "RS256" | "PS256":
            key = rsa.generate_private_key(65537, 2048)
            return key, RSAAlgorithm.to_jwk(key.public_key(), as_dict=True) | {"key_ops": ["verify"]}
        case "ES256" | "ES384":
            key = ec.generate_private_key(ec.SECP256R1() if algorithm == "ES256" else ec.SECP384R1())
            return key, ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
        case _:
            key = ed25519.Ed25519PrivateKey.generate()
            return key, OKPAlgorithm.to_jwk(key.public_key(), as_dict=True)


def full(claims: Json) -> Json:
    """The claims with what every token needs; one that is None is left out."""
    needed = {"sub": "ada", "exp": int(time.time()) + 600, "journal": READS_DEMO}
    return {name: value for name, value in (needed | claims).items() if value is not None}


def of_secret(secret: str = SECRET, algorithm: str = "HS256", /, **claims: Any) -> str:
    """A token signed with a secret."""
    return jwt.encode(full(claims), secret, algorithm)


def by_hand(head: object, secret: bytes = SECRET.encode(), payload: bytes | None = None, **claims: Any) -> str:
    """A token with any head, over an HMAC with any secret."""
    holds = json.dumps(full(claims)).encode() if payload is None else payload
    signed = f"{_text(json.dumps(head).encode())}.{_text(holds)}"
    return f"{signed}.{_text(hmac.new(secret, signed.encode(), hashlib.sha256).digest())}"


def unsigned(head: object, **claims: Any) -> str:
    """A token with no signature at all."""
    return f"{_text(json.dumps(head).encode())}.{_text(json.dumps(full(claims)).encode())}."


def listing(*signers: Signer | Json) -> bytes:
    """A JWK Set of these."""
    return json.dumps({"keys": [one.entry if isinstance(one, Signer) else one for one in signers]}).encode()


class Lister:
    """Somebody who lists keys at `url`; `answers` says how. `asked`: how often it was."""

    def __init__(self, text: bytes) -> None:
        self.text, self.asked = text, 0
        self.answers: Callable[[web.Request], Awaitable[web.StreamResponse]] = self.plainly
        self._runner: web.AppRunner | None = None
        self._port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/keys"

    async def plainly(self, _: web.Request) -> web.StreamResponse:
        """As it should."""
        return web.Response(body=self.text, content_type="application/json")

    async def come(self) -> None:
        """Be there (again), at the same place."""

        async def answer(request: web.Request) -> web.StreamResponse:
            self.asked += 1
            return await self.answers(request)

        app = web.Application()
        app.router.add_get("/{path:.*}", answer)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port).start()
        self._port = self._runner.addresses[0][1]

    async def go(self) -> None:
        """Be away: nobody answers."""
        if self._runner is not None:
            await self._runner.cleanup()


@asynccontextmanager
async def listed_at(*signers: Signer | Json) -> AsyncIterator[Lister]:
    """Somebody who lists the keys of these."""
    lister = Lister(listing(*signers))
    await lister.come()
    try:
        yield lister
    finally:
        await lister.go()


@asynccontextmanager
async def verifying(settings: Jwt) -> AsyncIterator[Verifier]:
    """What believes tokens as `settings` say."""
    verifier = Verifier(settings)
    async with verifier.running():
        yield verifier


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
