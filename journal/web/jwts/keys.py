"""Keys: what a JWT may be signed with, and whether it was (RFC 7515, RFC 7517).

Pure. The one rule: a key says which algorithm it is for, never a token. A secret is for HS256 and nothing else, a
listed key for none of the kinds that a secret serves; so nobody's public key can be taken for a secret.
"""

from typing import Annotated, Any

import jwt
import msgspec
from jwt.algorithms import HMACAlgorithm
from msgspec import Meta, Raw

from journal.errors import Unauthenticated

OF_SECRETS = "HS256"
OF_KEYS: dict[tuple[str, str | None], tuple[str, ...]] = {  # kty and crv; the first where the key does not say
    ("RSA", None): ("RS256", "PS256"),
    ("EC", "P-256"): ("ES256",),
    ("EC", "P-384"): ("ES384",),
    ("OKP", "Ed25519"): ("EdDSA",),
}
ALGORITHMS = frozenset(name for names in OF_KEYS.values() for name in names)
MOST_TRIED = 8  # for one token: else a list of a thousand keys were a way to make this service work
LARGEST_KEY_BITS = 8192

_JWS = jwt.PyJWS(algorithms=[OF_SECRETS, *sorted(ALGORITHMS)], options={"enforce_minimum_key_length": True})


class NoKeys(ValueError):
    """This is no list of keys, or no secret."""


class _Listed(msgspec.Struct):
    """A key of the list: its public members, and whether there is a private one."""

    kty: str
    kid: str | None = None
    use: str | None = None
    key_ops: list[str] | None = None
    alg: str | None = None
    crv: str | None = None
    n: str | None = None
    e: str | None = None
    x: str | None = None
    y: str | None = None
    d: Any = None


class _Set(msgspec.Struct):
    keys: Annotated[list[Raw], Meta(max_length=1000)]


class Key(msgspec.Struct, frozen=True):
    """A key that is listed, for one algorithm."""

    kid: str | None
    algorithm: str
    key: jwt.PyJWK


class Keys(msgspec.Struct, frozen=True):
    """Those of a list that are used here; `others` says of the rest why not."""

    keys: tuple[Key, ...]
    others: tuple[str, ...] = ()

    def that_may_have_signed(self, head: "Head") -> list[Key]:
        """By algorithm and name; where a key or the token has no name, by algorithm."""
        return [
            key
            for key in self.keys
            if key.algorithm == head.algorithm and (head.kid is None or key.kid is None or key.kid == head.kid)
        ]


class Head(msgspec.Struct, frozen=True):
    """What a token says of its signature; nothing proves that it is true."""

    algorithm: str
    kid: str | None


def secret(text: str) -> bytes:
    """The secret of HS256; NoKeys if it is a public thing: a key in PEM or as a JWK, a certificate."""
    try:
        prepared = HMACAlgorithm(HMACAlgorithm.SHA256).prepare_key(text)
    except jwt.InvalidKeyError:
        raise NoKeys(
            "the secret for JWTs is a key or a certificate: such are listed, where everybody sees them"
        ) from None
    assert isinstance(prepared, bytes)
    return prepared


def listed(text: bytes) -> Keys:
    """The keys of a JWK Set (RFC 7517, section 5), which may be none; NoKeys where it is not one."""
    try:
        entries = msgspec.json.decode(text, type=_Set).keys
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise NoKeys(f"it is no JWK Set: {error}") from None
    keys, others = [], []
    for place, entry in enumerate(entries):
        try:
            keys.append(_key(entry))
        except NoKeys as error:
            others.append(f"key {place}: {error}")
    return Keys(tuple(keys), tuple(others))


def head(token: str) -> Head:
    """How `token` says that it is signed; Unauthenticated where it is no JWT, or asks for what is not known here."""
    try:
        said = _JWS.get_unverified_header(token)
    except jwt.DecodeError:
        raise Unauthenticated("the token is not well formed") from None
    except jwt.InvalidTokenError:
        raise Unauthenticated("the token's head asks for what is not known here (kid, crit)") from None
    algorithm = said.get("alg")
    if not isinstance(algorithm, str):
        raise Unauthenticated("the token does not say how it is signed (alg)")
    return Head(algorithm, said.get("kid"))


def signed(token: str, key: bytes | Key) -> bytes | None:
    """What `token` holds, if it was signed with this secret or key."""
    try:
        if isinstance(key, bytes):
            return _payload(_JWS.decode_complete(token, key, algorithms=[OF_SECRETS]))
        return _payload(_JWS.decode_complete(token, key.key, algorithms=[key.algorithm]))
    except (jwt.InvalidSignatureError, jwt.InvalidAlgorithmError):
        return None
    except jwt.PyJWTError:
        raise Unauthenticated("the token is not well formed") from None


def _payload(decoded: dict[str, Any]) -> bytes:
    payload = decoded["payload"]
    assert isinstance(payload, bytes)
    return payload


def _key(entry: Raw) -> Key:
    try:
        said = msgspec.json.decode(entry, type=_Listed)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise NoKeys(str(error)) from None
    if said.d is not None:
        raise NoKeys("it is private, and should not be listed at all")
    if said.use not in (None, "sig") or (said.key_ops is not None and "verify" not in said.key_ops):
        raise NoKeys("it is not for signatures")
    may = OF_KEYS.get((said.kty, said.crv))
    if may is None or said.alg not in (None, *may):
        raise NoKeys("it is of a kind that is not used here")
    algorithm = said.alg or may[0]
    try:
        made = jwt.PyJWK({name: text for name, text in msgspec.structs.asdict(said).items() if text}, algorithm)
        is_short = made.Algorithm.check_key_length(made.key) is not None
    except (jwt.PyJWTError, ValueError, TypeError) as error:
        raise NoKeys(str(error)) from None
    if is_short or getattr(made.key, "key_size", 0) > LARGEST_KEY_BITS:
        raise NoKeys("it is too short, or too long to be worked with")
    return Key(said.kid, algorithm, made)
