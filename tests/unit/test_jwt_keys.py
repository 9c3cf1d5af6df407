"""Lists of keys (RFC 7517): which are used, for what, and that nothing makes them serve anything else."""

import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from journal.errors import Unauthenticated
from journal.web.jwts.keys import Head, Keys, NoKeys, head, listed, signed
from tests.harness import Json
from tests.jwts import KEYS, Signer, by_hand, listing, signer


def only(entry: Json) -> Keys:
    return listed(listing(entry))


def why_not(entry: Json) -> str:
    """Why a list's only key is not used."""
    keys = only(entry)
    assert keys.keys == ()
    [why] = keys.others
    return why


@pytest.mark.parametrize("algorithm", KEYS)
def test_a_listed_key_is_for_the_algorithm_that_it_says(algorithm: str) -> None:
    one = signer(algorithm, "k")
    token = one.token()

    [key] = listed(listing(one)).keys

    assert (key.kid, key.algorithm) == ("k", algorithm)
    assert json.loads(signed(token, key) or b"")["sub"] == "ada"
    assert signed(token[:-6] + "AAAAAA", key) is None


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "ES384", "EdDSA"])
def test_a_key_that_does_not_say_is_for_the_common_algorithm_of_its_kind(algorithm: str) -> None:
    entry = {name: value for name, value in signer(algorithm).entry.items() if name not in ("alg", "use", "key_ops")}

    [key] = only(entry).keys

    assert key.algorithm == algorithm


@pytest.mark.parametrize("algorithm", ["RS256", "PS256"])
def test_a_key_for_one_algorithm_is_not_used_for_another_of_its_kind(algorithm: str) -> None:
    [key] = listed(listing(signer(algorithm))).keys
    other = {"RS256": "PS256", "PS256": "RS256"}[algorithm]

    token = Signer(other, None, signer(algorithm).key, {}).token()

    assert signed(token, key) is None


@pytest.mark.parametrize("algorithm", KEYS)
def test_a_public_key_is_nobodys_secret(algorithm: str) -> None:
    one = signer(algorithm)
    [key] = listed(listing(one)).keys

    for public in (one.pem, one.pem.strip(), one.der, json.dumps(one.entry).encode(), b""):
        for alg in ("HS256", algorithm):
            assert signed(by_hand({"alg": alg}, public), key) is None


def test_keys_that_are_not_for_verifying_here_are_left_out_and_the_others_used() -> None:
    rs, es = signer("RS256", "rs"), signer("ES256", "es")
    small = rsa.generate_private_key(65537, 1024)
    small_entry = RSAAlgorithm.to_jwk(small.public_key(), as_dict=True)
    p521 = ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP521R1()).public_key(), as_dict=True)
    private = RSAAlgorithm.to_jwk(rs.key, as_dict=True)
    left_out = [
        ({"kty": "oct", "k": "c2VjcmV0LW9mLXRoaXJ0eS10d28tY2hhcmFjdGVycw"}, "of a kind that is not used"),
        ({"kty": "oct", "k": "c2VjcmV0LW9mLXRoaXJ0eS10d28tY2hhcmFjdGVycw", "alg": "HS256"}, "of a kind"),
        (rs.entry | {"alg": "HS256"}, "of a kind that is not used"),
        (rs.entry | {"alg": "none"}, "of a kind that is not used"),
        (rs.entry | {"alg": "ES256"}, "of a kind that is not used"),
        (rs.entry | {"alg": "RS512"}, "of a kind that is not used"),
        (rs.entry | {"use": "enc"}, "not for signatures"),
        (rs.entry | {"key_ops": ["sign"]}, "not for signatures"),
        (rs.entry | {"n": 7}, "Expected `str"),
        (rs.entry | {"n": "!"}, ""),
        (rs.entry | {"n": ""}, ""),
        (rs.entry | {"e": "AQ"}, ""),
        (private, "private"),
        (small_entry, "too short"),
        (p521, "of a kind that is not used"),
        (es.entry | {"crv": "P-384"}, "of a kind that is not used"),
        (es.entry | {"y": es.entry["x"]}, ""),
        (es.entry | {"crv": "secp256k1"}, "of a kind that is not used"),
        ({"kty": "OKP", "crv": "Ed448", "x": "AAAA", "alg": "EdDSA"}, "of a kind that is not used"),
        ({"kty": "OKP", "crv": "Ed25519", "x": "AAAA"}, ""),
        ({"kid": "nothing"}, "kty"),
    ]
    for entry, why in left_out:
        assert why in why_not(entry)

    keys = listed(listing(*(entry for entry, _ in left_out), rs, es, {"kty": "new", "for": "all"}))

    assert [key.kid for key in keys.keys] == ["rs", "es"]
    assert len(keys.others) == len(left_out) + 1


def test_a_list_may_be_empty() -> None:
    assert listed(b'{"keys": []}') == Keys(())
    assert listed(b'{"keys": [], "issuer": "https://who.example"}').keys == ()


@pytest.mark.parametrize(
    "text",
    [
        *(b"", b"null", b"[]", b"{}", b'{"keys": {}}', b'{"keys": null}', b'{"keys": [', b"<html>", b"\xff"),
        b"[" * 100_000,
        b'{"keys": [%b]}' % b",".join([b"{}"] * 1001),
    ],
)
def test_what_is_no_list_of_keys_is_told_from_an_empty_one(text: bytes) -> None:
    with pytest.raises(NoKeys, match="JWK Set"):
        listed(text)


def test_a_name_chooses_among_keys_and_where_there_is_none_the_algorithm() -> None:
    a, b, unnamed, other = signer("ES256", "a"), signer("ES256", "b"), signer("ES256"), signer("EdDSA", "a")
    keys = listed(listing(a, b, unnamed, other))

    def may(algorithm: str, kid: str | None) -> list[str | None]:
        return [key.kid for key in keys.that_may_have_signed(Head(algorithm, kid))]

    assert may("ES256", "a") == ["a", None]
    assert may("ES256", "c") == [None]
    assert may("ES256", None) == ["a", "b", None]
    assert may("EdDSA", "a") == ["a"]
    assert may("EdDSA", "b") == []
    assert may("RS256", "a") == []


MEMBERS = {
    "kty": st.sampled_from(["RSA", "EC", "OKP", "oct"]),
    "alg": st.sampled_from(["RS256", "ES256", "EdDSA", "HS256", "none"]),
    "crv": st.sampled_from(["P-256", "P-384", "Ed25519", "secp256k1"]),
    "use": st.sampled_from(["sig", "enc"]),
    "key_ops": st.just(["verify"]),
    "n": st.just(signer("RS256").entry["n"]) | st.text(max_size=4),
    "e": st.sampled_from(["AQAB", "AQ", "", "Ag"]),
    "x": st.sampled_from([signer("ES256").entry["x"], signer("EdDSA").entry["x"], "AA"]) | st.text(max_size=4),
    "y": st.just(signer("ES256").entry["y"]) | st.text(max_size=4),
    "kid": st.text(max_size=2) | st.integers() | st.none(),
    "k": st.text(max_size=4),
    "x5c": st.integers() | st.lists(st.text(max_size=3), max_size=1),
}


@given(st.fixed_dictionaries({}, optional=MEMBERS) | st.none() | st.integers() | st.lists(st.none(), max_size=2))
def test_whatever_is_listed_it_is_used_as_it_should_be_or_left_out(entry: Any) -> None:
    keys = listed(json.dumps({"keys": [entry]}).encode())

    assert len(keys.keys) + len(keys.others) == 1
    for key in keys.keys:
        kind = {"RSA": "RS256", "EC": "ES256", "OKP": "EdDSA"}[entry["kty"]]
        assert entry.get("alg", kind) == kind == key.algorithm


@given(st.text())
def test_no_text_has_a_head_that_breaks_anything(text: str) -> None:
    try:
        said = head(text)
    except Unauthenticated:
        return
    assert isinstance(said.algorithm, str)
