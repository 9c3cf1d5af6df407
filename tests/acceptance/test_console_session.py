"""The console of a service that lets in who has a token: it asks for one, and offers what its bearer may do."""

from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
from playwright.async_api import Browser, expect

from journal.store import doors
from tests.acceptance.test_console import Console, faint, looking
from tests.acceptance.test_console import console as console
from tests.doors import Bearer, bearer, database_of, may
from tests.harness import Harness, insert

FITS = "document.documentElement.scrollWidth <= innerWidth"
NOBODYS = "jo_" + "x" * 43


@pytest.fixture
async def operator(service: Harness) -> Bearer:
    """Whoever operates the service; there is something in two collections."""
    await service.pushed([insert("todo", "a"), insert("visit", "b")])
    return await bearer(service, may("operate", journal="*"), name="ops", ends_in_s=86_400)


@pytest.fixture
async def shut(console: Console, operator: Bearer) -> Console:
    """The page as it is without a token."""
    console.refused = 1
    await console.page.goto(f"{console.service.url}/console#/j")
    await expect(console.page.get_by_role("heading", name="Sign in")).to_be_visible()
    return console


async def sign_in(console: Console, text: str | None) -> None:
    """Paste a token, by the keyboard."""
    assert text is not None
    await console.fill("Token", text)
    await console.page.keyboard.press("Enter")


async def signed_in(console: Console, name: str) -> None:
    """It says who it is."""
    await expect(console.page.locator("#session")).to_contain_text(f"Signed in as {name}")
    await expect(console.page.locator(".figures-row dd").first).to_have_text("2")


async def parts(console: Console) -> list[str]:
    """The headings of what is shown of a journal."""
    return await console.page.locator("main h3").all_inner_texts()


async def test_where_everybody_may_do_everything_nobody_is_asked(console: Console) -> None:
    await console.service.pushed([insert("todo", "a")])
    await console.open()

    await expect(console.page.locator("#session")).to_be_hidden()
    await expect(console.page.get_by_label("Token")).to_have_count(0)
    assert "Actions" in await parts(console)


async def test_who_has_a_token_signs_in_and_it_is_kept_by_this_tab_alone(shut: Console, operator: Bearer) -> None:
    page = shut.page
    assert await page.get_by_label("Token").get_attribute("type") == "password"
    assert await page.get_by_role("navigation").count() == 0
    await sign_in(shut, operator.text)

    await signed_in(shut, "ops until")
    assert "Actions" in await parts(shut)
    assert str(operator.text) not in page.url
    kept = await page.evaluate("[sessionStorage['journal.token'], JSON.stringify(localStorage), document.cookie]")
    assert kept == [operator.text, "{}", ""]
    await page.reload()
    await signed_in(shut, "ops until")
    shut.refused = 1
    other = await page.context.new_page()
    await other.goto(f"{shut.service.url}/console")
    await expect(other.get_by_role("heading", name="Sign in")).to_be_visible()


async def test_who_signs_out_is_asked_again(shut: Console, operator: Bearer) -> None:
    await sign_in(shut, operator.text)
    await signed_in(shut, "ops")
    shut.refused = 1

    await shut.press("Sign out")

    await expect(shut.page.get_by_role("heading", name="Sign in")).to_be_visible()
    await expect(shut.page.get_by_role("alert")).to_have_count(0)
    assert await shut.page.evaluate("sessionStorage.length") == 0


async def test_a_token_that_nobody_knows_is_said_and_not_kept(shut: Console, operator: Bearer) -> None:
    shut.refused = 1
    await sign_in(shut, NOBODYS)

    await expect(shut.page.get_by_role("alert")).to_have_text(
        "This token is not known here, was revoked or has expired."
    )
    assert await shut.page.evaluate("sessionStorage.length") == 0
    await sign_in(shut, operator.text)
    await signed_in(shut, "ops")


async def test_what_a_client_may_not_do_is_not_offered(shut: Console) -> None:
    reader = await bearer(shut.service, may("read", "write", journal="j", of="todo"), name="phone")
    await shut.service.service.journals.create("other")
    await sign_in(shut, reader.text)
    await signed_in(shut, "phone")

    assert await parts(shut) == ["Collections"]
    await expect(shut.page.locator("main")).to_contain_text("You may read the collections todo.")
    await expect(shut.page.locator("main table tbody tr")).to_have_count(1)
    assert [await button.inner_text() for button in await shut.page.locator("main button").all()] == []
    assert await shut.page.locator(".journals a .name").all_inner_texts() == ["j"]
    await expect(shut.page.locator("#about")).to_contain_text("journal ")


async def test_who_operates_one_journal_is_offered_what_concerns_that(shut: Console) -> None:
    await shut.service.service.journals.create("other")
    one = await bearer(shut.service, may("operate", journal="j"), may("read", journal="other"), name="ops of j")
    await sign_in(shut, one.text)
    await signed_in(shut, "ops of j")

    assert {"Clients", "Actions", "Operations"} <= {text.split("\n")[0] for text in await parts(shut)}
    await shut.page.goto(f"{shut.service.url}/console#/other")
    await expect(shut.page.locator("main")).to_contain_text("You may read all collections.")
    assert await parts(shut) == ["Collections"]


async def test_a_token_that_is_revoked_while_somebody_looks_ends_that(shut: Console, operator: Bearer) -> None:
    await sign_in(shut, operator.text)
    await signed_in(shut, "ops")
    await shut.press("Check…")
    shut.refused = 20  # what was asked at the same moment

    await doors.revoke(database_of(shut.service), operator.number, by="a test")

    await expect(shut.page.get_by_role("heading", name="Sign in")).to_be_visible()
    await expect(shut.page.get_by_role("alert")).to_contain_text("was revoked")
    await shut.closed()
    await expect(shut.page.locator("main .figures-row")).to_have_count(0)
    assert await shut.page.evaluate("sessionStorage.length") == 0


async def test_what_is_forbidden_all_the_same_is_told_in_words(shut: Console, operator: Bearer) -> None:
    await sign_in(shut, operator.text)
    await signed_in(shut, "ops")
    await shut.press("Check…")
    shut.refused = 20
    assert await doors.grant(database_of(shut.service), operator.number, (may("read", journal="j"),))
    await shut.service.service.access.begin()

    await shut.press("Check")

    words = "You may not do this: this is for operators of the journal."
    await expect(shut.page.locator(".action .error:visible")).to_have_text(words)


@pytest.fixture
async def sizes(browser: Browser, service: Harness, operator: Bearer) -> Any:
    """Consoles in windows of a size and a colour scheme."""
    expect.set_options(timeout=8000)

    def opened(width: int, scheme: str) -> AbstractAsyncContextManager[Console]:
        return looking(browser, service, viewport={"width": width, "height": 800}, color_scheme=scheme)

    return opened


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1600])
async def test_signing_in_fits_and_can_be_read(sizes: Any, service: Harness, width: int, scheme: Any) -> None:
    name = "a phone with a name as long as people give to what they hold dear"
    reader = await bearer(service, may("read", journal="j", of="todo"), name=name, ends_in_s=86_400)
    async with sizes(width, scheme) as shown:
        shown.refused = 2
        await shown.page.goto(f"{service.url}/console#/j")
        await expect(shown.page.get_by_role("heading", name="Sign in")).to_be_visible()
        await sign_in(shown, NOBODYS)
        await expect(shown.page.get_by_role("alert")).to_be_visible()
        assert await shown.page.evaluate(FITS)
        assert await faint(shown.page) == []

        await sign_in(shown, reader.text)
        await signed_in(shown, name)

        assert await shown.page.evaluate(FITS)
        assert await faint(shown.page) == []
