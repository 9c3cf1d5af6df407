"""docs/browsers.md in Chromium: a page with a token follows a journal by tickets, over the ends of its tokens."""

import re
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from playwright.async_api import Browser, Page

from journal.store import doors
from tests.command import ROOT
from tests.doors import Bearer, bearer, database_of, may
from tests.harness import Harness, Json, eventually, insert

GUIDE = (ROOT / "docs" / "browsers.md").read_text()
WRITER = may("read", "write", journal="j")
ENDS_S = 3.0

# The guide's function as it stands, on a page that notes what it is told.
BEGIN = """since => {
  window.seen = []; window.refusals = []; window.resyncs = []; window.sources = [];
  const Original = EventSource;
  window.EventSource = class extends Original {
    constructor(url) {
      super(url);
      const noted = { url, auth: [], errors: 0 };
      sources.push(noted);
      this.addEventListener("auth", event => noted.auth.push(JSON.parse(event.data).reason));
      this.addEventListener("error", () => { noted.errors += 1; });
    }
  };
  window.stop = follow("/v1/journals/j", since, {
    token: () => giveToken(),
    deltas: list => seen.push(...list.map(delta => delta.atom)),
    resync: body => resyncs.push(body),
    refused: problem => refusals.push(problem),
  });
}"""


@pytest.fixture
async def page(browser: Browser, service: Harness) -> AsyncIterator[Page]:
    """A page of the service's own origin that has the guide's function."""
    (code,) = re.findall(r"^```javascript\n(.*?)^```", GUIDE, re.M | re.S)
    opened = await browser.new_page()
    await opened.goto(f"{service.url}/console/icon.svg")
    await opened.evaluate(f"() => {{ {code.replace('export function', 'window.follow = function')} }}")
    yield opened
    await opened.close()


async def gives(page: Page, *bearers: Bearer) -> None:
    """Let the page have these tokens, one after the other; the last one for ever."""
    left = list(bearers)

    async def give() -> Any:
        return left.pop(0).text if len(left) > 1 else left[0].text

    await page.expose_function("giveToken", give)


async def sees(page: Page, *names: str) -> None:
    """Wait until it was told of these atoms, each once and in their order."""

    async def does() -> bool:
        return bool(await page.evaluate("seen.length") >= len(names))

    await eventually(does, seconds=20)
    assert await page.evaluate("seen") == list(names)


async def write(who: Bearer, name: str) -> None:
    """Have somebody insert an atom."""
    assert (await who.call("POST", "j/changes", json={"changes": [insert("todo", name)]})).status == 200


async def refusal(page: Page) -> Json:
    """Wait until it is told that its token will not do."""

    async def is_told() -> Any:
        return await page.evaluate("refusals[0] ?? null")

    told: Json = await eventually(is_told)
    return told


async def test_a_page_with_a_token_follows_by_tickets_and_its_token_is_in_no_address(
    service: Harness, page: Page
) -> None:
    writer = await bearer(service, WRITER)
    await gives(page, writer)
    addresses: list[str] = []
    page.on("request", lambda request: addresses.append(request.url))
    await write(writer, "before")

    await page.evaluate(BEGIN, "0")
    await sees(page, "before")
    await write(writer, "after")

    await sees(page, "before", "after")
    assert len([address for address in addresses if "ticket=" in address]) == 1
    assert not any(str(writer.text) in address for address in addresses)


async def test_a_ticket_works_once(service: Harness, page: Page) -> None:
    writer = await bearer(service, WRITER)
    await gives(page, writer)
    await write(writer, "a")
    await page.evaluate(BEGIN, "0")
    await sees(page, "a")

    state = await page.evaluate("""() => new Promise(resolve => {
      const again = new EventSource(sources[0].url);
      again.onopen = () => resolve("open");
      again.onerror = () => resolve(again.readyState);
    })""")

    assert state == 2  # closed, for ever
    await write(writer, "b")
    await sees(page, "a", "b")


async def test_p9_a_token_that_expires_during_the_stream_is_followed_by_another_and_nothing_is_missed_or_doubled(
    service: Harness, page: Page
) -> None:
    writer = await bearer(service, WRITER, name="writer")
    readers = 0

    async def give() -> Any:
        nonlocal readers
        readers += 1
        return (await bearer(service, may("read", journal="j"), ends_in_s=ENDS_S)).text

    await page.expose_function("giveToken", give)
    await page.evaluate(BEGIN, "0")
    names: list[str] = []
    deadline = time.monotonic() + 30
    while readers < 4:
        names.append(f"{len(names)}")
        await write(writer, names[-1])
        assert time.monotonic() < deadline

    names.append("last")
    await write(writer, "last")
    await sees(page, *names)
    sources = await page.evaluate("sources")
    assert [source["auth"] for source in sources[:3]] == [["expires"]] * 3
    assert [source["errors"] for source in sources] == [0] * len(sources)
    assert await page.evaluate("refusals") == []


async def test_a_stream_whose_token_expires_without_another_ends_and_says_so(service: Harness, page: Page) -> None:
    reader = await bearer(service, may("read", journal="j"), ends_in_s=2.0)
    await gives(page, reader)
    await page.evaluate(BEGIN, "0")

    told = await refusal(page)

    assert told["code"] == "unauthenticated"
    sources = await page.evaluate("sources")
    assert sources[0]["auth"][0] == "expires"


async def test_a_token_that_is_revoked_ends_the_stream_at_once(service: Harness, page: Page) -> None:
    reader, writer = await bearer(service, may("read", journal="j")), await bearer(service, WRITER)
    await gives(page, reader)
    await page.evaluate(BEGIN, "0")
    await write(writer, "a")
    await sees(page, "a")

    assert await doors.revoke(database_of(service), reader.number, by="a test")
    began = time.monotonic()
    told = await refusal(page)
    took = time.monotonic() - began

    assert told["code"] == "unauthenticated"
    assert took < 2.0  # a second, and that of a busy machine until a browser has asked for its next ticket
    assert (await page.evaluate("sources"))[0]["auth"] == ["revoked"]
    await write(writer, "b")
    assert await page.evaluate("seen") == ["a"]


async def test_what_may_be_read_changes_during_the_stream_and_the_page_is_told(service: Harness, page: Page) -> None:
    writer, reader = await bearer(service, WRITER), await bearer(service, may("read", journal="j"))
    await gives(page, reader)
    await page.evaluate(BEGIN, "0")
    await write(writer, "a")
    await sees(page, "a")

    assert await doors.grant(database_of(service), reader.number, (may("read", journal="j", of="visit"),))

    async def is_told() -> Any:
        return await page.evaluate("resyncs[0] ?? null")

    told: Json = await eventually(is_told)
    assert (told["reason"], told["granted"]) == ("scope", ["visit"])
