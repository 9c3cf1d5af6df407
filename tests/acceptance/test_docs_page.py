"""The page of calls in a browser: all of the description, at two sizes, from nowhere but this service."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

import pytest
from playwright.async_api import Browser, Page, Request, expect

from journal.web.pages import HEADERS
from tests.conforming import described
from tests.harness import Harness

SIZES = {"wide": (1280, 900), "narrow": (390, 800)}
Scheme = Literal["light", "dark"]
# Everything that can be opened, and what is in it then.
OPEN_ALL = """async () => {
  for (let closed; (closed = [...document.querySelectorAll("main details:not([open])")]).length > 0; ) {
    closed.forEach((one) => (one.open = true));
    await new Promise((done) => setTimeout(done, 50));
  }
  return document.querySelector("main").innerText;
}"""


@asynccontextmanager
async def opened(browser: Browser, service: Harness, address: str, size: str, scheme: Scheme) -> AsyncIterator[Page]:
    """The page, which must ask nobody else and say nothing to the log."""
    wrong: list[str] = []

    def asked(request: Request) -> None:
        if not request.url.startswith(service.url + "/"):
            wrong.append(f"asked {request.url}")

    width, height = SIZES[size]
    page = await browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", asked)
    await page.goto(service.url + address)
    await page.locator(".call").first.wait_for()
    yield page
    await page.close()
    assert not wrong


def operations() -> list[tuple[str, str, str]]:
    return [
        (method.upper(), path, said["operationId"])
        for path, methods in described()["paths"].items()
        for method, said in methods.items()
    ]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_it_shows_every_call_with_all_that_it_takes_and_tells(
    service: Harness, browser: Browser, size: str, scheme: Scheme
) -> None:
    async with opened(browser, service, "/docs", size, scheme) as page:
        shown = await page.locator(".call > summary").all_inner_texts()
        text: str = await page.evaluate(OPEN_ALL)
        fits = await page.evaluate("document.documentElement.scrollWidth <= innerWidth")

    words = [re.sub(r"\s+", " ", one).split(" ") for one in shown]
    assert sorted((one[0], one[1]) for one in words) == sorted((method, path) for method, path, _ in operations())
    assert all(len(one) > 2 for one in words), "a call without a summary"
    for slip in ("undefined", "[object", "NaN", "`"):
        assert slip not in text
    for name in ("PushRequest", "on_conflict", "event: resync", "the last line", "Retry-After", "too_large"):
        assert name in text
    assert fits


async def test_an_address_opens_its_call_and_words_find_one(service: Harness, browser: Browser) -> None:
    async with opened(browser, service, "/docs#push", "wide", "light") as page:
        await expect(page.locator("#push")).to_have_attribute("open", "")
        await expect(page.locator("#push > summary")).to_be_focused()
        await expect(page.locator("#push")).to_contain_text("todo")

        await page.get_by_label("Find a call").fill("journals raise horizon")
        await expect(page.locator(".call:visible")).to_have_count(1)
        await page.locator("nav a:visible").press("Enter")

        await expect(page.locator("#compact")).to_have_attribute("open", "")


async def test_it_may_run_and_ask_only_what_this_service_serves(service: Harness) -> None:
    page = await service.call("GET", "/docs")
    names = re.findall(rb'(?:href|src)="([^"#]+)"', page.body)

    assert page.headers["Content-Security-Policy"] == HEADERS["Content-Security-Policy"]
    assert {name.decode() for name in names} >= {"console/docs.css", "console/docs.js", "openapi.json"}
    for name in names:
        assert (await service.call("GET", f"/{name.decode()}")).status == 200
    assert b"<script>" not in page.body
    assert b"style=" not in page.body
