"""The stream in a browser's own EventSource: it lives through restarts and cuts, and loses and doubles nothing."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page

from tests.cutting import cutting
from tests.harness import Json, eventually, insert
from tests.subprocess_service import Remote, serving_apart

# What an application does: it takes events, and stops listening when it is called back.
OPEN = """since => {
  window.seen = []; window.ids = []; window.resync = null; window.opened = 0;
  window.source = new EventSource(`/v1/journals/j/stream?since=${since}`);
  source.onopen = () => opened++;
  source.addEventListener("deltas", event => {
    const told = JSON.parse(event.data);
    seen.push(...told.deltas.map(delta => delta.atom));
    ids.push([told.since, event.lastEventId]);
  });
  source.addEventListener("resync", event => { resync = JSON.parse(event.data); source.close(); });
}"""


@pytest.fixture
async def service(database: str, tmp_path: Path) -> AsyncIterator[Remote]:
    """The service in a process that can be killed."""
    async with serving_apart(database, tmp_path) as remote:
        await remote.create()
        yield remote


@pytest.fixture
async def page(browser: Browser, service: Remote) -> AsyncIterator[Page]:
    """A page of the service's own origin."""
    opened = await browser.new_page()
    await opened.goto(f"{service.url}/console")
    yield opened
    await opened.close()


async def sees(page: Page, count: int) -> list[str]:
    """Wait until so many atoms were seen."""

    async def has_seen() -> list[str]:
        seen: list[str] = await page.evaluate("seen")
        return seen if len(seen) >= count else []

    found: list[str] = await eventually(has_seen, seconds=30)
    return found


async def test_p9_it_lives_through_kills_and_stops_and_neither_loses_nor_doubles(service: Remote, page: Page) -> None:
    await page.evaluate(OPEN, 0)
    names = []
    for turn in range(4):
        for n in range(3):
            names.append(f"{turn}-{n}")
            await service.pushed([insert("todo", names[-1])])
        await sees(page, len(names))
        await (service.kill() if turn % 2 else service.stop())
        await service.start()
        for n in range(3):  # while it is not connected
            names.append(f"{turn}-{n} away")
            await service.pushed([insert("todo", names[-1])])

    assert await sees(page, len(names)) == names
    ids: list[tuple[int, str]] = await page.evaluate("ids")
    ends = [0, *(int(cursor.split(":")[1]) for _, cursor in ids)]
    assert [since for since, _ in ids] == ends[:-1]
    assert await page.evaluate("opened") == 5


# Four at once: a browser opens six connections to a host.
OPEN_FOUR = """() => {
  window.streams = [0, 1, 2, 3].map(() => {
    const stream = { seen: [], ids: [], opened: 0 };
    const source = new EventSource("/v1/journals/j/stream?since=0");
    source.onopen = () => stream.opened++;
    source.addEventListener("deltas", event => {
      const told = JSON.parse(event.data);
      stream.seen.push(...told.deltas.map(delta => delta.atom));
      stream.ids.push([told.since, event.lastEventId]);
    });
    return stream;
  });
}"""


async def test_p9_it_lives_through_connections_that_break_inside_of_events(service: Remote, browser: Browser) -> None:
    names: list[str] = []
    async with cutting(int(service.url.rpartition(":")[2]), cuts=24) as proxy:
        page = await browser.new_page()
        await page.goto(f"{proxy.url}/console")
        await page.evaluate(OPEN_FOUR)
        while proxy.left:
            names.append(f"{len(names)}")
            await service.pushed([insert("todo", names[-1])])
            await asyncio.sleep(0.05)
        names.append("after the last cut")
        await service.pushed([insert("todo", names[-1])])

        async def have_seen_all() -> bool:
            least: int = await page.evaluate("Math.min(...streams.map(stream => stream.seen.length))")
            return least >= len(names)

        await eventually(have_seen_all, seconds=60)
        streams: list[Json] = await page.evaluate("streams")
        await page.close()

    for stream in streams:
        assert stream["seen"] == names
        ends = [0, *(int(cursor.split(":")[1]) for _, cursor in stream["ids"])]
        assert [since for since, _ in stream["ids"]] == ends[:-1]
        assert stream["opened"] > 1
    assert proxy.in_events >= 12


async def test_p8_it_is_told_of_a_resync_at_once(service: Remote, page: Page) -> None:
    await service.pushed([insert("todo", "a")])
    cursor = (await service.head())["cursor"]
    await page.evaluate(OPEN, cursor)

    async def is_open() -> bool:
        return bool(await page.evaluate("opened"))

    await eventually(is_open)
    await asyncio.sleep(0.2)
    await service.call("POST", "j/resync", json={"reason": "x", "spread_s": 60})

    async def is_called_back() -> Json:
        found: Json = await page.evaluate("resync")
        return found

    told = await eventually(is_called_back)
    assert (told["reason"], told["reconcile"], told["snapshot"]) == ("operator", "replace", "/v1/journals/j/snapshot")
    assert await page.evaluate("source.readyState") == 2
