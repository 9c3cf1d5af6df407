"""JWTs that are signed with listed keys: lists that change, that are away, and that somebody is made to ask for."""

import asyncio
import contextlib
import gzip
import json
import logging
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.web import Request, StreamResponse

from journal.config import Jwt
from journal.errors import Unauthenticated, Unavailable
from journal.web.jwts.jwks import LARGEST
from journal.web.jwts.verifier import Verifier
from tests.harness import eventually
from tests.jwts import KEYS, SECRET, Lister, by_hand, listed_at, listing, of_secret, signer, unsigned, verifying

NEVER_S = 3600.0
NOT_LISTED = "the token's key is not listed"
WRONG = "the token's signature does not hold"


def replace(path: Path, text: bytes) -> None:
    """As those do who want nobody to read half of it."""
    beside = path.with_suffix(".new")
    beside.write_bytes(text)
    beside.replace(path)


async def refused(verifier: Verifier, token: str) -> str:
    """Why it is."""
    with pytest.raises(Unauthenticated) as caught:
        await verifier.verify(token)
    return str(caught.value.detail)


def is_not_known(verifier: Verifier, token: str) -> Callable[[], Awaitable[bool]]:
    async def holds() -> bool:
        return verifier.known(token) is None

    return holds


def is_asked(lister: Lister, times: int) -> Callable[[], Awaitable[bool]]:
    async def holds() -> bool:
        return lister.asked >= times

    return holds


def of(lister: Lister, **settings: Any) -> Jwt:
    asked: dict[str, Any] = {"unknown_s": 0.05, "refresh_s": NEVER_S}
    return Jwt(jwks=lister.url, **(asked | settings))


@pytest.mark.parametrize("algorithm", KEYS)
async def test_who_is_signed_for_by_a_listed_key_is_believed(algorithm: str, tmp_path: Path) -> None:
    one = signer(algorithm, "k")
    (tmp_path / "keys").write_bytes(listing(one))

    async with verifying(Jwt(jwks=str(tmp_path / "keys"))) as verifier:
        caller = await verifier.verify(one.token(iss="https://who.example"))

        assert caller.owner == "jwt:https://who.example|ada"
        assert await refused(verifier, signer(algorithm, "not listed").token()) == NOT_LISTED
        head, payload, _ = one.token().split(".")
        forged = signer(algorithm, "not listed").token().rpartition(".")[2]
        assert await refused(verifier, f"{head}.{payload}.{forged}") == WRONG
        assert await refused(verifier, f"{head}.{payload}.") == WRONG


@pytest.mark.parametrize("secret", [None, SECRET])
@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
async def test_a_listed_key_is_never_taken_for_a_secret(algorithm: str, secret: str | None, tmp_path: Path) -> None:
    one = signer(algorithm, "k")
    (tmp_path / "keys").write_bytes(listing(one))

    async with verifying(Jwt(jwks=str(tmp_path / "keys"), secret=secret)) as verifier:
        assert await verifier.verify(one.token())
        for public in (one.pem, one.pem.strip(), one.der, json.dumps(one.entry).encode(), listing(one), b""):
            for alg in ("HS256", "HS384", "hs256", algorithm, "none"):
                assert await refused(verifier, by_hand({"alg": alg, "kid": "k"}, public))
        for alg in ("none", "None", "", algorithm):
            assert await refused(verifier, unsigned({"alg": alg, "kid": "k"}))


async def test_a_secret_and_a_list_each_have_their_tokens(tmp_path: Path) -> None:
    one = signer("ES256", "k")
    (tmp_path / "keys").write_bytes(listing(one))

    async with verifying(Jwt(jwks=str(tmp_path / "keys"), secret=SECRET)) as verifier:
        assert (await verifier.verify(of_secret(sub="by secret"))).name == "by secret"
        assert (await verifier.verify(one.token(sub="by key"))).name == "by key"

    async with verifying(Jwt(jwks=str(tmp_path / "keys"))) as verifier:
        assert "RS256" in await refused(verifier, of_secret())
    async with verifying(Jwt(secret=SECRET)) as verifier:
        assert (
            await refused(verifier, one.token()) == "the token is not signed in a way that is taken here (alg): HS256"
        )


async def test_tokens_of_the_secret_do_not_need_the_list(tmp_path: Path) -> None:
    async with verifying(Jwt(jwks=str(tmp_path / "missing"), secret=SECRET)) as verifier:
        assert await verifier.verify(of_secret())
        with pytest.raises(Unavailable):
            await verifier.verify(signer("ES256").token())
        assert verifier.known(of_secret(sub="bob")) is None


async def test_a_token_that_names_no_key_is_tried_with_those_of_its_algorithm(tmp_path: Path) -> None:
    a, b, other = signer("ES256", "a"), signer("ES256", "b"), signer("EdDSA", "a")
    (tmp_path / "keys").write_bytes(listing(a, other, b))

    async with verifying(Jwt(jwks=str(tmp_path / "keys"))) as verifier:
        for one in (a, b, other):
            assert await verifier.verify(one.token(names_key=False))
        assert await refused(verifier, signer("ES256", "c").token(names_key=False)) == WRONG
        assert await refused(verifier, signer("RS256").token()) == NOT_LISTED


async def test_nobody_has_a_token_tried_with_a_hundred_keys(tmp_path: Path) -> None:
    entry = signer("ES256").entry
    (tmp_path / "keys").write_bytes(listing(*(entry | {"kid": str(n)} for n in range(100))))

    async with verifying(Jwt(jwks=str(tmp_path / "keys"))) as verifier:
        assert "which of 100 keys" in await refused(verifier, signer("ES256").token())


async def test_keys_in_a_file_are_changed_while_tokens_of_both_are_about(tmp_path: Path) -> None:
    old, new, file = signer("ES256", "old"), signer("ES256", "new"), tmp_path / "keys"
    file.write_bytes(listing(old))
    async with verifying(Jwt(jwks=str(file))) as verifier:
        old_token, new_token = old.token(), new.token()
        await verifier.verify(old_token)

        replace(file, listing(old, new))
        assert await verifier.verify(new_token)
        assert await verifier.verify(old_token)

        replace(file, listing(new))
        await eventually(is_not_known(verifier, old_token), seconds=5)
        assert await refused(verifier, old_token) == NOT_LISTED
        assert await verifier.verify(new_token)

        file.write_bytes(listing())
        await eventually(is_not_known(verifier, new_token), seconds=5)
        assert await refused(verifier, new_token) == NOT_LISTED


async def test_keys_at_a_url_are_changed_while_tokens_of_both_are_about() -> None:
    old, new = signer("RS256", "old"), signer("RS256", "new")
    async with listed_at(old) as lister, verifying(of(lister)) as verifier:
        old_token, new_token = old.token(), new.token()
        await verifier.verify(old_token)
        assert lister.asked == 1

        lister.text = listing(old, new)
        assert await verifier.verify(new_token)
        assert lister.asked == 2
        assert await verifier.verify(old_token)

        lister.text = listing(new)
        assert verifier.known(old_token)  # nobody has asked since
        await eventually(lambda: _is_refused(verifier, signer("RS256", "unknown").token(), lister, 3))
        assert verifier.known(old_token) is None
        assert await refused(verifier, old_token) == NOT_LISTED
        assert await verifier.verify(new_token)


async def _is_refused(verifier: Verifier, token: str, lister: Lister, asked: int) -> bool:
    assert await refused(verifier, token) == NOT_LISTED
    return lister.asked >= asked


async def test_a_key_that_is_gone_is_noticed_without_any_token_that_asks() -> None:
    one = signer("ES256", "k")
    async with listed_at(one) as lister, verifying(of(lister, refresh_s=0.05)) as verifier:
        token = one.token()
        await verifier.verify(token)

        lister.text = listing()
        await eventually(is_not_known(verifier, token))

        assert await refused(verifier, token) == NOT_LISTED


async def test_another_key_of_the_same_name_is_found() -> None:
    one, other = signer("ES256", "k"), signer("EdDSA", "k")
    async with listed_at(one) as lister, verifying(of(lister)) as verifier:
        await verifier.verify(one.token())

        lister.text = listing(other)

        assert await verifier.verify(other.token())
        assert await refused(verifier, one.token()) == NOT_LISTED


async def test_what_is_remembered_is_kept_while_the_list_says_the_same(tmp_path: Path) -> None:
    one = signer("ES256", "k")
    async with listed_at(one) as lister, verifying(of(lister, refresh_s=0.02)) as verifier:
        token = one.token()
        caller = await verifier.verify(token)

        await eventually(is_asked(lister, lister.asked + 3))

        assert verifier.known(token) is caller


async def test_a_flood_of_tokens_with_keys_that_nobody_knows_is_no_flood_of_questions() -> None:
    one = signer("ES256", "k")
    tokens = [by_hand({"alg": "ES256", "kid": f"made up {n}"}) for n in range(1000)]
    async with listed_at(one) as lister, verifying(of(lister, unknown_s=NEVER_S)) as verifier:
        await verifier.verify(one.token())
        assert lister.asked == 1

        told = await asyncio.gather(*(refused(verifier, token) for token in tokens[:500]))
        told += [await refused(verifier, token) for token in tokens[500:]]

        assert set(told) == {NOT_LISTED}
        assert lister.asked == 2


async def test_who_comes_first_waits_for_the_list_and_all_wait_for_one() -> None:
    one, may = signer("ES256", "k"), asyncio.Event()
    async with listed_at(one) as lister:

        async def later(request: Request) -> StreamResponse:
            await may.wait()
            return await lister.plainly(request)

        lister.answers = later
        async with verifying(of(lister)) as verifier:
            impatient, *patient = [asyncio.create_task(verifier.verify(one.token(sub=str(n)))) for n in range(5)]
            await eventually(is_asked(lister, 1))
            impatient.cancel()
            may.set()

            assert [caller.name for caller in await asyncio.gather(*patient)] == ["1", "2", "3", "4"]
            assert lister.asked == 1


async def test_known_keys_go_on_while_the_list_is_away_and_a_change_is_noticed_after_it() -> None:
    old, new = signer("ES256", "old"), signer("ES256", "new")
    async with listed_at(old) as lister, verifying(of(lister, refresh_s=0.05)) as verifier:
        token = old.token()
        await verifier.verify(token)

        await lister.go()
        assert await refused(verifier, new.token()) == NOT_LISTED
        assert verifier.known(token)
        assert await verifier.verify(old.token(sub="bob"))

        lister.text = listing(new)
        await lister.come()
        await eventually(is_not_known(verifier, token))
        assert await verifier.verify(new.token())
        assert await refused(verifier, token) == NOT_LISTED


async def test_keys_of_which_nobody_has_heard_for_long_are_not_good_any_more() -> None:
    one = signer("ES256", "k")
    async with listed_at(one) as lister, verifying(of(lister, kept_s=0.5)) as verifier:
        token = one.token()
        await verifier.verify(token)

        await lister.go()
        await eventually(is_not_known(verifier, token))

        with pytest.raises(Unavailable) as caught:
            await verifier.verify(token)
        assert caught.value.headers() == {"Retry-After": "1"}
        await lister.come()
        await eventually(lambda: _is_believed(verifier, token))


async def _is_believed(verifier: Verifier, token: str) -> bool:
    try:
        await verifier.verify(token)
    except Unavailable:
        return False
    return True


async def test_without_ever_having_had_the_list_nothing_can_be_said_of_a_token() -> None:
    one = signer("ES256", "k")
    async with listed_at(one) as lister:
        await lister.go()
        async with verifying(of(lister)) as verifier:
            for token in (one.token(), by_hand({"alg": "ES256"})):
                with pytest.raises(Unavailable, match="cannot be had"):
                    await verifier.verify(token)
            await lister.come()
            await eventually(lambda: _is_believed(verifier, one.token()))


async def _slowly(request: Request) -> StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(b'{"keys": [')
    await asyncio.sleep(NEVER_S)
    return response


async def _endlessly(request: Request) -> StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    with contextlib.suppress(ConnectionError):
        while True:
            await response.write(b" " * 65_536)
    return response


async def _no_http(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"hello\r\n\r\n")
    writer.close()


async def _broken_off(request: Request) -> StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b'{"keys": []}')
    assert request.transport is not None
    request.transport.abort()
    return response


def _saying(status: int, body: bytes = b"", **headers: str) -> Callable[[Request], Awaitable[StreamResponse]]:
    async def answer(_: Request) -> StreamResponse:
        return web.Response(status=status, body=body, headers={n.replace("_", "-"): v for n, v in headers.items()})

    return answer


EMPTY = b'{"keys": []}'


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        (_saying(200, b"<html>Sign in</html>"), "no JWK Set"),
        (_saying(200, b""), "no JWK Set"),
        (_saying(200, b'{"error": "busy"}'), "no JWK Set"),
        (_saying(200, EMPTY + b" " * LARGEST), "longer than"),
        (_saying(200, gzip.compress(EMPTY + b" " * (1 << 20)), Content_Encoding="gzip"), "no JWK Set"),
        (_saying(404, EMPTY), "HTTP 404"),
        (_saying(500, EMPTY), "HTTP 500"),
        (_saying(204), "HTTP 204"),
        (_saying(302, EMPTY, Location="file:///etc/passwd"), "HTTP 302, which leads to 'file:///etc/passwd'"),
        (_saying(301, EMPTY, Location="/elsewhere"), "HTTP 301, which leads to '/elsewhere'"),
        (_slowly, "cannot be had"),
        (_endlessly, "longer than"),
        (_broken_off, "cannot be had"),
    ],
    ids=["page", "empty", "error", "huge", "packed", "404", "500", "204", "file", "moved", "slow", "endless", "cut"],
)
async def test_what_is_no_list_changes_nothing_and_is_said_once(
    answers: Callable[[Request], Awaitable[StreamResponse]], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    one = signer("ES256", "k")
    async with listed_at(one) as lister:
        settings = of(lister, answer_s=0.3, refresh_s=0.05)
        async with verifying(settings) as verifier:
            token = one.token()
            await verifier.verify(token)

            lister.answers = answers
            asked = lister.asked
            await eventually(is_asked(lister, asked + 3))
            assert verifier.known(token)
            assert [said in record.message for record in caplog.records] == [True]

            lister.answers, lister.text = lister.plainly, listing()
            await eventually(is_not_known(verifier, token))
        assert "Traceback" not in caplog.text


@pytest.mark.parametrize("trouble", ["refused", "slow", "away", "no HTTP"])
async def test_where_keys_are_listed_is_logged_without_what_opens_it(
    trouble: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with listed_at() as lister:
        place = lister.url
        match trouble:
            case "refused":
                lister.answers = _saying(403)
            case "slow":
                lister.answers = _slowly
            case "away":
                await lister.go()
            case "no HTTP":
                nonsense = await asyncio.start_server(_no_http, "127.0.0.1", 0)
                place = f"http://127.0.0.1:{nonsense.sockets[0].getsockname()[1]}/keys"
        whole = place.replace("http://", "http://me:hidden@") + "?key=hidden#hidden"
        async with verifying(Jwt(jwks=whole, answer_s=0.2)) as verifier:
            with pytest.raises(Unavailable):
                await verifier.verify(signer("ES256").token())
        if trouble == "no HTTP":
            nonsense.close()

    assert place in caplog.text
    assert "hidden" not in caplog.text


async def test_a_list_of_which_nothing_can_be_used_is_said_with_why(caplog: pytest.LogCaptureFixture) -> None:
    async with listed_at({"kty": "oct", "k": "AAAA"}) as lister, verifying(of(lister)) as verifier:
        assert await refused(verifier, signer("ES256").token()) == NOT_LISTED

    assert "key 0: it is of a kind that is not used here" in caplog.text


@pytest.mark.parametrize("kind", ["missing", "folder", "pipe", "huge", "garbage", "unreadable link"])
async def test_a_file_that_is_none_is_said_and_then_read_when_it_is_there(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one, file = signer("ES256", "k"), tmp_path / "keys"
    match kind:
        case "folder":
            file.mkdir()
        case "pipe":
            os.mkfifo(file)  # whoever opened it would wait for ever
        case "huge":
            file.write_bytes(listing(one) + b" " * LARGEST)
        case "garbage":
            file.write_bytes(listing(one)[:-1])
        case "unreadable link":
            file.symlink_to(file)

    async with verifying(Jwt(jwks=str(file), unknown_s=0.05)) as verifier:
        with pytest.raises(Unavailable):
            await verifier.verify(one.token())
        if kind == "folder":
            file.rmdir()
        replace(file, listing(one))

        await eventually(lambda: _is_believed(verifier, one.token()))

    warnings = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == 2
    assert "cannot be had: " in warnings[0]
    assert "can be had again" in warnings[1]
    assert "Traceback" not in caplog.text


async def test_a_file_that_goes_away_or_is_half_written_leaves_its_keys_in_force(tmp_path: Path) -> None:
    one, new, file = signer("ES256", "k"), signer("ES256", "new"), tmp_path / "keys"
    file.write_bytes(listing(one))
    async with verifying(Jwt(jwks=str(file), refresh_s=0.02)) as verifier:
        token = one.token()
        await verifier.verify(token)

        file.unlink()
        assert await refused(verifier, new.token()) == NOT_LISTED  # which has looked
        assert verifier.known(token)
        file.write_bytes(listing(new)[:40])
        assert verifier.known(token)
        file.write_bytes(listing(new))

        await eventually(is_not_known(verifier, token))
        assert await verifier.verify(new.token())
